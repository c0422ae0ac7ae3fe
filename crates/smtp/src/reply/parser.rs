//! Reads replies from a server, within bounds (RFC 5321 sections 4.2.1 and 4.5.3.1.5).
//!
//! Lines end in CRLF only: a server that splits lines otherwise could be made to answer for another.

use super::{Code, EnhancedCode, Reply};

/// Most octets of one reply line. RFC 5321 says 512; servers that quote addresses back go over it.
const MAX_LINE: usize = 2048;
/// Most lines of one reply.
const MAX_LINES: usize = 128;

/// Why what a server sent is not a reply. The connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a reply code and a space or hyphen.
    #[error("the server sent a line that is not an SMTP reply")]
    Syntax,
    /// The lines of one reply carry different codes.
    #[error("the server changed the reply code inside one reply")]
    CodeChanged,
    /// A CR or LF stands alone, or a NUL.
    #[error("the server sent a bare CR, bare LF or NUL in a reply")]
    LineEnd,
    /// Over the bound of a line.
    #[error("the server sent a reply line of more than {MAX_LINE} octets")]
    LineTooLong,
    /// Over the bound of a reply.
    #[error("the server sent a reply of more than {MAX_LINES} lines")]
    TooManyLines,
}

/// Gathers one reply out of pieces of input.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    reply: Option<Reply>,
    lines: usize,
}

impl Parser {
    /// Takes octets from the front of `input` until a reply is whole; `None` when all input is taken.
    pub fn input(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        while let Some((&octet, rest)) = input.split_first() {
            *input = rest;
            let after_cr = self.line.last() == Some(&b'\r');
            match octet {
                b'\n' if after_cr => {
                    self.line.pop();
                    let line = std::mem::take(&mut self.line);
                    if self.take_line(&line)? {
                        self.lines = 0;
                        return Ok(self.reply.take());
                    }
                }
                b'\n' | 0 => return Err(ReplyError::LineEnd),
                _ if after_cr => return Err(ReplyError::LineEnd),
                _ if self.line.len() >= MAX_LINE => return Err(ReplyError::LineTooLong),
                _ => self.line.push(octet),
            }
        }
        Ok(None)
    }

    /// Whether a reply has begun and is not whole yet.
    pub fn is_partial(&self) -> bool {
        !self.line.is_empty() || self.reply.is_some()
    }

    /// Adds a line; true when it was the reply's last.
    fn take_line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        self.lines += 1;
        if self.lines > MAX_LINES {
            return Err(ReplyError::TooManyLines);
        }
        let (code, last, text) = split_line(line).ok_or(ReplyError::Syntax)?;
        let (enhanced, text) = split_enhanced(code, &text);
        match &mut self.reply {
            None => {
                self.reply = Some(Reply {
                    code,
                    enhanced,
                    lines: vec![text.to_owned()],
                });
            }
            Some(reply) if reply.code != code => return Err(ReplyError::CodeChanged),
            Some(reply) => reply.lines.push(text.to_owned()),
        }
        Ok(last)
    }
}

fn split_line(line: &[u8]) -> Option<(Code, bool, String)> {
    let digits = line.get(..3).filter(|d| d.iter().all(u8::is_ascii_digit))?;
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    let last = match line.get(3) {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return None,
    };
    let text = String::from_utf8_lossy(line.get(4..).unwrap_or_default());
    Some((Code::new(value)?, last, text.into_owned()))
}

/// Takes an enhanced status code off the text, if its class agrees with the reply code.
fn split_enhanced(code: Code, text: &str) -> (Option<EnhancedCode>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match EnhancedCode::parse(word) {
        Some(enhanced) if u16::from(enhanced.class) == code.value() / 100 => (Some(enhanced), rest),
        _ => (None, text),
    }
}
