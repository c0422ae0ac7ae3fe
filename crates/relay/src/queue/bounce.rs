//! Who is told when mail fails for good, is late, or has arrived (RFC 3461 6, RFC 5321 6.1), without backscatter.
//!
//! Nobody is told of a failed notification (null reverse-path), nor where NOTIFY says so. The sender is told only
//! where the reverse-path is proved or is our own user's: a forged one would get mail it never caused. In all other cases
//! the notification, with the whole message if it is not too large, goes to our postmaster.

use crate::config::Config;
use crate::dsn::{Action, Report, Reported, Returned, write};
use crate::events::trace_id;
use crate::handover::{Envelope, Notify, Recipient, Ret};
use crate::spool::body::Stored;
use crate::spool::{MessageId, Status, StoredMessage};

use super::provenance::Provenance;

/// Octets of a header section that are returned at most.
const MAX_HEADER: usize = 64 << 10;
/// Octets of a message that are returned at most; of larger ones only the header section is.
const MAX_MESSAGE: u64 = 1 << 20;

/// Who we are in notifications.
#[derive(Debug, Clone)]
pub struct Identity {
    /// This node.
    pub hostname: String,
    /// Our postmaster.
    pub postmaster: String,
}

impl Identity {
    /// As the configuration has it.
    pub fn of(config: &Config) -> Self {
        Self {
            hostname: config.hostname.clone(),
            postmaster: config.postmaster.clone(),
        }
    }
}

/// Who is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<'a> {
    /// The sender.
    Sender(&'a str),
    /// Our postmaster, and why not the sender.
    Postmaster(&'static str),
}

/// Who is to be told about failures of this message; `None` is nobody.
pub fn told(message: &StoredMessage) -> Option<Told<'_>> {
    let envelope = &message.envelope;
    if envelope.reverse_path.is_empty() {
        return None;
    }
    let own = matches!(
        message.provenance,
        Provenance::Inside | Provenance::Submission | Provenance::Own
    );
    Some(if own || envelope.return_path_proven {
        Told::Sender(&envelope.reverse_path)
    } else {
        Told::Postmaster(
            "its address was not proved, so that a notification could reach somebody who sent nothing",
        )
    })
}

/// Whether the sender wants to hear that this recipient failed; without NOTIFY he does (RFC 3461 4.1).
pub fn wants_failure(recipient: &Recipient) -> bool {
    recipient
        .notify
        .as_ref()
        .is_none_or(|notify| notify.contains(&Notify::Failure))
}

/// Whether the sender wants to hear of a delay; without NOTIFY we tell him once (RFC 3461 4.1 leaves it to us).
pub fn wants_delay(recipient: &Recipient) -> bool {
    recipient
        .notify
        .as_ref()
        .is_none_or(|notify| notify.contains(&Notify::Delay))
}

/// Whether the sender wants to hear that this recipient has the message.
pub fn wants_success(recipient: &Recipient) -> bool {
    recipient
        .notify
        .as_ref()
        .is_some_and(|notify| notify.contains(&Notify::Success))
}

/// The notification of `reported` recipients, ready for the spool; `None` where nobody is to be told. Our postmaster is
/// told of failures only. It returns as much of the content as there is and can be read.
pub fn notification(
    identity: &Identity,
    id: MessageId,
    message: &StoredMessage,
    content: Option<&Stored>,
    reported: &[Reported],
    now: u64,
) -> Option<(StoredMessage, Vec<u8>)> {
    let failure = reported
        .iter()
        .any(|one| matches!(one.action, Action::Failed { .. }));
    let told = told(message).filter(|told| failure || matches!(told, Told::Sender(_)));
    let told = told.filter(|_| !reported.is_empty())?;
    let (to, withheld) = match told {
        Told::Sender(sender) => (sender, None),
        Told::Postmaster(reason) => (identity.postmaster.as_str(), Some(reason)),
    };
    // RET is about failures (RFC 3461 4.3). What must travel protected is not sent around once more (RFC 8689 section 5).
    let wanted = (withheld.is_some() || failure && message.envelope.ret == Some(Ret::Full))
        && !message.envelope.require_tls;
    let whole = wanted && content.is_some_and(|stored| stored.size() <= MAX_MESSAGE);
    let returned = content.and_then(|stored| {
        let read = if whole {
            stored.read(0, usize::try_from(stored.size()).unwrap_or(0))
        } else {
            stored.header(MAX_HEADER)
        };
        read.ok()
    });
    let returned = returned.unwrap_or_default();
    let octets = write(&Report {
        reporting_mta: &identity.hostname,
        postmaster: &identity.postmaster,
        to,
        token: &trace_id(),
        time: now,
        reverse_path: &message.envelope.reverse_path,
        envid: message.envelope.envid.as_deref(),
        // The clock may have been wrong then.
        arrived: message.arrived.min(now),
        id: &id.to_string(),
        reported,
        returned: if whole {
            Returned::Message(&returned)
        } else {
            Returned::Header(&returned)
        },
        withheld,
    });
    let smtputf8 = !to.is_ascii() || reported.iter().any(|one| !one.address.is_ascii());
    let mut own = own_message(identity, &message.envelope.trace, to, smtputf8, octets.len(), now);
    // Somebody waits to hear of a failure; of the rest a stranger could ask for as many as he likes.
    own.bulk = !failure;
    // A host without 8BITMIME must still get what is plain ASCII.
    own.envelope.eight_bit = !octets.is_ascii();
    own.envelope.require_tls = message.envelope.require_tls;
    Some((own, octets))
}

