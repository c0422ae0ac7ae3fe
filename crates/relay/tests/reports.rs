//! `postern reports`: from a file to words, and an error for what is none.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

const TLS: &str = r#"{"organization-name":"Far","report-id":"1",
"date-range":{"start-datetime":"2026-01-01T00:00:00Z","end-datetime":"2026-01-01T23:59:59Z"},
"policies":[{"policy":{"policy-type":"tlsa","policy-domain":"example.org"},
"summary":{"total-successful-session-count":0,"total-failure-session-count":2},
"failure-details":[{"result-type":"tlsa-invalid","receiving-mx-hostname":"mx1.example.org","failed-session-count":2}]}]}"#;

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
