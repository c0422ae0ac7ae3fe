//! The header of one part: what it says of its content, and whether all programs would read it as the same.

use std::borrow::Cow;

use mail_parser::parsers::MessageStream;
use mail_parser::{ContentType, HeaderValue};

use super::report::{Report, Step, ambiguous};

/// How a part's content is written (RFC 2045 section 6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is: 7bit, 8bit, binary.
    #[default]
    Identity,
    Base64,
    QuotedPrintable,
}

/// What a header says of its part.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) media_type: String,
    pub(super) encoding: Encoding,
    pub(super) boundary: Option<Vec<u8>>,
    /// All that the part may be called.
    pub(super) names: Vec<String>,
    /// Its disposition is `attachment`.
    pub(super) attached: bool,
}

/// The three fields that say what a part is, unfolded as they came.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) content_type: Option<Vec<u8>>,
    pub(super) encoding: Option<Vec<u8>>,
    pub(super) disposition: Option<Vec<u8>>,
}

impl Fields {
    /// The place of a field of this name, if it is one of ours.
    pub(super) fn place(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        match () {
            () if is("content-type") => Some(&mut self.content_type),
            () if is("content-transfer-encoding") => Some(&mut self.encoding),
            () if is("content-disposition") => Some(&mut self.disposition),
            () => None,
        }
    }

    /// Reads them.
    pub(super) fn read(&self, default_type: &str, report: &mut Report) -> Step<Header> {
        let mut header = Header {
            media_type: default_type.to_owned(),
            ..Header::default()
        };
        if let Some(value) = &self.encoding {
            header.encoding = encoding(value, report)?;
        }
        if let Some(value) = &self.content_type {
            let mut boundaries = 0;
            for name in parameters(value) {
                boundaries += usize::from(name == "boundary" || name.starts_with("boundary*"));
            }
            if boundaries > 1 {
                return Err(ambiguous("a Content-Type field names two boundaries"));
            }
            if let Some(parsed) = parse(value) {
                header.media_type = match parsed.subtype() {
                    Some(subtype) => format!("{}/{subtype}", parsed.ctype()),
                    None => parsed.ctype().to_owned(),
                };
                header.boundary = parsed.attribute("boundary").map(|text| text.as_bytes().to_vec());
                collect(&parsed, "name", &mut header.names);
            } else {
                report.odd("a Content-Type field that cannot be read");
            }
        }
        if let Some(value) = &self.disposition
            && let Some(parsed) = parse(value)
        {
            header.attached = parsed.ctype() == "attachment";
            collect(&parsed, "filename", &mut header.names);
        }
        Ok(header)
    }
}

fn parse(value: &[u8]) -> Option<ContentType<'_>> {
    match MessageStream::new(value).parse_content_type() {
        HeaderValue::ContentType(parsed) => Some(parsed),
        _ => None,
    }
}

/// Every value of a parameter, decoded (RFC 2231 by the parser, RFC 2047 here: it is forbidden in a parameter and often found there).
fn collect(parsed: &ContentType<'_>, name: &str, names: &mut Vec<String>) {
    for attribute in parsed.attributes().unwrap_or_default() {
        if attribute.name == name {
            let mut text = Cow::Borrowed(&*attribute.value);
            if text.contains("=?") {
                let line = format!("{text}\n");
                if let HeaderValue::Text(decoded) = MessageStream::new(line.as_bytes()).parse_unstructured() {
                    text = Cow::Owned(decoded.into_owned());
                }
            }
            names.push(text.into_owned());
        }
    }
}

/// Names of parameters, in lower case, as they stand outside of quotes and comments.
fn parameters(value: &[u8]) -> Vec<String> {
    let (mut names, mut name) = (Vec::new(), None::<Vec<u8>>);
    let (mut quoted, mut escaped, mut comments) = (false, false, 0_usize);
    for &octet in value {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match octet {
            b'\\' if quoted || comments > 0 => escaped = true,
            b'"' if comments == 0 => quoted = !quoted,
            b'(' if !quoted => comments += 1,
            b')' if !quoted => comments = comments.saturating_sub(1),
            _ if quoted || comments > 0 => {}
            b';' => name = Some(Vec::new()),
            b'=' => names.extend(
                name.take()
                    .map(|name| String::from_utf8_lossy(&name).trim().to_lowercase()),
            ),
            _ => {
                if let Some(name) = &mut name {
                    name.push(octet);
                }
            }
        }
    }
    names
}

fn encoding(value: &[u8], report: &mut Report) -> Step<Encoding> {
    let text = String::from_utf8_lossy(value).to_lowercase();
    let word = text.trim();
    let word = word.split([';', ' ', '\t', '(']).next().unwrap_or(word);
    Ok(match word {
        "" | "7bit" | "8bit" | "binary" => Encoding::Identity,
        "base64" => Encoding::Base64,
        "quoted-printable" => Encoding::QuotedPrintable,
        // Some programs decode these, and no standard says that they are there.
        "x-uuencode" | "uuencode" | "x-uue" | "uue" | "x-yencode" | "yenc" | "x-binhex" | "binhex" => {
            return Err(ambiguous(format!("a part has the transfer encoding {word}")));
        }
        _ => {
            report.odd("a part has an unknown transfer encoding");
            Encoding::Identity
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(content_type: &str, disposition: &str) -> Vec<String> {
        let fields = Fields {
            content_type: Some(format!("{content_type}\r\n").into()),
            disposition: Some(format!("{disposition}\r\n").into()),
            encoding: None,
        };
        fields.read("text/plain", &mut Report::default()).unwrap().names
    }

    #[test]
    fn every_name_that_a_part_may_have_is_read() {
        assert_eq!(
            names(
                "application/pdf; name=\"a.pdf\"",
                "attachment; filename=b.exe; filename*=utf-8''c%2Evbs"
            ),
            ["a.pdf", "b.exe", "c.vbs"]
        );
        assert_eq!(
            names("a/b", "attachment; filename*0=\"long\"; filename*1=\".exe\""),
            ["long.exe"]
        );
        assert_eq!(names("a/b; name=\"=?utf-8?B?eC5leGU=?=\"", "inline"), ["x.exe"]);
    }

    #[test]
    fn parameters_are_found_outside_of_quotes_and_comments() {
        assert_eq!(
            parameters(br#" multipart/mixed; boundary="a;boundary=b" (;x=y) ; Charset = z"#),
            ["boundary", "charset"]
        );
    }

    #[test]
    fn two_boundaries_are_ambiguous() {
        for twice in [
            "boundary=a; boundary=b",
            "boundary=a; boundary*0=b",
            "boundary=a;BOUNDARY=\"a\"",
        ] {
            let fields = Fields {
                content_type: Some(format!("multipart/mixed; {twice}\r\n").into()),
                ..Fields::default()
            };
            assert!(
                fields.read("text/plain", &mut Report::default()).is_err(),
                "{twice}"
            );
        }
    }
}