/// A message of our own: null reverse-path, and no notification about it (RFC 3461 6.1).
pub(super) fn own_message(
    identity: &Identity,
    trace: &str,
    to: &str,
    smtputf8: bool,
    size: usize,
    now: u64,
) -> StoredMessage {
    StoredMessage {
        envelope: Envelope {
            trace: trace.into(),
            reverse_path: String::new(),
            recipients: vec![Recipient {
                address: to.into(),
                orcpt: None,
                notify: Some(vec![Notify::Never]),
            }],
            ret: None,
            envid: None,
            smtputf8,
            require_tls: false,
            eight_bit: true,
            peer: String::new(),
            helo: identity.hostname.clone(),
            tls: None,
            authenticated_user: None,
            return_path_proven: false,
            size: size as u64,
        },
        provenance: Provenance::Own,
        arrived: now,
        statuses: vec![Status::Due {
            at: now,
            attempts: 0,
            warned: false,
            reply: "".into(),
        }],
        held: false,
        bulk: false,
        hold: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reverse_path: &str, provenance: Provenance, proven: bool) -> StoredMessage {
        let identity = Identity {
            hostname: "h".into(),
            postmaster: "p@example.org".into(),
        };
        let mut message = own_message(&identity, "t", "r@b.example", false, 0, 0);
        message.envelope.reverse_path = reverse_path.into();
        message.envelope.return_path_proven = proven;
        StoredMessage {
            provenance,
            ..message
        }
    }

    #[test]
    fn a_notification_goes_only_where_it_cannot_be_backscatter() {
        let told = |path: &str, provenance, proven| match told(&message(path, provenance, proven)) {
            None => "nobody",
            Some(Told::Sender(_)) => "sender",
            Some(Told::Postmaster(_)) => "postmaster",
        };
        assert_eq!(told("a@a.example", Provenance::Public, true), "sender");
        assert_eq!(told("a@a.example", Provenance::Public, false), "postmaster");
        assert_eq!(told("a@a.example", Provenance::Dmz, false), "postmaster");
        assert_eq!(told("a@example.org", Provenance::Inside, false), "sender");
        for provenance in [Provenance::Public, Provenance::Inside, Provenance::Own] {
            assert_eq!(told("", provenance, true), "nobody");
        }
    }

    #[test]
    fn notify_is_honoured() {
        let wants = |notify| {
            wants_failure(&Recipient {
                address: "a@b".into(),
                orcpt: None,
                notify,
            })
        };
        assert!(wants(None));
        assert!(wants(Some(vec![Notify::Success, Notify::Failure])));
        assert!(!wants(Some(vec![Notify::Never])));
        assert!(!wants(Some(vec![Notify::Delay])));
        let recipient = |notify| Recipient {
            address: "a@b".into(),
            orcpt: None,
            notify,
        };
        let [silent, delay, success] = [
            None,
            Some(vec![Notify::Failure, Notify::Delay]),
            Some(vec![Notify::Success]),
        ]
        .map(recipient);
        assert!(wants_delay(&silent) && wants_delay(&delay) && !wants_delay(&success));
        assert!(!wants_success(&silent) && !wants_success(&delay) && wants_success(&success));
    }
}
