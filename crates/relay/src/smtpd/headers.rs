//! The header of a message on its way through: what is taken out, what is put in front.
//!
//! Out: Authentication-Results that claim to be ours (RFC 8601 section 5), Return-Path (RFC 5321 section 4.4: only final
//! delivery writes it), spam marks of strangers, and [`PROVEN`]. In: Received, Authentication-Results, the marks. Everything
//! else stays octet for octet, so that DKIM signatures of the sender still verify.

use crate::verdict::Verdict;

/// The field by which the gateway tells the internal node that the reverse-path of a stranger's mail was proven, so that its
/// owner may be told of a failure. Whoever else writes it writes in vain: it is taken out at every door, and believed
/// only at the one that opens to the gateway's certificate.
pub(super) const PROVEN: &str = "X-Postern-Return-Path";

/// The fields that tell what the scanners found. Where they are asked later, these come later, behind the others.
pub(super) fn scan_fields(verdict: &Verdict, score: Option<f64>) -> String {
    let mut fields = String::new();
    if let Some(score) = score {
        fields += format!("X-Spam-Score: {score:.1}\r\n").as_str();
    }
    if matches!(verdict, Verdict::Mark(_)) {
        fields += "X-Spam-Flag: YES\r\n";
    }
    fields
}

/// What is taken out of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal<'a> {
    /// Our authserv-id.
    pub hostname: &'a str,
    /// Whether the client's spam marks are worth nothing.
    pub marks: bool,
}

/// The pieces of `message` that stay, in order.
pub(super) fn keep<'a>(message: &'a [u8], removal: &Removal<'_>) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut kept_from = 0;
    let mut at = 0;
    while let Some(length) = field_length(&message[at..]) {
        if is_removed(&message[at..at + length], removal) {
            if kept_from < at {
                pieces.push(&message[kept_from..at]);
            }
            kept_from = at + length;
        }
        at += length;
    }
    if kept_from < message.len() {
        pieces.push(&message[kept_from..]);
    }
    pieces
}

/// Whether the header of `message` has [`PROVEN`].
pub(super) fn says_proven(message: &[u8]) -> bool {
    let mut at = 0;
    while let Some(length) = field_length(&message[at..]) {
        if name(&message[at..at + length])
            .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(PROVEN.as_bytes()))
        {
            return true;
        }
        at += length;
    }
    false
}

/// Octets of the field that `rest` begins with, folded lines included; `None` at the empty line or the end.
fn field_length(rest: &[u8]) -> Option<usize> {
    if rest.is_empty() || rest.starts_with(b"\r\n") {
        return None;
    }
    let mut end = 0;
    loop {
        end += rest[end..]
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .map_or(rest.len() - end, |at| at + 2);
        if !matches!(rest.get(end), Some(b' ' | b'\t')) {
            return Some(end);
        }
    }
}

fn is_removed(field: &[u8], removal: &Removal<'_>) -> bool {
    let Some(name) = name(field) else {
        return false;
    };
    let is = |other: &str| name.trim_ascii().eq_ignore_ascii_case(other.as_bytes());
    if is("Authentication-Results") {
        return authserv_id(&field[name.len() + 1..]).is_none_or(|id| same_host(&id, removal.hostname));
    }
    is("Return-Path") || is(PROVEN) || (removal.marks && (is("X-Spam-Flag") || is("X-Spam-Score")))
}

/// All before the colon: obsolete syntax allows white space there (RFC 5322 section 4.5).
fn name(field: &[u8]) -> Option<&[u8]> {
    let colon = field.iter().position(|octet| *octet == b':')?;
    Some(&field[..colon])
}

fn same_host(id: &[u8], hostname: &str) -> bool {
    let bare = |name: &[u8]| name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase();
    bare(id) == bare(hostname.as_bytes())
}

/// The authserv-id of a field's value (RFC 8601 section 2.2), which may stand behind comments, on a folded line, or in
/// quotes. `None` where it cannot be read: such a field may mean anything to anybody and is not let through.
fn authserv_id(value: &[u8]) -> Option<Vec<u8>> {
    let mut rest = skip_comments(value)?;
    let mut id = Vec::new();
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        rest = quoted;
        loop {
            match rest {
                [b'"', ..] => return Some(id),
                [b'\\', octet, tail @ ..] | [octet, tail @ ..] => {
                    if !matches!(octet, b'\r' | b'\n') {
                        id.push(*octet);
                    }
                    rest = tail;
                }
                [] => return None,
            }
        }
    }
    while let [octet, tail @ ..] = rest {
        if octet.is_ascii_whitespace() || matches!(octet, b';' | b'(') {
            break;
        }
        id.push(*octet);
        rest = tail;
    }
    (!id.is_empty()).then_some(id)
}

