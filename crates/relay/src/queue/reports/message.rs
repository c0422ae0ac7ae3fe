//! A report as a message (RFC 7489 section 7.2.1.1): a line for people, and the XML in gzip.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use mail_auth::report::Report;
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
    /// What it says.
    pub(super) report: &'a Report,
}

/// The To field.
pub(super) fn to(addresses: &[String]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("<{address}>")).collect();
    format!("To: {}\r\n", addresses.join(",\r\n\t"))
}

/// The message but for its To field, which goes in front.
pub(super) fn write(envelope: &Envelope<'_>) -> io::Result<Vec<u8>> {
    let Envelope {
        hostname,
        from,
        id,
        domain,
        begin,
        ..
    } = envelope;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(envelope.report.to_xml().as_bytes())?;
    let encoded = STANDARD.encode(gzip.finish()?);
    let file = format!("{hostname}!{domain}!{begin}!{}.xml.gz", envelope.end - 1);
    let boundary = format!("report-{id}");
    let mut text = format!(
        "From: <{from}>\r\nSubject: Report Domain: {domain}\r\n\tSubmitter: {hostname}\r\n\tReport-ID: <{id}@{hostname}>\r\n\
         Date: {date}\r\nMessage-ID: <{id}@{hostname}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         What {hostname} saw of mail that says it is from\r\n{domain},\r\n\
         whose DMARC record asks for this report.\r\n\r\n\
         --{boundary}\r\nContent-Type: application/gzip;\r\n\tname=\"{file}\"\r\n\
         Content-Disposition: attachment;\r\n\tfilename=\"{file}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        date = date(envelope.time),
    );
    for line in encoded.as_bytes().chunks(LINE) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push_str("\r\n");
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "--{boundary}--\r\n");
    Ok(text.into_bytes())
}
