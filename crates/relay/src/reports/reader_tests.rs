//! Reports as they come, and as those write them who mean us no good.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use mail_auth::report::{DKIMAuthResult, PolicyOverride, PolicyOverrideReason};

use super::*;

fn shown(input: &[u8]) -> Result<String> {
    let mut out = Vec::new();
    read(input, &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn refused(input: &[u8]) -> String {
    format!("{:#}", shown(input).expect_err("it must not be read"))
}

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(octets).unwrap();
    gzip.finish().unwrap()
}

fn message(kind: &str, name: &str, octets: &[u8]) -> Vec<u8> {
    let encoded = STANDARD.encode(octets);
    let lines: Vec<_> = encoded
        .as_bytes()
        .chunks(76)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "From: a@b.example\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: {kind}; name=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

fn row(source: &str, count: u32, dkim: DmarcResult, proved: &str) -> Record {
    Record::new()
        .with_source_ip(source.parse().unwrap())
        .with_count(count)
        .with_action_disposition(ActionDisposition::Reject)
        .with_dmarc_dkim_result(dkim)
        .with_dmarc_spf_result(DmarcResult::Fail)
        .with_header_from("example.org")
        .with_dkim_auth_result(
            DKIMAuthResult::new()
                .with_domain(proved)
                .with_selector("s")
                .with_result(DkimResult::Pass),
        )
}

fn report() -> Vec<u8> {
    let excused = PolicyOverrideReason::new(PolicyOverride::LocalPolicy);
    Report::new()
        .with_version(1.0)
        .with_domain("example.org")
        .with_record(row("192.0.2.1", 5, DmarcResult::Pass, "example.org"))
        .with_record(row("192.0.2.2", 2, DmarcResult::Fail, "other\u{9b}2J.example"))
        .with_record(
            row("192.0.2.2", 1, DmarcResult::Fail, "third.example").with_policy_override_reason(excused),
        )
        .to_xml()
        .into_bytes()
}

const TLS: &str = r#"{"organization-name":"Far","report-id":"1",
"date-range":{"start-datetime":"2026-01-01T00:00:00Z","end-datetime":"2026-01-01T23:59:59Z"},
"policies":[{"policy":{"policy-type":"sts","policy-domain":"example.org"},
"summary":{"total-successful-session-count":7,"total-failure-session-count":3},
"failure-details":[{"result-type":"certificate-expired","receiving-mx-hostname":"mx1.example.org","failed-session-count":3}]}]}"#;

const DMARC_SHOWN: &str = "DMARC example.org
  192.0.2.2: 0 passed, 3 failed, 3 refused, 1 excused by the receiver
      mend: it proves other?2J.example, third.example and not example.org: if that service sends for you, have it sign with d=example.org; else it forwards or forges
  192.0.2.1: 5 passed, 5 by aligned DKIM, 0 failed
";
const TLS_SHOWN: &str = "TLS example.org (sts)
  7 sessions encrypted, 3 failed
  3 at mx1.example.org: certificate-expired
      mend: renew its certificate
";

#[test]
fn reports_are_read_however_they_come() {
    let report = report();
    let packed = gzip(&report);
    for input in [
        report.clone(),
        packed.clone(),
        message("application/gzip", "r.xml.gz", &packed),
        message("application/octet-stream", "r.xml.gz", &packed),
        message("text/xml", "r.xml", &report),
    ] {
        assert_eq!(shown(&input).unwrap(), format!("1 reports\n\n{DMARC_SHOWN}"));
    }
    let tls = message("application/tlsrpt+gzip", "r.json.gz", &gzip(TLS.as_bytes()));
    for input in [TLS.as_bytes().to_vec(), gzip(TLS.as_bytes()), tls] {
        assert_eq!(shown(&input).unwrap(), format!("1 reports\n\n{TLS_SHOWN}"));
    }
}

#[test]
fn an_mbox_is_summed_up_and_what_is_broken_is_said() {
    let line = b"From x@y.example Thu Jan  1 00:00:00 2026\n".to_vec();
    let dmarc = message("application/gzip", "r.xml.gz", &gzip(&report()));
    let tls = message("application/tlsrpt+gzip", "r.json.gz", &gzip(TLS.as_bytes()));
    let letter = b"From: a@b.example\n\nno report\n".to_vec();
    let mbox = [&line, &dmarc, &line, &letter, &line, &tls]
        .map(Vec::as_slice)
        .concat();
    let text = shown(&mbox).unwrap();
    assert_eq!(
        text,
        format!("2 reports\n\n{DMARC_SHOWN}\n{TLS_SHOWN}\nnot read: message 2: it has no report\n")
    );
}

#[test]
fn what_unpacks_without_end_is_refused() {
    let bomb = gzip(&vec![b' '; UNPACKED + 1]);
    assert!(bomb.len() < 100_000);
    let much = format!("more than {UNPACKED} octets, unpacked");
    assert!(refused(&bomb).contains(&much));
    for kind in ["application/gzip", "application/tlsrpt+gzip"] {
        let why = refused(&message(kind, "r.gz", &bomb));
        assert!(why.contains(&much), "{why}");
    }
    let many = b"PK\x01\x02".repeat(MEMBERS + 1);
    assert!(refused(&message("application/zip", "r.zip", &many)).contains("a report has one"));
    for garbage in [
        &b""[..],
        b"<",
        b"{",
        b"\x1f\x8b",
        b"PK\x03\x04",
        b"From ",
        &[0xff; 100],
    ] {
        assert!(
            refused(garbage).starts_with("no report could be read"),
            "{garbage:?}"
        );
    }
}
