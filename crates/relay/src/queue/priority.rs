//! Which mail goes first. Transactional mail is what somebody waits for: a reply, an order, a password reset. Bulk is what
//! says so, what goes to many at once, and what a sender piles up.
//!
//! This is the one place that decides it; [`super::fair`] keeps the order.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;

/// A message with more recipients is bulk.
const MANY_RECIPIENTS: usize = 50;
/// Messages of one sender in the queue; what comes on top is bulk.
const BACKLOG: usize = 500;

/// What goes first, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Somebody waits for it.
    Transactional = 0,
    /// Newsletters, lists, mass mail.
    Bulk = 1,
}

/// Whose turn it is: whoever logged in, or the reverse-path without its detail (`news+b=example.net@a.example`), so that
/// a newsletter with a return address for each reader is one sender. Two senders that collide share their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sender(u64);

/// The sender of a message.
pub fn sender(user: Option<&str>, reverse_path: &str) -> Sender {
    let mut hasher = DefaultHasher::new();
    let path = reverse_path.to_lowercase();
    let who = match (user, path.rsplit_once('@')) {
        (Some(user), _) => (user, ""),
        (None, Some((local, domain))) => (local.split('+').next().unwrap_or_default(), domain),
        (None, None) => (path.as_str(), ""),
    };
    who.hash(&mut hasher);
    Sender(hasher.finish())
}

/// Whether a message is bulk by what it says of itself (RFC 2919, RFC 2369, `Precedence` as of old) or by the number of
/// its recipients. `header` begins with its header section.
pub fn is_bulk(header: &[u8], recipients: usize) -> bool {
    let lines = header
        .split(|octet| *octet == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty());
    recipients > MANY_RECIPIENTS || lines.into_iter().any(says_bulk)
}

fn says_bulk(line: &[u8]) -> bool {
    let mut parts = line.splitn(2, |octet| *octet == b':');
    let name = parts.next().unwrap_or_default().trim_ascii_end();
    let value = parts.next().unwrap_or_default().trim_ascii();
    let named = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let bulk_precedence = || {
        ["bulk", "list", "junk"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
    };
    named("List-Id") || named("List-Unsubscribe") || named("Precedence") && bulk_precedence()
}

/// The class of a message that is ready, where its sender has `backlog` messages in the queue.
pub fn class(bulk: bool, backlog: usize) -> Class {
    if bulk || backlog > BACKLOG {
        Class::Bulk
    } else {
        Class::Transactional
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newsletter_has_one_sender_whatever_its_return_addresses() {
        let one = sender(None, "news+b=b.example@a.example");
        assert_eq!(one, sender(None, "News+c=c.example@A.example"));
        assert_ne!(one, sender(None, "app@a.example"));
        assert_ne!(one, sender(Some("app"), "news@a.example"));
        assert_eq!(
            sender(Some("app"), "x@a.example"),
            sender(Some("app"), "y@a.example")
        );
    }

    #[test]
    fn bulk_says_so_or_goes_to_many() {
        for header in [
            "From: a@b\r\nList-Id: <news.a.example>\r\n\r\n",
            "LIST-UNSUBSCRIBE: <mailto:u@a.example>\r\n\r\nHi",
            "Precedence: Bulk\r\nFrom: a@b\r\n\r\n",
        ] {
            assert!(is_bulk(header.as_bytes(), 1), "{header}");
        }
        for header in [
            "From: a@b\r\nSubject: List-Id: x\r\n\r\n",
            "From: a@b\r\n\r\nList-Id: <in.the.body>\r\n",
            "Precedence: first-class\r\n\r\n",
            "X-List-Id: x\r\n List-Id: folded\r\n\r\n",
        ] {
            assert!(!is_bulk(header.as_bytes(), 50), "{header}");
        }
        assert!(is_bulk(b"From: a@b\r\n\r\n", 51));
        assert_eq!(class(false, 500), Class::Transactional);
        assert_eq!(class(false, 501), Class::Bulk);
    }
}
