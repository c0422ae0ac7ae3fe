//! What is found in a message, and what ends the search.

use serde::{Deserialize, Serialize};

/// Things told of one message; a refusal is told alone.
const TOLD: usize = 8;
/// Characters of a text that tells of a message.
const TEXT: usize = 200;

/// The answer to one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was seen that matters; nothing is good.
    pub seen: Vec<Seen>,
    /// Parts, the message itself included.
    pub parts: usize,
    /// Header fields of all parts.
    pub header_fields: usize,
    /// Their octets.
    pub header_size: usize,
    /// Files found in archives.
    pub entries: usize,
    /// Octets decoded and unpacked.
    pub unpacked: u64,
}

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Seen {
    /// An attachment that the site does not take, and the rule.
    Denied {
        /// Its name, with the names of the archives that it lies in.
        attachment: String,
        /// Why.
        rule: String,
    },
    /// A bound is passed.
    Beyond {
        /// Which, and its figure: `more than 1000 parts`.
        what: String,
    },
    /// Scanners and mail programs may read this differently, and what they differ in can hide something.
    Ambiguous {
        /// What.
        what: String,
    },
    /// The same, where nothing can hide.
    Odd {
        /// What.
        what: String,
    },
    /// A file in an archive has a password.
    Encrypted {
        /// Its name.
        attachment: String,
    },
    /// An archive that cannot be read.
    Unreadable {
        /// Its name.
        attachment: String,
        /// Why not.
        why: String,
    },
}

impl Seen {
    /// One word for the trace.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::Beyond { .. } => "beyond",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Odd { .. } => "odd",
            Self::Encrypted { .. } => "encrypted",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// Either all is well so far, or this refuses the message and nothing else needs to be known.
pub(super) type Step<T = ()> = Result<T, Seen>;

pub(super) fn ambiguous(what: impl Into<String>) -> Seen {
    Seen::Ambiguous {
        what: short(&what.into()),
    }
}

pub(super) fn beyond(what: String) -> Seen {
    Seen::Beyond { what }
}

pub(super) fn denied(attachment: &str, rule: impl Into<String>) -> Seen {
    Seen::Denied {
        attachment: short(attachment),
        rule: short(&rule.into()),
    }
}

pub(super) fn unreadable(attachment: &str, why: &impl ToString) -> Seen {
    Seen::Unreadable {
        attachment: short(attachment),
        why: short(&why.to_string()),
    }
}

impl Report {
    pub(super) fn odd(&mut self, what: &str) {
        self.tell(Seen::Odd { what: short(what) });
    }

    pub(super) fn encrypted(&mut self, attachment: &str) {
        self.tell(Seen::Encrypted {
            attachment: short(attachment),
        });
    }

    fn tell(&mut self, seen: Seen) {
        if self.seen.len() < TOLD && !self.seen.contains(&seen) {
            self.seen.push(seen);
        }
    }
}

/// A text of a message, bounded, without what would change how it is shown.
fn short(text: &str) -> String {
    text.chars()
        .map(|c| {
            let turns = matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || turns { '?' } else { c }
        })
        .take(TEXT)
        .collect()
}
