//! Reports that others send to the addresses in our own records, read for people: DMARC aggregate reports (RFC 7489 section 7.2,
//! RFC 9990) and TLS reports (RFC 8460).
//!
//! Enters: a message, an mbox, or a report alone (XML, JSON, or either in gzip). Leaves: for each domain and source what
//! passed, what failed and what to mend. All of it is written by strangers: sizes, members of archives and rows are bounded,
//! and nothing that a terminal would obey is printed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;
use mail_auth::report::tlsrpt::TlsReport;
use mail_auth::report::{ActionDisposition, DkimResult, DmarcResult, Error, Record, Report, SpfResult};
use mail_parser::{MessageParser, PartType};

mod words;

/// Octets of the input.
const INPUT: u64 = 64 << 20;
/// Octets of one report, unpacked.
const UNPACKED: usize = 16 << 20;
/// Files in one archive.
const MEMBERS: usize = 4;
/// Sources and failures that are told apart; the rest is only counted.
const LINES: usize = 10_000;

/// What all reports say together.
#[derive(Debug, Default)]
pub struct Sum {
    reports: u64,
    dmarc: BTreeMap<(String, Option<IpAddr>), Source>,
    tls: BTreeMap<(String, String), Sessions>,
    not_told_apart: u64,
}

/// Mail in the name of one domain from one address.
#[derive(Debug, Default)]
struct Source {
    passed: u64,
    by_dkim: u64,
    by_spf: u64,
    failed: u64,
    quarantined: u64,
    rejected: u64,
    excused: u64,
    /// Domains that a failing message did prove.
    proved: Vec<String>,
}

/// Sessions to one domain under one policy.
#[derive(Debug, Default)]
struct Sessions {
    succeeded: u64,
    failed: u64,
    /// By result and host.
    failures: BTreeMap<(String, String), u64>,
}

/// Reads all of `input` and writes the sum; the error says why nothing could be read.
pub fn read(input: impl Read, out: &mut impl Write) -> Result<()> {
    let mut octets = Vec::new();
    input
        .take(INPUT + 1)
        .read_to_end(&mut octets)
        .context("the input cannot be read")?;
    if octets.len() as u64 > INPUT {
        bail!("the input has more than {INPUT} octets; give it in parts");
    }
    let mut sum = Sum::default();
    let mut unreadable = Vec::new();
    for (number, one) in split(&octets).into_iter().enumerate() {
        if let Err(reason) = sum.add(one) {
            unreadable.push(format!("message {}: {reason}", number + 1));
        }
    }
    if sum.reports == 0 {
        let first = unreadable.first().map_or("it is empty", String::as_str);
        bail!("no report could be read; {first}");
    }
    words::write(&sum, &unreadable, out).context("the sum cannot be written")
}

/// The messages of an mbox; anything else is one.
fn split(octets: &[u8]) -> Vec<&[u8]> {
    if !octets.starts_with(b"From ") {
        return vec![octets];
    }
    let mut starts = vec![0];
    let lines = octets.windows(6).enumerate();
    starts.extend(lines.filter(|(_, six)| *six == b"\nFrom ").map(|(at, _)| at + 1));
    let ends = starts.iter().skip(1).copied().chain([octets.len()]);
    let messages = starts.iter().zip(ends).map(|(start, end)| &octets[*start..end]);
    // The line itself is no field.
    let without_line = |message: &'_ [u8]| {
        message
            .iter()
            .position(|octet| *octet == b'\n')
            .map_or(message.len(), |at| at + 1)
    };
    messages
        .map(|message| &message[without_line(message)..])
        .collect()
}

impl Sum {
    fn add(&mut self, octets: &[u8]) -> Result<()> {
        let unpacked;
        let mut content = octets;
        if octets.starts_with(&[0x1f, 0x8b]) {
            let mut buffer = Vec::new();
            GzDecoder::new(octets)
                .take(UNPACKED as u64 + 1)
                .read_to_end(&mut buffer)
                .context("it cannot be unpacked")?;
            if buffer.len() > UNPACKED {
                bail!("it has more than {UNPACKED} octets, unpacked");
            }
            unpacked = buffer;
            content = &unpacked;
        }
        let begins = content.trim_ascii_start().first().copied();
        let bare = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        match begins {
            Some(b'<' | 0xef) => self.dmarc(&Report::parse_xml(bare).map_err(anyhow::Error::msg)?)?,
            Some(b'{') => self.tls(&TlsReport::parse_json(content).map_err(|error| reason(&error))?),
            _ if content.starts_with(b"PK") => {
                bail!("it is an archive; unpack it, or give the whole message")
            }
            _ => self.message(content)?,
        }
        self.reports += 1;
        Ok(())
    }

