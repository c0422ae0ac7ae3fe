//! Writes content for DATA: dot-stuffing and the final dot (RFC 5321 section 4.5.2).

use super::{ContentError, ContentLimits, Summary};
use crate::content::Inspector;

/// Writes one message.
#[derive(Clone, Debug)]
pub struct Stuffer {
    inspector: Inspector,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self {
            inspector: Inspector::new(ContentLimits::OUTGOING),
        }
    }
}

impl Stuffer {
    /// Appends the next piece of content to `out`.
    ///
    /// After an error the connection must be closed without the final dot: what was written is not to be delivered.
    pub fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), ContentError> {
        out.reserve(piece.len());
        while !piece.is_empty() {
            if self.inspector.at_line_start() && piece[0] == b'.' {
                out.push(b'.');
            }
            let end = memchr::memchr(b'\n', piece);
            let (line, rest) = piece.split_at(end.map_or(piece.len(), |at| at + 1));
            self.inspector.inspect(line)?;
            out.extend_from_slice(line);
            piece = rest;
        }
        Ok(())
    }

    /// Appends the end: a CRLF where the last line lacks one, and the dot.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<Summary, ContentError> {
        let summary = self.inspector.finish()?;
        if !self.inspector.at_line_start() {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        Ok(summary)
    }
}
