//! The walk through a message: line by line, never deeper than the bounds, each part's content looked at once.
//!
//! Enters: the octets of a message. Leaves: a [`Report`]. Grammar: RFC 5322, RFC 2045 and 2046; read as leniently as
//! mail programs read, so that what they would find is found. The header fields that say what a part is are mail-parser's
//! to read.

use std::borrow::Cow;

use super::config::{Content, Executables};
use super::decode;
use super::header::{Encoding, Fields, Header};
use super::kinds;
use super::names;
use super::report::{Report, Seen, Step, ambiguous, beyond, denied};

/// Looks at `message`.
pub fn examine(policy: &Content, message: &[u8]) -> Report {
    let mut scan = Scan {
        policy,
        report: Report::default(),
    };
    if let Err(refused) = scan.message(message, 1) {
        scan.report.seen = vec![refused];
    }
    scan.report
}

/// One message on its way.
pub(super) struct Scan<'p> {
    pub(super) policy: &'p Content,
    pub(super) report: Report,
}

/// A multipart that has begun.
struct Open {
    boundary: Vec<u8>,
    depth: usize,
    media_type: String,
}

/// A delimiter line (RFC 2046 section 5.1.1) of the multipart at this place.
enum Delimiter {
    Next(usize),
    Close(usize),
}

/// Where the walk is.
struct Lines<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line with its end.
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.octets.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = rest
            .iter()
            .position(|&octet| octet == b'\n')
            .map_or(rest.len(), |end| end + 1);
        self.at += length;
        Some(&rest[..length])
    }
}