    fn message(&mut self, octets: &[u8]) -> Result<()> {
        let message = MessageParser::new().parse(octets).context("it is no message")?;
        for part in &message.parts {
            if let PartType::Binary(part) | PartType::InlineBinary(part) = &part.body {
                // Each file of an archive has one such entry in its directory.
                let entries = part.windows(4).filter(|four| four == b"PK\x01\x02").count();
                if entries > MEMBERS {
                    bail!("its archive has {entries} files; a report has one");
                }
            }
        }
        match Report::parse_rfc5322(octets, UNPACKED) {
            Ok(report) => self.dmarc(&report)?,
            Err(first) => match TlsReport::parse_rfc5322(octets, UNPACKED) {
                Ok(report) => self.tls(&report),
                Err(Error::NoReportsFound) => return Err(reason(&first)),
                // A TLS report's gzip was tried as a DMARC report before.
                Err(second) => return Err(reason(&second)),
            },
        }
        Ok(())
    }

    fn dmarc(&mut self, report: &Report) -> Result<()> {
        if report.domain().is_empty() {
            bail!("its report does not say which domain it is about");
        }
        for row in report.records() {
            let key = (report.domain().to_lowercase(), row.source_ip());
            if !self.dmarc.contains_key(&key) && self.dmarc.len() >= LINES {
                self.not_told_apart += u64::from(row.count());
                continue;
            }
            self.dmarc.entry(key).or_default().add(row);
        }
        Ok(())
    }

    fn tls(&mut self, report: &TlsReport) {
        for policy in &report.policies {
            let kind = word(&policy.policy.policy_type);
            let key = (policy.policy.policy_domain.to_lowercase(), kind);
            let sessions = u64::from(policy.summary.total_success) + u64::from(policy.summary.total_failure);
            if !self.tls.contains_key(&key) && self.tls.len() >= LINES {
                self.not_told_apart += sessions;
                continue;
            }
            let sum = self.tls.entry(key).or_default();
            sum.succeeded += u64::from(policy.summary.total_success);
            sum.failed += u64::from(policy.summary.total_failure);
            for failure in &policy.failure_details {
                let host = failure.receiving_mx_hostname.clone().unwrap_or_default();
                let key = (word(&failure.result_type), host.to_lowercase());
                if sum.failures.contains_key(&key) || sum.failures.len() < MEMBERS * 10 {
                    *sum.failures.entry(key).or_default() += u64::from(failure.failed_session_count);
                }
            }
        }
    }
}

impl Source {
    fn add(&mut self, row: &Record) {
        let count = u64::from(row.count());
        let by_dkim = row.dmarc_dkim_result() == DmarcResult::Pass;
        let by_spf = row.dmarc_spf_result() == DmarcResult::Pass;
        self.by_dkim += if by_dkim { count } else { 0 };
        self.by_spf += if by_spf { count } else { 0 };
        if by_dkim || by_spf {
            self.passed += count;
            return;
        }
        self.failed += count;
        match row.action_disposition() {
            ActionDisposition::Quarantine => self.quarantined += count,
            ActionDisposition::Reject => self.rejected += count,
            _ => {}
        }
        if !row.policy_override_reason().is_empty() {
            self.excused += count;
        }
        let dkim = row
            .dkim_auth_result()
            .iter()
            .filter(|one| one.result == DkimResult::Pass);
        let spf = row
            .spf_auth_result()
            .iter()
            .filter(|one| one.result == SpfResult::Pass);
        let proved = dkim.map(|one| &one.domain).chain(spf.map(|one| &one.domain));
        for domain in proved {
            if self.proved.len() < MEMBERS && !self.proved.contains(domain) {
                self.proved.push(domain.clone());
            }
        }
    }
}

/// How the report's format writes a value.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn reason(error: &Error) -> anyhow::Error {
    anyhow::Error::msg(match error {
        Error::MailParseError => "it is no message".to_owned(),
        Error::ReportParseError(why) => format!("its report is broken: {why}"),
        Error::UncompressError(why) => format!("its report cannot be unpacked: {why}"),
        Error::ReportTooLarge => format!("its report has more than {UNPACKED} octets, unpacked"),
        Error::NoReportsFound => "it has no report".to_owned(),
    })
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
