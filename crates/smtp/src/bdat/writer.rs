//! Writes content in BDAT chunks (RFC 3030 section 2): nothing is stuffed, and the size that was announced is kept to.

use crate::content::{ContentError, ContentLimits, Inspector, Summary};

/// Octets of the line that opens a message, at most (RFC 5321 section 4.5.3.1.6, without its CRLF).
const MAX_OPENING: usize = 998;

/// Words that are commands somewhere; a field of such a name opens no message.
const VERBS: &[&str] = &[
    "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP",
    "TURN", "ETRN", "ATRN", "AUTH", "STARTTLS", "SEND", "SOML", "SAML", "XCLIENT", "XFORWARD",
];

/// The first line of content, where it can be sent to a server that may not know BDAT after all and take it for a command:
/// a header field, whose name is none.
pub fn opening(content: &[u8]) -> Option<&[u8]> {
    let end = content
        .iter()
        .take(MAX_OPENING + 2)
        .position(|octet| *octet == b'\n')?;
    let (line, _) = content.split_at(end + 1);
    let mut inspector = Inspector::new(ContentLimits::OUTGOING);
    inspector.inspect(line).ok()?;
    let colon = line.iter().position(|octet| *octet == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    let is_field = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
    (is_field && !VERBS.iter().any(|verb| name.eq_ignore_ascii_case(verb))).then_some(line)
}

/// Writes one message, in one chunk or two.
#[derive(Clone, Debug)]
pub struct Writer {
    inspector: Inspector,
    /// Octets of the whole, as announced.
    size: u64,
    /// Octets given so far.
    given: u64,
    /// Octets at the beginning that were sent as a chunk of their own.
    opened: u64,
    /// The command of the last chunk was written.
    announced: bool,
}

impl Writer {
    /// Begins a message of `size` octets.
    pub fn new(size: u64) -> Self {
        Self {
            inspector: Inspector::new(ContentLimits::OUTGOING),
            size,
            given: 0,
            opened: 0,
            announced: false,
        }
    }

    /// The first chunk: the content's first octets, which are to be given to [`Writer::push`] all the same.
    pub fn open(&mut self, opening: &[u8]) -> Vec<u8> {
        self.opened = opening.len() as u64;
        let mut out = format!("BDAT {}\r\n", self.opened).into_bytes();
        out.extend_from_slice(opening);
        out
    }

    /// Appends the next piece of content to `out`.
    ///
    /// After an error the connection must be closed: as long as the chunk is not full, what was written is not to be delivered.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), ContentError> {
        self.inspector.inspect(piece)?;
        let skipped = self.opened.saturating_sub(self.given).min(piece.len() as u64);
        self.given += piece.len() as u64;
        if self.given > self.size {
            return Err(ContentError::NotAsAnnounced(self.size));
        }
        // A chunk that is full is a message that is delivered: its end is looked at before it is written.
        if self.given == self.size {
            self.inspector.finish()?;
        }
        self.announce(out);
        // At most the length of the piece.
        let skipped = usize::try_from(skipped).unwrap_or(piece.len());
        out.extend_from_slice(&piece[skipped..]);
        Ok(())
    }

    /// Ends the message.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<Summary, ContentError> {
        let summary = self.inspector.finish()?;
        if self.given != self.size {
            return Err(ContentError::NotAsAnnounced(self.size));
        }
        self.announce(out);
        Ok(summary)
    }

    fn announce(&mut self, out: &mut Vec<u8>) {
        if !self.announced {
            let command = format!("BDAT {} LAST\r\n", self.size.saturating_sub(self.opened));
            out.extend_from_slice(command.as_bytes());
            self.announced = true;
        }
    }
}
