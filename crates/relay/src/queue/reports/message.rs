//! A report as a message (RFC 7489 section 7.2.1.1, RFC 8460 section 5.3): a line for people, and the report in gzip.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use postern_smtp::trace::date;

/// Octets of a base64 line (RFC 2045 section 6.8).
const LINE: usize = 76;

/// What stands around a report.
pub(super) struct Envelope<'a> {
    /// Who reports.
    pub(super) hostname: &'a str,
    /// Address of the From field.
    pub(super) from: &'a str,
    /// The report's own name.
    pub(super) id: &'a str,
    /// Whom it is about.
    pub(super) domain: &'a str,
    /// First second of its period, since 1970.
    pub(super) begin: u64,
    /// First second after its period.
    pub(super) end: u64,
    /// Now.
    pub(super) time: SystemTime,
    /// How it is dressed.
    pub(super) form: &'a Form<'a>,
}

/// What one kind of reports looks like.
pub(super) struct Form<'a> {
    /// Header fields of the message, whole.
    pub(super) fields: &'a str,
    /// Content-Type of the message, but for the boundary.
    pub(super) media_type: &'a str,
    /// What it is, for people; ends with a line end.
    pub(super) words: &'a str,
    /// Content-Type of the report.
    pub(super) report_type: &'a str,
    /// What the file is called behind its period.
    pub(super) extension: &'a str,
}

/// The To field.
pub(super) fn to(addresses: &[String]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("<{address}>")).collect();
    format!("To: {}\r\n", addresses.join(",\r\n\t"))
}

/// The report in gzip.
pub(super) fn packed(report: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(report)?;
    gzip.finish()
}

/// The message around a packed report, but for its To field, which goes in front.
pub(super) fn write(envelope: &Envelope<'_>, packed: &[u8]) -> Vec<u8> {
    let Envelope {
        hostname,
        from,
        id,
        domain,
        begin,
        form,
        ..
    } = envelope;
    let Form {
        fields,
        media_type,
        words,
        report_type,
        extension,
    } = form;
    let encoded = STANDARD.encode(packed);
    let file = format!("{hostname}!{domain}!{begin}!{}.{extension}", envelope.end - 1);
    let boundary = format!("report-{id}");
    let mut text = format!(
        "From: <{from}>\r\nSubject: Report Domain: {domain}\r\n\tSubmitter: {hostname}\r\n\tReport-ID: <{id}@{hostname}>\r\n\
         Date: {date}\r\nMessage-ID: <{id}@{hostname}>\r\nAuto-Submitted: auto-generated\r\n{fields}MIME-Version: 1.0\r\n\
         Content-Type: {media_type};\r\n\tboundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{words}\r\n\
         --{boundary}\r\nContent-Type: {report_type};\r\n\tname=\"{file}\"\r\n\
         Content-Disposition: attachment;\r\n\tfilename=\"{file}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        date = date(envelope.time),
    );
    for line in encoded.as_bytes().chunks(LINE) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push_str("\r\n");
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "--{boundary}--\r\n");
    text.into_bytes()
}
