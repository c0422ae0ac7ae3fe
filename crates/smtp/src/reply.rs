//! Replies (RFC 5321 section 4.2), enhanced status codes (RFC 2034, RFC 3463), and their parser for clients.
//!
//! A [`Reply`] is what a server sends and what a client got. Written, its lines stay within 512 octets, are
//! ASCII, and cannot hold a CR or LF, whatever text they were made of. [`Parser`] reads replies within bounds.

mod parser;

use std::fmt;

pub use parser::{Parser, ReplyError};

/// Octets of text in one reply line, so that code, enhanced code and CRLF stay within 512.
const LINE_TEXT: usize = 480;

/// A three-digit reply code, 200 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

impl Code {
    /// The code, if its first digit is 2 to 5. RFC 5321 section 4.2 bounds the second digit by 5 too, but servers answer 571.
    pub fn new(value: u16) -> Option<Self> {
        (200..600).contains(&value).then_some(Self(value))
    }

    /// The number.
    pub fn value(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An enhanced status code `class.subject.detail` (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// 0 to 999: addressing, mailbox, system, routing, protocol, content, policy.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl EnhancedCode {
    /// Reads `5.1.1` from the whole of a text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let class = match parts.next()? {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return None,
        };
        let number = |part: &str| -> Option<u16> {
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        let (subject, detail) = (number(parts.next()?)?, number(parts.next()?)?);
        parts.next().is_none().then_some(Self {
            class,
            subject,
            detail,
        })
    }
}

impl From<(u8, u16, u16)> for EnhancedCode {
    fn from((class, subject, detail): (u8, u16, u16)) -> Self {
        Self {
            class,
            subject,
            detail,
        }
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// A reply: code, enhanced status code, and at least one line of text (without either code).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The reply code.
    pub code: Code,
    /// The enhanced status code, where there is one.
    pub enhanced: Option<EnhancedCode>,
    /// The lines of text, without codes.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply with an enhanced status code. A `code` that is none becomes 451, so that a mistake defers and loses nothing.
    pub fn new(code: u16, enhanced: impl Into<EnhancedCode>, text: impl Into<String>) -> Self {
        Self {
            enhanced: Some(enhanced.into()),
            ..Self::plain(code, text)
        }
    }

    /// A reply without an enhanced status code: greetings, EHLO, 3xx (RFC 2034 section 4).
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self {
            code: Code::new(code).unwrap_or(Code(451)),
            enhanced: None,
            lines: vec![text.into()],
        }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code.0 / 100 == 2
    }

    /// 3xx.
    pub fn is_intermediate(&self) -> bool {
        self.code.0 / 100 == 3
    }

    /// 4xx.
    pub fn is_transient(&self) -> bool {
        self.code.0 / 100 == 4
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        self.code.0 / 100 == 5
    }

    /// The lines, joined by a space.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// The reply as it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_to(&mut out);
        out
    }

    /// Appends the reply as it goes over the wire; long lines are broken, foreign octets become `?`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines: Vec<String> = self.lines.iter().flat_map(|line| wrap(line)).collect();
        if lines.is_empty() {
            lines.push(String::new());
        }
        let last = lines.len() - 1;
        for (at, line) in lines.iter().enumerate() {
            let separator = if at == last { ' ' } else { '-' };
            let enhanced = self.enhanced.map(|code| format!("{code} "));
            let enhanced = enhanced.as_deref().unwrap_or_default();
            out.extend_from_slice(format!("{}{separator}{enhanced}{line}\r\n", self.code).as_bytes());
        }
    }
}

/// One line, for logs: `550 5.1.1 text`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(&self.text())
    }
}

/// Makes a text fit for the wire, and breaks it at spaces into lines of at most [`LINE_TEXT`] octets.
fn wrap(text: &str) -> Vec<String> {
    let clean: String = text
        .chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .collect();
    let mut lines = Vec::new();
    let mut rest = clean.as_str();
    while rest.len() > LINE_TEXT {
        let at = rest[..LINE_TEXT]
            .rfind(' ')
            .filter(|at| *at > 0)
            .unwrap_or(LINE_TEXT);
        lines.push(rest[..at].to_owned());
        rest = rest[at..].trim_start_matches(' ');
    }
    lines.push(rest.to_owned());
    lines
}

#[cfg(test)]
mod tests;
