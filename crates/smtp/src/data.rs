//! Message content after DATA (RFC 5321 sections 4.1.1.4 and 4.5.2): receiving it, and writing it.
//!
//! Only the five octets CRLF.CRLF end a message (the CRLF of the DATA command counts as the first). Nothing that
//! merely looks like an end is taken for one, in any mixture of bare CR, bare LF and NUL: such content is refused,
//! and refused only at its true end, so that no octet of it can be taken for a command ("SMTP smuggling").

mod stuffer;

use crate::content::Inspector;
pub use crate::content::{ContentError, ContentLimits, Summary};
pub use stuffer::Stuffer;

/// What the receiver found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// All input is taken; the end was not in it.
    NeedInput,
    /// Content, without its dot-stuffing.
    Chunk(&'a [u8]),
    /// The end; every chunk was good.
    Complete(Summary),
    /// The end of content that is refused; the chunks given before are to be dropped.
    Refused(ContentError),
    /// Content that is refused went on beyond the bound: the connection is to be closed.
    Overrun(ContentError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    /// After a dot at the start of a line, which is not content.
    Dot,
    /// After a dot and a CR at the start of a line.
    DotCr,
    MidLine,
    MidLineCr,
}

/// Receives one message.
#[derive(Clone, Debug)]
pub struct Receiver {
    state: State,
    inspector: Inspector,
    refused: Option<ContentError>,
    /// Octets of content so far, and how many there may be before the connection is given up.
    taken: u64,
    bound: u64,
}

impl Receiver {
    /// Begins a message. Refused content is read on to its end, up to `max_discard` octets beyond `limits.size`.
    pub fn new(limits: ContentLimits, max_discard: u64) -> Self {
        Self {
            state: State::LineStart,
            inspector: Inspector::new(limits),
            refused: None,
            taken: 0,
            bound: limits.size.saturating_add(max_discard),
        }
    }

    /// Takes octets from the front of `input`.
    pub fn input<'a>(&mut self, input: &mut &'a [u8]) -> Event<'a> {
        while !input.is_empty() {
            let (content, ended) = self.take_content(input);
            self.taken = self.taken.saturating_add(content.len() as u64);
            if self.refused.is_none() {
                self.refused = self.inspector.inspect(content).err();
                if self.refused.is_none() && !content.is_empty() {
                    return Event::Chunk(content);
                }
            }
            if ended {
                return self.end();
            }
            if let Some(error) = self.refused.filter(|_| self.taken > self.bound) {
                return Event::Overrun(error);
            }
        }
        Event::NeedInput
    }

    fn end(&mut self) -> Event<'static> {
        match self.refused {
            Some(error) => Event::Refused(error),
            None => Event::Complete(self.inspector.summary()),
        }
    }

    /// Takes either a run of content or a dot with what belongs to it; true when the message ended.
    fn take_content<'a>(&mut self, input: &mut &'a [u8]) -> (&'a [u8], bool) {
        let octets = *input;
        let dot = (self.state == State::LineStart && octets[0] == b'.')
            || matches!(self.state, State::Dot | State::DotCr);
        if dot {
            return self.take_dot(input);
        }
        let run = self.scan(octets);
        let (content, rest) = octets.split_at(run);
        *input = rest;
        (content, false)
    }

    /// Follows line ends up to the next dot that starts a line; gives the length of the run, never 0.
    fn scan(&mut self, octets: &[u8]) -> usize {
        let mut at = 0;
        while at < octets.len() {
            at += match (self.state, octets[at]) {
                (State::LineStart, b'.') => return at,
                (_, b'\r') => self.step(State::MidLineCr),
                (State::MidLineCr, b'\n') => self.step(State::LineStart),
                _ => {
                    self.state = State::MidLine;
                    let rest = &octets[at..];
                    memchr::memchr(b'\r', rest).unwrap_or(rest.len())
                }
            };
        }
        at
    }

    fn step(&mut self, state: State) -> usize {
        self.state = state;
        1
    }

    /// Takes one octet at or after a dot that starts a line.
    fn take_dot(&mut self, input: &mut &[u8]) -> (&'static [u8], bool) {
        let octet = input[0];
        self.state = match (self.state, octet) {
            (State::LineStart, _) => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::DotCr, b'\n') => {
                *input = &input[1..];
                return (b"", true);
            }
            (State::DotCr, _) => {
                self.refused.get_or_insert(ContentError::BareCr);
                // The octet is looked at again, as what follows a CR within a line.
                self.state = State::MidLineCr;
                return (b"", false);
            }
            // The dot was stuffing; what follows it is content.
            _ => {
                self.state = State::MidLine;
                return (b"", false);
            }
        };
        *input = &input[1..];
        (b"", false)
    }
}

/// Looks at a whole message as an outgoing connection would: strict line ends, no other bounds.
pub fn check(message: &[u8]) -> Result<Summary, ContentError> {
    let mut inspector = Inspector::new(ContentLimits::UNBOUNDED);
    inspector.inspect(message)?;
    inspector.finish()
}

#[cfg(test)]
mod tests;
