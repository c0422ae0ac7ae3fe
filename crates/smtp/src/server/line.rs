//! Reads command lines (RFC 5321 section 2.3.8): only CRLF ends one.

/// Most octets of any line, its CRLF included: what AUTH may need (RFC 4954 section 4).
pub(super) const MAX_LINE: usize = 12_288;
/// Octets of an overlong line that are dropped in search of its end.
const MAX_DROPPED: usize = 65_536;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All input is taken.
    NeedInput,
    /// A line, without its CRLF. It may hold a bare CR or a NUL, which the parser refuses.
    Complete(Vec<u8>),
    /// A line over [`MAX_LINE`] ended.
    TooLong,
    /// An LF without CR. What follows it could be read in two ways, so nothing more is read.
    BareLineFeed,
    /// An overlong line that does not end.
    Endless,
}

/// Gathers a line out of pieces of input.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    line: Vec<u8>,
    dropped: usize,
    after_cr: bool,
}

impl LineReader {
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Line {
        let octets = *input;
        let end = octets.iter().position(|octet| *octet == b'\n');
        let (piece, rest) = octets.split_at(end.map_or(octets.len(), |at| at + 1));
        *input = rest;
        let before_cr = std::mem::replace(&mut self.after_cr, piece.last() == Some(&b'\r'));
        let text = &piece[..piece.len() - usize::from(end.is_some())];
        let kept = text.len().min(MAX_LINE - self.line.len());
        self.line.extend_from_slice(&text[..kept]);
        self.dropped += text.len() - kept;
        if self.dropped > MAX_DROPPED {
            return Line::Endless;
        }
        if end.is_none() {
            return Line::NeedInput;
        }
        let after_cr = text.last().map_or(before_cr, |octet| *octet == b'\r');
        self.after_cr = false;
        let mut line = std::mem::take(&mut self.line);
        let dropped = std::mem::take(&mut self.dropped);
        if !after_cr {
            return Line::BareLineFeed;
        }
        if dropped > 0 || line.len() > MAX_LINE - 1 {
            return Line::TooLong;
        }
        line.pop();
        Line::Complete(line)
    }
}