impl Scan<'_> {
    /// Walks a message that lies `depth` deep.
    pub(super) fn message(&mut self, octets: &[u8], depth: usize) -> Step {
        let mut lines = Lines { octets, at: 0 };
        let mut open: Vec<Open> = Vec::new();
        let mut depth = depth;
        self.part(depth)?;
        let (mut header, mut delimiter) = self.header(&mut lines, &open, "text/plain")?;
        loop {
            let mut leaf = None;
            if delimiter.is_none() {
                match header.media_type.split('/').next().unwrap_or_default() {
                    "multipart" if header.boundary.is_some() => {
                        depth += 1;
                        self.deep(depth)?;
                        open.push(multipart(&mut header, &open, depth)?);
                    }
                    "message" if is_message(&header) && header.encoding == Encoding::Identity => {
                        depth += 1;
                        self.deep(depth)?;
                        self.part(depth)?;
                        // Many programs call an attached message by its subject, which may end in the name of a domain.
                        header.names.retain(|name| names::ending(name) != "com");
                        self.named(&header)?;
                        (header, delimiter) = self.header(&mut lines, &open, "text/plain")?;
                        continue;
                    }
                    kind => {
                        if kind == "multipart" {
                            self.report.odd("a multipart without a boundary");
                        }
                        leaf = Some(std::mem::take(&mut header));
                    }
                }
                let start = lines.at;
                let end;
                (end, delimiter) = self.body(&mut lines, &open);
                if let Some(leaf) = leaf {
                    self.leaf(&leaf, &octets[start..end], depth)?;
                }
            }
            match delimiter.take() {
                None => return Ok(()),
                Some(Delimiter::Next(level)) => {
                    open.truncate(level + 1);
                    depth = open[level].depth;
                    self.part(depth)?;
                    let inner = if open[level].media_type == "multipart/digest" {
                        "message/rfc822"
                    } else {
                        "text/plain"
                    };
                    (header, delimiter) = self.header(&mut lines, &open, inner)?;
                }
                Some(Delimiter::Close(level)) => {
                    depth = open[level].depth.saturating_sub(1);
                    let closed: Vec<Open> = open.drain(level..).collect();
                    delimiter = self.epilogue(&mut lines, &open, &closed)?;
                    if delimiter.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn deep(&self, depth: usize) -> Step {
        if depth > self.policy.max_depth {
            return Err(beyond(format!(
                "parts more than {} deep in one another",
                self.policy.max_depth
            )));
        }
        Ok(())
    }

    fn part(&mut self, depth: usize) -> Step {
        self.deep(depth)?;
        self.report.parts += 1;
        if self.report.parts > self.policy.max_parts {
            return Err(beyond(format!("more than {} parts", self.policy.max_parts)));
        }
        Ok(())
    }

    /// Reads a header up to its empty line, or to a delimiter, which ends the part too.
    fn header(
        &mut self,
        lines: &mut Lines<'_>,
        open: &[Open],
        default_type: &str,
    ) -> Step<(Header, Option<Delimiter>)> {
        let mut fields = Fields::default();
        let mut delimiter = None;
        let mut continued: Option<&mut Option<Vec<u8>>> = None;
        while let Some(line) = lines.next() {
            if matches!(line, b"\r\n" | b"\n") {
                break;
            }
            delimiter = self.delimiter(line, open);
            if delimiter.is_some() {
                break;
            }
            self.report.header_size += line.len();
            if self.report.header_size > self.policy.max_header_size {
                return Err(beyond(format!(
                    "header fields of more than {} octets",
                    self.policy.max_header_size
                )));
            }
            if line.contains(&0) {
                return Err(ambiguous("a header field holds NUL"));
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                if let Some(Some(value)) = &mut continued {
                    value.extend_from_slice(line);
                }
                continue;
            }
            self.report.header_fields += 1;
            if self.report.header_fields > self.policy.max_header_fields {
                return Err(beyond(format!(
                    "more than {} header fields",
                    self.policy.max_header_fields
                )));
            }
            continued = None;
            let Some(colon) = line.iter().position(|&octet| octet == b':') else {
                self.report.odd("a header line that is no field");
                continue;
            };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if let Some(place) = fields.place(name.trim_ascii_end()) {
                if place.is_some() {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(ambiguous(format!("a header has two fields {name}")));
                }
                if name.ends_with(b" ") || name.ends_with(b"\t") {
                    self.report
                        .odd("a blank stands before the colon of a header field");
                }
                *place = Some(value.to_vec());
                continued = Some(place);
            }
        }
        Ok((fields.read(default_type, &mut self.report)?, delimiter))
    }

    /// Reads up to the next delimiter; where the content ends, and the delimiter.
    fn body(&mut self, lines: &mut Lines<'_>, open: &[Open]) -> (usize, Option<Delimiter>) {
        if open.is_empty() {
            lines.at = lines.octets.len();
            return (lines.at, None);
        }
        loop {
            let start = lines.at;
            let Some(line) = lines.next() else {
                return (start, None);
            };
            if let Some(delimiter) = self.delimiter(line, open) {
                return (start, Some(delimiter));
            }
        }
    }

    /// What stands behind the end of a multipart is shown by nobody, up to the next delimiter of one around it: unless a program
    /// does not see that end.
    fn epilogue(&mut self, lines: &mut Lines<'_>, open: &[Open], closed: &[Open]) -> Step<Option<Delimiter>> {
        while let Some(line) = lines.next() {
            if let Some(delimiter) = self.delimiter(line, open) {
                return Ok(Some(delimiter));
            }
            match self.delimiter(line, closed) {
                Some(Delimiter::Next(_)) => return Err(ambiguous("a multipart goes on behind its end")),
                Some(Delimiter::Close(_)) => self.report.odd("a multipart ends twice"),
                None => {}
            }
        }
        Ok(None)
    }

    fn delimiter(&mut self, line: &[u8], open: &[Open]) -> Option<Delimiter> {
        let rest = line.strip_prefix(b"--")?.trim_ascii_end();
        for (level, outer) in open.iter().enumerate().rev() {
            if let Some(rest) = rest.strip_prefix(&*outer.boundary) {
                match rest {
                    b"" => return Some(Delimiter::Next(level)),
                    b"--" => return Some(Delimiter::Close(level)),
                    _ => {}
                }
            }
        }
        if open.iter().any(|outer| rest.starts_with(&outer.boundary)) {
            self.report.odd("a line begins with a boundary and goes on");
        }
        None
    }

    /// A part that holds content: its names, its type, its octets.
    fn leaf(&mut self, header: &Header, body: &[u8], depth: usize) -> Step {
        let shown = self.named(header)?;
        if header.media_type == "message/partial" {
            return Err(denied(
                &shown,
                "a fragment of a message cannot be looked into (message/partial)",
            ));
        }
        if let Some(rule) = names::denied_type(&header.media_type, &self.policy.denied_endings) {
            return Err(denied(&shown, rule));
        }
        let is_text = header.media_type.starts_with("text/");
        let content = match header.encoding {
            Encoding::Identity => Cow::Borrowed(body),
            Encoding::QuotedPrintable => Cow::Owned(decode::quoted_printable(body)),
            Encoding::Base64 => {
                let (decoded, clean) = decode::base64(body);
                if !clean && is_text {
                    self.report.odd("a text in base64 holds something else");
                } else if !clean {
                    return Err(ambiguous(format!(
                        "the part {shown} in base64 holds something else"
                    )));
                }
                Cow::Owned(decoded)
            }
        };
        if let Cow::Owned(decoded) = &content {
            self.unpacked(decoded.len())?;
        }
        if is_message(header) {
            self.deep(depth + 1)?;
            return self.message(&content, depth + 1);
        }
        if is_text && !header.attached && header.names.is_empty() {
            self.uuencoded(&content)?;
        }
        self.content(&shown, &content, 0, depth)
    }

    /// Judges the names of a part; how the part is called from here on.
    fn named(&self, header: &Header) -> Step<String> {
        for name in &header.names {
            if let Some(rule) = names::denied(name, &self.policy.denied_endings) {
                return Err(denied(name, rule));
            }
        }
        Ok(header
            .names
            .last()
            .cloned()
            .unwrap_or_else(|| format!("part {} ({})", self.report.parts, header.media_type)))
    }

    /// Files that a text carries as some programs read it: `begin 644 name` on a line of its own.
    fn uuencoded(&self, text: &[u8]) -> Step {
        for line in text.split(|&octet| octet == b'\n') {
            let Some(rest) = line.strip_prefix(b"begin ") else {
                continue;
            };
            let rest = String::from_utf8_lossy(rest);
            let Some((mode, name)) = rest.trim().split_once(' ') else {
                continue;
            };
            let is_mode =
                (3..=4).contains(&mode.len()) && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
            if let Some(rule) = names::denied(name, &self.policy.denied_endings).filter(|_| is_mode) {
                return Err(denied(name, rule));
            }
        }
        Ok(())
    }

    /// A file, `nesting` archives deep in a part that lies `depth` deep.
    pub(super) fn content(&mut self, name: &str, content: &[u8], nesting: usize, depth: usize) -> Step {
        if self.policy.executables == Executables::Refuse
            && let Some(kind) = kinds::executable(content)
        {
            return Err(denied(name, format!("it is {kind}, by its content")));
        }
        if let Some(kind) = kinds::archive(content, name) {
            return self.archive(kind, name, content, nesting, depth);
        }
        if names::ending(name) == "eml" {
            self.deep(depth + 1)?;
            return self.message(content, depth + 1);
        }
        Ok(())
    }

    /// Counts what came out of an encoding or an archive.
    pub(super) fn unpacked(&mut self, octets: usize) -> Step {
        self.report.unpacked += octets as u64;
        if self.report.unpacked > self.policy.max_unpacked_size {
            return Err(beyond(format!(
                "content that unpacks to more than {} octets",
                self.policy.max_unpacked_size
            )));
        }
        Ok(())
    }

    /// Counts a file of an archive.
    pub(super) fn entry(&mut self) -> Step {
        self.report.entries += 1;
        self.entries_left(0).map(|_| ())
    }

    /// How many more files may come, when `more` are about to.
    pub(super) fn entries_left(&self, more: usize) -> Result<usize, Seen> {
        self.policy
            .max_entries
            .checked_sub(self.report.entries + more)
            .ok_or_else(|| beyond(format!("more than {} files in archives", self.policy.max_entries)))
    }
}

/// A multipart that begins, if its boundary tells it from those around it.
fn multipart(header: &mut Header, open: &[Open], depth: usize) -> Step<Open> {
    if header.encoding != Encoding::Identity {
        return Err(ambiguous("a multipart has a transfer encoding"));
    }
    let boundary = header.boundary.take().unwrap_or_default();
    let boundary = boundary.trim_ascii_end().to_vec();
    let closes = |one: &[u8], other: &[u8]| one.strip_suffix(b"--") == Some(other);
    let clash = open.iter().any(|outer| {
        outer.boundary == boundary || closes(&outer.boundary, &boundary) || closes(&boundary, &outer.boundary)
    });
    if clash || boundary.is_empty() {
        return Err(ambiguous(
            "two multiparts in one another have the same boundary, or one has an empty one",
        ));
    }
    Ok(Open {
        boundary,
        depth,
        media_type: std::mem::take(&mut header.media_type),
    })
}

/// RFC 2046 section 5.2.1, RFC 6532 section 3.7.
fn is_message(header: &Header) -> bool {
    matches!(header.media_type.as_str(), "message/rfc822" | "message/global")
}
