//! `postern reports`: from a file to words, and an error for what is none.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

const TLS: &str = r#"{"organization-name":"Far","report-id":"1",
"date-range":{"start-datetime":"2026-01-01T00:00:00Z","end-datetime":"2026-01-01T23:59:59Z"},
"policies":[{"policy":{"policy-type":"tlsa","policy-domain":"example.org"},
"summary":{"total-successful-session-count":0,"total-failure-session-count":2},
"failure-details":[{"result-type":"tlsa-invalid","receiving-mx-hostname":"mx1.example.org","failed-session-count":2}]}]}"#;

const DMARC: &str = r#"<?xml version="1.0"?><feedback><version>1.0</version>
<report_metadata><org_name>Far</org_name><email>dmarc@far.example</email><report_id>2</report_id>
<date_range><begin>1767225600</begin><end>1767311999</end></date_range></report_metadata>
<policy_published><domain>example.org</domain><p>reject</p></policy_published>
<record><row><source_ip>192.0.2.2</source_ip><count>3</count>
<policy_evaluated><disposition>reject</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>
<identifiers><header_from>example.org</header_from></identifiers>
<auth_results><spf><domain>other.example</domain><result>pass</result></spf></auth_results></record></feedback>"#;

/// A message as report servers send it (RFC 7489 section 7.2.1.1).
fn mail(report: &str) -> String {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(report.as_bytes()).unwrap();
    let encoded = STANDARD.encode(gzip.finish().unwrap());
    let lines: Vec<&str> = encoded
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "From: dmarc@far.example\r\nTo: postmaster@example.org\r\nSubject: Report Domain: example.org\r\n\
         MIME-Version: 1.0\r\nContent-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"far.example!example.org!1767225600!1767311999.xml.gz\"\r\n\r\n{}\r\n",
        lines.join("\r\n")
    )
}

fn postern(file: &Path) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_postern-relay")).with_file_name("postern");
    Command::new(&program)
        .arg("reports")
        .arg(file)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; build it first: cargo build --workspace --bins",
                program.display()
            )
        })
}

#[test]
fn a_file_is_summed_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    std::fs::write(&file, TLS).unwrap();
    let output = postern(&file);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("TLS example.org (tlsa)\n  0 sessions encrypted, 2 failed\n"),
        "{text}"
    );
    assert!(
        text.contains("mend: the TLSA records do not fit the key"),
        "{text}"
    );

    std::fs::write(&file, "From: a@b.example\n\nno report\n").unwrap();
    let output = postern(&file);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("no report could be read; message 1: it has no report"),
        "{text}"
    );
}

#[test]
fn a_mail_with_a_dmarc_report_is_summed_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.eml");
    std::fs::write(&file, mail(DMARC)).unwrap();
    let output = postern(&file);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("DMARC example.org\n  192.0.2.2: 0 passed, 3 failed, 3 refused\n"),
        "{text}"
    );
}
