//! What message content must be, however it comes (RFC 5321 sections 2.3.7, 2.3.8, 4.5.3.1 and 6.3).
//!
//! Enters: content octets in pieces of any size, already without dot-stuffing or chunk framing. Leaves: a
//! [`Summary`], or the first [`ContentError`]. Lines end in CRLF only; CR, LF and NUL have no other use.

/// Bounds on content. Sizes are in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentLimits {
    /// Most octets of the whole.
    pub size: u64,
    /// Most octets of the header section.
    pub header_size: u64,
    /// Most octets of a line, without its CRLF.
    pub line: usize,
    /// Most Received fields.
    pub hops: u32,
}

impl ContentLimits {
    /// No bounds but the strictness of line ends.
    pub const UNBOUNDED: Self = Self {
        size: u64::MAX,
        header_size: u64::MAX,
        line: usize::MAX,
        hops: u32::MAX,
    };

    /// What leaves: no host need take a longer line (RFC 5321 section 4.5.3.1.6), and one that breaks it makes lines of its own.
    pub const OUTGOING: Self = Self {
        line: 998,
        ..Self::UNBOUNDED
    };
}

/// What was seen of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Octets of the whole.
    pub size: u64,
    /// Octets of the header section, with the empty line that ends it.
    pub header_size: u64,
    /// Whether an octet over 127 was seen.
    pub eight_bit: bool,
    /// Received fields.
    pub hops: u32,
}

/// Why content is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// A CR without its LF.
    #[error("the message holds a CR that no LF follows")]
    BareCr,
    /// An LF without its CR.
    #[error("the message holds an LF that no CR precedes")]
    BareLf,
    /// A NUL.
    #[error("the message holds a NUL octet")]
    Nul,
    /// A line over the limit, in octets.
    #[error("the message holds a line of more than {0} octets")]
    LineTooLong(usize),
    /// The whole is over the limit, in octets.
    #[error("the message is larger than {0} octets")]
    TooLarge(u64),
    /// The header section is over the limit, in octets.
    #[error("the header section is larger than {0} octets")]
    HeaderTooLarge(u64),
    /// More Received fields than the limit: a loop.
    #[error("the message has more than {0} Received fields, so it is going in circles")]
    TooManyHops(u32),
    /// The sender of the content has more or less of it than was announced, in octets.
    #[error("the message does not have the {0} octets that were announced")]
    NotAsAnnounced(u64),
}

/// Octets of a header line that are kept to know its field name.
const NAME: usize = 16;

/// Watches content go by.
#[derive(Clone, Debug)]
pub struct Inspector {
    limits: ContentLimits,
    summary: Summary,
    in_header: bool,
    after_cr: bool,
    line_length: usize,
    line_start: [u8; NAME],
}

impl Inspector {
    /// Begins a message.
    pub fn new(limits: ContentLimits) -> Self {
        Self {
            limits,
            summary: Summary::default(),
            in_header: true,
            after_cr: false,
            line_length: 0,
            line_start: [0; NAME],
        }
    }

    /// Whether the content so far ends with a line end (or is empty).
    pub fn at_line_start(&self) -> bool {
        self.line_length == 0 && !self.after_cr
    }

    /// What was seen so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Looks at the next piece. After an error the inspector is of no further use.
    pub fn inspect(&mut self, mut piece: &[u8]) -> Result<(), ContentError> {
        while !piece.is_empty() {
            let run = memchr::memchr3(b'\r', b'\n', 0, piece).unwrap_or(piece.len());
            if run > 0 {
                self.text(&piece[..run])?;
                piece = &piece[run..];
            } else {
                self.control(piece[0])?;
                piece = &piece[1..];
            }
        }
        Ok(())
    }

    /// Ends the message: a CR must not be left without its LF.
    pub fn finish(&self) -> Result<Summary, ContentError> {
        if self.after_cr {
            return Err(ContentError::BareCr);
        }
        Ok(self.summary)
    }

    fn text(&mut self, run: &[u8]) -> Result<(), ContentError> {
        if self.after_cr {
            return Err(ContentError::BareCr);
        }
        if self.in_header && self.line_length < NAME {
            let kept = run.len().min(NAME - self.line_length);
            self.line_start[self.line_length..][..kept].copy_from_slice(&run[..kept]);
        }
        let line_left = self.limits.line - self.line_length;
        self.line_length = (self.line_length + run.len()).min(self.limits.line);
        self.summary.eight_bit |= !run.is_ascii();
        self.count(run.len() as u64, line_left as u64)
    }

    fn control(&mut self, octet: u8) -> Result<(), ContentError> {
        match octet {
            0 => return Err(ContentError::Nul),
            b'\r' if self.after_cr => return Err(ContentError::BareCr),
            b'\r' => self.after_cr = true,
            _ if !self.after_cr => return Err(ContentError::BareLf),
            _ => {
                self.count(1, u64::MAX)?;
                return self.end_line();
            }
        }
        self.count(1, u64::MAX)
    }

    /// Counts octets. Of several bounds the one that is crossed first is reported, however the content was split.
    fn count(&mut self, octets: u64, line_left: u64) -> Result<(), ContentError> {
        let limits = &self.limits;
        let header_left = if self.in_header {
            limits.header_size - self.summary.header_size
        } else {
            u64::MAX
        };
        let crossed = [
            (line_left, ContentError::LineTooLong(limits.line)),
            (
                limits.size - self.summary.size,
                ContentError::TooLarge(limits.size),
            ),
            (header_left, ContentError::HeaderTooLarge(limits.header_size)),
        ]
        .into_iter()
        .filter(|(left, _)| octets > *left)
        .min_by_key(|(left, _)| *left);
        if let Some((_, error)) = crossed {
            return Err(error);
        }
        self.summary.size += octets;
        if self.in_header {
            self.summary.header_size += octets;
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), ContentError> {
        if self.in_header {
            let kept = &self.line_start[..self.line_length.min(NAME)];
            if is_received_field(kept) {
                self.summary.hops += 1;
                if self.summary.hops > self.limits.hops {
                    return Err(ContentError::TooManyHops(self.limits.hops));
                }
            }
            self.in_header = self.line_length > 0;
        }
        self.after_cr = false;
        self.line_length = 0;
        Ok(())
    }
}

/// Whether a header line begins a Received field; white space may stand before the colon (RFC 5322 section 4.5).
fn is_received_field(line_start: &[u8]) -> bool {
    line_start
        .split(|octet| *octet == b':')
        .next()
        .filter(|name| name.len() < line_start.len())
        .is_some_and(|name| name.trim_ascii_end().eq_ignore_ascii_case(b"received"))
}

#[cfg(test)]
mod tests;
