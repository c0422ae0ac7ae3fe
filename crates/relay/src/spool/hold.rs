//! The hold: messages that were taken before the scanners had answered (`[hybrid]`), as the spool records them.
//!
//! Such a message has `held` set beside what is said here, from its first record on: a version of this program that knows
//! nothing of the hold does not deliver it either.

use serde::{Deserialize, Serialize};

/// What smtpd wants back when the message is scanned. The queue keeps it and does not read the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unscanned {
    /// Octets of our own header fields in front of the message.
    pub fields: u64,
    /// What the other checks have found.
    pub evidence: String,
}

/// A message in the hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// For whoever scans it.
    pub unscanned: Unscanned,
    /// How it stands; nothing where it was found clean and is not held any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

/// Of [`Hold`] what a start needs. Reads from the JSON of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// As in the hold.
    #[serde(default)]
    pub standing: Option<Standing>,
}

impl From<&Hold> for Mark {
    fn from(hold: &Hold) -> Self {
        Self {
            standing: hold.standing.clone(),
        }
    }
}

/// How a message in the hold stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Standing {
    /// To be scanned.
    Unscanned {
        /// From when the lifetime of the hold counts, milliseconds since 1970.
        since: u64,
    },
    /// In quarantine: no scanner answered in the hold's lifetime, or to the end of the message. Released by the operator, it is to be
    /// scanned again.
    Expired,
    /// In quarantine: it was scanned, and found to be what is refused.
    Bad {
        /// What was found, and by which check.
        reason: Box<str>,
    },
}