/// Skips white space, line ends and nested comments (CFWS, RFC 5322 section 3.2.2).
fn skip_comments(mut rest: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    loop {
        match rest {
            [b'(', tail @ ..] => {
                depth += 1;
                rest = tail;
            }
            [b')', tail @ ..] if depth > 0 => {
                depth -= 1;
                rest = tail;
            }
            [b'\\', _, tail @ ..] if depth > 0 => rest = tail,
            [octet, tail @ ..] if depth > 0 || octet.is_ascii_whitespace() => rest = tail,
            [] if depth > 0 => return None,
            _ => return Some(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(message: &str) -> String {
        let removal = Removal {
            hostname: "mx1.example.org",
            marks: true,
        };
        String::from_utf8(keep(message.as_bytes(), &removal).concat()).unwrap()
    }

    #[test]
    fn forged_results_go_and_others_stay() {
        for forged in [
            "Authentication-Results: mx1.example.org; dkim=pass\r\n",
            "authentication-results:MX1.Example.ORG;dkim=pass\r\n",
            "Authentication-Results : mx1.example.org; dkim=pass\r\n",
            "Authentication-Results: mx1.example.org 1; dkim=pass\r\n",
            "Authentication-Results:\r\n mx1.example.org;\r\n\tdkim=pass\r\n",
            "Authentication-Results: (a (nested\\) comment)) mx1.example.org; dkim=pass\r\n",
            "Authentication-Results: (a\r\n fold) \"mx1.exa\\mple.org\"; dkim=pass\r\n",
            "Authentication-Results: mx1.example.org(comment); dkim=pass\r\n",
            "Authentication-Results: mx1.example.org.; dkim=pass\r\n",
            "Authentication-Results: (never closed mx1.example.org; dkim=pass\r\n",
            "Authentication-Results: \"never closed mx1.example.org; dkim=pass\r\n",
            "Authentication-Results:\r\n",
        ] {
            assert_eq!(
                kept(&format!("A: 1\r\n{forged}B: 2\r\n\r\nbody\r\n")),
                "A: 1\r\nB: 2\r\n\r\nbody\r\n",
                "{forged}"
            );
        }
        for honest in [
            "Authentication-Results: mx.elsewhere.example; dkim=pass\r\n",
            "Authentication-Results: (mx1.example.org) mx.elsewhere.example; dkim=pass\r\n",
            "X-Authentication-Results: mx1.example.org; dkim=pass\r\n",
        ] {
            let message = format!("A: 1\r\n{honest}\r\nbody\r\n");
            assert_eq!(kept(&message), message);
        }
    }

    #[test]
    fn the_body_is_never_touched() {
        let message = "A: 1\r\n\r\nReturn-Path: <x>\r\nAuthentication-Results: mx1.example.org; x\r\n";
        assert_eq!(kept(message), message);
        assert_eq!(kept(""), "");
        assert_eq!(kept("\r\nbody\r\n"), "\r\nbody\r\n");
        assert_eq!(kept("A: 1"), "A: 1");
    }

    #[test]
    fn return_path_and_strangers_marks_go() {
        assert_eq!(
            kept("Return-Path: <a@b>\r\nX-Spam-Flag: NO\r\nx-spam-score:\r\n 1\r\nB: 2\r\n\r\n"),
            "B: 2\r\n\r\n"
        );
        let trusted = Removal {
            hostname: "mail.example.org",
            marks: false,
        };
        assert_eq!(
            keep(b"X-Spam-Flag: YES\r\n\r\n", &trusted).concat(),
            b"X-Spam-Flag: YES\r\n\r\n"
        );
    }

    #[test]
    fn a_proof_is_read_and_never_passed_on() {
        let message = b"A: 1\r\nx-postern-return-path : proven\r\nB: 2\r\n\r\nbody\r\n";
        assert!(says_proven(message));
        let trusted = Removal {
            hostname: "mail.example.org",
            marks: false,
        };
        assert_eq!(keep(message, &trusted).concat(), b"A: 1\r\nB: 2\r\n\r\nbody\r\n");
        assert!(
            !says_proven(b"A: 1\r\n\r\nX-Postern-Return-Path: proven\r\n"),
            "in the body"
        );
        assert!(!says_proven(b""));
    }

    #[test]
    fn a_line_without_a_colon_hides_nothing() {
        assert_eq!(
            kept("garbage\r\nAuthentication-Results: mx1.example.org; dkim=pass\r\n\r\n"),
            "garbage\r\n\r\n"
        );
    }
}
