//! Text that may go to a terminal: printable ASCII and nothing else.
//!
//! The journal holds what strangers sent: names in EHLO, addresses, replies. A control character in it could move the
//! cursor, change the keyboard or answer as if typed. So everything shown is a [`Text`], and a `Text` can only be made here.

use std::fmt;

/// Printable ASCII (0x20 to 0x7e). Everything else stands there escaped, visibly.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Text(String);

/// No single text is longer than this; what is cut off is replaced by `...`.
const LONGEST: usize = 4096;

impl Text {
    /// Escapes `raw`.
    pub(crate) fn new(raw: &str) -> Self {
        let mut text = String::with_capacity(raw.len().min(LONGEST));
        for c in raw.chars() {
            if text.len() >= LONGEST {
                text.push_str("...");
                break;
            }
            match c {
                ' '..='~' => text.push(c),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push(' '),
                _ => text.extend(c.escape_unicode()),
            }
        }
        Self(text)
    }

    /// Escapes bytes that need not be UTF-8.
    pub(crate) fn from_bytes(raw: &[u8]) -> Self {
        match std::str::from_utf8(raw) {
            Ok(raw) => Self::new(raw),
            Err(_) => Self::new(
                &raw.iter()
                    .take(LONGEST)
                    .map(|b| b.escape_ascii().to_string())
                    .collect::<String>(),
            ),
        }
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(raw: &str) -> Self {
        Self::new(raw)
    }
}

impl From<String> for Text {
    fn from(raw: String) -> Self {
        Self::new(&raw)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(
            Text::new("\u{1b}[2Jgone\r\n\u{7f}\u{9b}5n").as_str(),
            "\\u{1b}[2Jgone\\r\\n\\u{7f}\\u{9b}5n"
        );
        assert_eq!(
            Text::from_bytes(b"\x1b]0;x\x07\xff").as_str(),
            "\\x1b]0;x\\x07\\xff"
        );
    }

    proptest! {
        #[test]
        fn only_printable_ascii_ever_comes_out(raw in any::<Vec<u8>>(), text in any::<String>()) {
            for made in [Text::from_bytes(&raw), Text::new(&text)] {
                prop_assert!(made.as_str().bytes().all(|b| (0x20..=0x7e).contains(&b)), "{made}");
            }
        }

        #[test]
        fn no_text_is_longer_than_the_limit_and_a_little(text in "\\PC{4000,6000}") {
            prop_assert!(Text::new(&text).as_str().len() <= LONGEST + 16);
        }
    }
}
