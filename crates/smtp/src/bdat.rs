//! Message content in BDAT chunks (RFC 3030 section 2). The same strictness holds as after DATA.
//!
//! A chunk's size is its frame: its octets are always taken as content, even when the message is refused already,
//! so that none can be taken for a command. [`Writer`] is the way out.

mod writer;

use crate::content::{ContentError, ContentLimits, Inspector, Summary};

pub use writer::{Writer, opening};

/// What the receiver found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// All input is taken; the chunk goes on.
    NeedInput,
    /// Content.
    Chunk(&'a [u8]),
    /// A chunk that is not the last was taken whole; its size in octets.
    ChunkDone(u64),
    /// The last chunk was taken, and the content is good.
    Complete(Summary),
    /// A chunk was taken whole, and the content is refused; chunks given before are to be dropped.
    Refused(ContentError),
}

/// Receives one message, chunk by chunk.
#[derive(Clone, Debug)]
pub struct Receiver {
    inspector: Inspector,
    refused: Option<ContentError>,
    size: u64,
    left: u64,
    last: bool,
}

impl Receiver {
    /// Begins a message; [`Receiver::chunk`] must follow.
    pub fn new(limits: ContentLimits) -> Self {
        Self {
            inspector: Inspector::new(limits),
            refused: None,
            size: 0,
            left: 0,
            last: false,
        }
    }

    /// Begins a chunk of `size` octets.
    pub fn chunk(&mut self, size: u64, last: bool) {
        (self.size, self.left, self.last) = (size, size, last);
    }

    /// Takes octets of the chunk from the front of `input`.
    pub fn input<'a>(&mut self, input: &mut &'a [u8]) -> Event<'a> {
        while self.left > 0 {
            if input.is_empty() {
                return Event::NeedInput;
            }
            let content = take(input, &mut self.left);
            if self.refused.is_none() {
                self.refused = self.inspector.inspect(content).err();
                if self.refused.is_none() {
                    return Event::Chunk(content);
                }
            }
        }
        if self.last && self.refused.is_none() {
            return self.finish();
        }
        match self.refused {
            Some(error) => Event::Refused(error),
            None => Event::ChunkDone(self.size),
        }
    }

    /// Ends the message; a last line without CRLF gets one, since everything further on relies on it.
    fn finish(&mut self) -> Event<'static> {
        if let Err(error) = self.inspector.finish() {
            self.refused = Some(error);
            return Event::Refused(error);
        }
        if self.inspector.at_line_start() {
            return Event::Complete(self.inspector.summary());
        }
        match self.inspector.inspect(b"\r\n") {
            Ok(()) => Event::Chunk(b"\r\n"),
            Err(error) => {
                self.refused = Some(error);
                Event::Refused(error)
            }
        }
    }
}

/// Takes at most `left` octets from the front of `input`.
pub(crate) fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(length);
    *input = rest;
    *left -= length as u64;
    taken
}

#[cfg(test)]
mod tests;
