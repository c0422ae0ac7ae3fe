//! `[content]`: bounds on MIME and archives, and which attachments are taken.

use serde::Deserialize;

use super::names::DENIED;
use crate::config::diagnostic::Fault;

/// `[content]`. Sizes are octets, durations seconds. The defaults let ordinary mail through many times over.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Content {
    /// Seconds for one message; the worker that needs more is ended, and the message deferred.
    pub timeout: u32,
    /// Messages looked at at a time.
    pub workers: usize,
    /// How deep multiparts and messages may lie in one another.
    pub max_depth: usize,
    /// Parts of all kinds in a message.
    pub max_parts: usize,
    /// Header fields, of all parts together.
    pub max_header_fields: usize,
    /// Octets of header, of all parts together.
    pub max_header_size: usize,
    /// Octets that a message may become when everything in it is decoded and unpacked.
    pub max_unpacked_size: u64,
    /// How many times larger than packed something may become; counts above a few MiB.
    pub max_ratio: u64,
    /// Files in all archives of a message.
    pub max_entries: usize,
    /// How deep archives may lie in one another.
    pub max_nesting: usize,
    /// What is done with programs, told by their content.
    pub executables: Executables,
    /// Endings of file names that are refused, without the dot.
    pub denied_endings: Vec<String>,
}

/// What is done with programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Executables {
    /// They are refused, whatever they are called.
    #[default]
    Refuse,
    /// Only the name decides.
    Accept,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            timeout: 20,
            workers: 2,
            max_depth: 20,
            max_parts: 1000,
            max_header_fields: 4000,
            max_header_size: 1 << 20,
            max_unpacked_size: 256 << 20,
            max_ratio: 250,
            max_entries: 10_000,
            max_nesting: 5,
            executables: Executables::Refuse,
            denied_endings: DENIED.iter().map(|&ending| ending.to_owned()).collect(),
        }
    }
}

impl Content {
    /// Octets of memory that one worker may map: the message, what it decodes to, what is unpacked of it (a buffer that grows is
    /// there twice for a moment), and the program itself.
    pub fn memory(&self, max_message_size: u64) -> u64 {
        const PROGRAM: u64 = 256 << 20;
        PROGRAM
            .saturating_add(max_message_size.saturating_mul(3))
            .saturating_add(self.max_unpacked_size.saturating_mul(2))
    }
}

/// Checks what the shape alone cannot say.
pub(crate) fn check(content: &Content) -> Result<(), Fault> {
    let counts: [(&'static str, u64, u64, u64); 8] = [
        ("timeout", u64::from(content.timeout), 1, 300),
        ("workers", content.workers as u64, 1, 64),
        // Each level of an encoded message is a call in a call, so that this has an upper end.
        ("max-depth", content.max_depth as u64, 1, 100),
        ("max-parts", content.max_parts as u64, 1, 100_000),
        (
            "max-header-fields",
            content.max_header_fields as u64,
            10,
            1_000_000,
        ),
        ("max-ratio", content.max_ratio, 1, 1_000_000),
        ("max-entries", content.max_entries as u64, 1, 1_000_000),
        ("max-nesting", content.max_nesting as u64, 0, 20),
    ];
    for (key, value, least, most) in counts {
        if !(least..=most).contains(&value) {
            return Err(Fault::new(
                &["content", key],
                format!("{key} is {value}"),
                format!("write a number from {least} to {most}"),
            ));
        }
    }
    for ending in &content.denied_endings {
        if ending.is_empty() || ending.contains('.') || *ending != ending.to_lowercase() {
            return Err(Fault::new(
                &["content", "denied-endings"],
                format!("`{ending}` cannot be the ending of a name here"),
                "write it in lower case and without the dot, such as \"exe\"",
            ));
        }
    }
    Ok(())
}
