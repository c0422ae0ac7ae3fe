//! `postern trace` over the journals of two nodes: what it picks, how it follows a message, and what it says of bad input.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use tempfile::TempDir;

const GATEWAY: &str = r#"[    1.0] systemd[1]: Started something
[    2.0] postern-relay[5]: event {"time":"2026-11-20T10:00:00.000Z","process":"queue","event":"started","version":"0.1.0"}
[    3.0] postern-relay[6]: event {"time":"2026-11-20T10:00:01.000Z","process":"smtpd/public","trace":"t1","event":"connected","peer":"203.0.113.20","port":4711}
[    3.1] postern-relay[6]: event {"time":"2026-11-20T10:00:01.100Z","process":"smtpd/public","trace":"t1","event":"refused","stage":"rcpt","code":451,"enhanced":"4.7.1","text":"Greylisted","check":"greylist","evidence":"300 s to wait","from":"bob@sender.example","to":["alice@example.org"]}
[    3.2] postern-relay[6]: event {"time":"2026-11-20T10:00:01.200Z","process":"smtpd/public","trace":"t1","event":"disconnected","reason":"the client closed the connection"}
[    4.0] postern-relay[6]: event {"time":"2026-11-20T10:06:00.000Z","process":"smtpd/public","trace":"t2","event":"connected","peer":"203.0.113.20","port":4712}
[    4.1] postern-relay[6]: event {"time":"2026-11-20T10:06:00.500Z","process":"smtpd\u001b[2J","trace":"t2","event":"verdict","decision":"accept","score":1.25}
[    4.2] postern-relay[5]: event {"time":"2026-11-20T10:06:00.600Z","process":"queue","trace":"t2","id":"a1","event":"queued","from":"bob@sender.example","to":["alice@example.org"],"size":100,"provenance":"public"}
[    4.3] postern-relay[6]: event {"time":"2026-11-20T10:06:00.700Z","process":"smtpd/public","trace":"t2","id":"a1","event":"queued","from":"bob@sender.example","to":["alice@example.org"],"size":100}
[    4.4] postern-relay[5]: event {"time":"2026-11-20T10:06:00.800Z","process":"queue","trace":"t2","id":"a1","event":"delivered","recipient":"alice@example.org","reply":"250 2.0.0 queued as b7"}
[    4.5] postern-relay[5]: event {"time":"2026-11-20T10:06:00.900Z","process":"queue","id":"a1","event":"removed"}
[    4.6] postern-relay[6]: event {"time":"2026-11-20T10:06:01.000Z","process":"smtpd/public","trace":"t2","event":"disconnected","reason":"\u001b[2Jbye"}
[    5.0] postern-relay[6]: event {"time":"2026-11-20T11:00:00.000Z","process":"smtpd/public","trace":"t3","event":"connected","peer":"198.51.100.9","port":1}
[    5.1] postern-relay[6]: event {"time":"2026-11-20T11:00:00.100Z","process":"smtpd/public","trace":"t3","event":"refused","stage":"message","code":550,"enhanced":"5.7.1","text":"Spam","from":"","to":["carol@example.org"]}
[    5.2] postern-relay[6]: event {"time":"2026-11-20T12:00:00.000Z","process":"smtpd/public","trace":"t4","event":"connected","peer":"198.51.100.7","port":2}
[    5.3] postern-relay[6]: event {"time":"2026-11-20T12:00:00.100Z","process":"smtpd/public","trace":"t4","event":"disconnected","reason":"the TLS handshake failed: tls handshake eof"}
[    5.4] postern-relay[6]: event {"time":"2026-11-20T12:01:00.000Z","process":"smtpd/public","trace":"t5","event":"connected","peer":"198.51.100.8","port":3}
[    5.5] postern-relay[6]: event {"time":"2026-11-20T12:01:01.000Z","process":"smtpd/public","trace":"t5","event":"refused","stage":"message","code":550,"enhanced":"5.7.1","text":"First","from":"","to":["dora@example.org"]}
[    5.6] postern-relay[6]: event {"time":"2026-11-20T12:01:02.000Z","process":"smtpd/public","trace":"t5","event":"refused","stage":"message","code":550,"enhanced":"5.7.1","text":"Second","from":"","to":["dora@example.org"]}
[    5.7] postern-relay[6]: event {"time":"2026-11-20T12:01:03.000Z","process":"smtpd/public","trace":"t5","event":"disconnected","reason":"the client closed the connection"}
[    5.8] postern-relay[6]: event {"time":"2026-11-20T12:02:00.000Z","process":"smtpd/public","trace":"t6","event":"disconnected","reason":"it began before the journal"}
[    5.9] postern-relay[6]: event {"time":"2026-11-20T13:00:00.000Z","process":"smtpd/public","trace":"t7","event":"connected","peer":"198.51.100.7","port":4}
[    6.0] postern-relay[6]: event {"time":"2026-11-20T13:00:
"#;
const INTERNAL: &str = r#"event {"time":"2026-11-20T10:06:00.750Z","process":"smtpd/dmz","trace":"u1","event":"connected","peer":"10.200.9.10","port":99}
event {"time":"2026-11-20T10:06:00.760Z","process":"smtpd/dmz","trace":"u1","id":"b7","event":"queued","from":"bob@sender.example","to":["alice@example.org"],"size":120}
event {"time":"2026-11-20T10:06:00.850Z","process":"queue","trace":"u1","id":"b7","event":"delivered","recipient":"alice@example.org","reply":"250 2.0.0 saved"}
"#;

struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("gateway.journal"), GATEWAY).unwrap();
        std::fs::write(directory.path().join("internal.journal"), INTERNAL).unwrap();
        Self(directory)
    }

    fn trace(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_postern"))
            .args([
                "trace",
                "--journal",
                "gateway.journal",
                "--journal",
                "internal.journal",
            ])
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.trace(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_message_is_followed_over_both_nodes() {
    let said = Desk::new().says(&["--id", "a1"]);
    assert!(
        said.starts_with("message a1 on gateway, 2026-11-20T10:06:00.000Z\n"),
        "{said}"
    );
    for words in [
        "connection from 203.0.113.20",
        "verdict accept, score 1.2",
        "delivered to alice@example.org: 250 2.0.0 queued as b7",
        "message b7 on internal",
        "delivered to alice@example.org: 250 2.0.0 saved",
    ] {
        assert!(said.contains(words), "{words} is missing in {said}");
    }
    assert!(!said.contains("Greylisted"), "another connection's: {said}");
    assert!(!said.contains('\u{1b}'));
}

#[test]
fn refused_mail_is_found_by_whose_it_was() {
    let desk = Desk::new();
    let greylisted = "refused at rcpt: 451 4.7.1 Greylisted; from <bob@sender.example> to alice@example.org [greylist: 300 s to wait]";
    for filter in [
        ["--id", "t1"],
        ["--sender", "Bob@Sender.example"],
        ["--sender", "@sender.example"],
        ["--recipient", "alice@example.org"],
        ["--address", "203.0.113.20"],
        ["--until", "2026-11-20T10:05"],
    ] {
        let said = desk.says(&filter);
        assert!(said.contains(greylisted), "{filter:?}: {said}");
        assert!(!said.contains("Spam"), "{filter:?}: {said}");
    }
    for filter in [
        ["--sender", "<>"],
        ["--recipient", "carol@example.org"],
        ["--since", "2026-11-20T10:30"],
    ] {
        let said = desk.says(&filter);
        assert!(
            said.contains("refused at message: 550 5.7.1 Spam"),
            "{filter:?}: {said}"
        );
        assert!(!said.contains("Greylisted"), "{filter:?}: {said}");
    }
    let all = desk.says(&["--since", "2026-11-20", "--until", "2026-11-20"]);
    assert_eq!(all.matches("message ").count(), 2, "{all}");
    assert_eq!(all.matches("not queued").count(), 4, "{all}");
}

#[test]
fn a_connection_that_came_to_nothing_is_found() {
    let desk = Desk::new();
    let failed = "disconnected the TLS handshake failed: tls handshake eof";
    for filter in [
        ["--id", "t4"].as_slice(),
        &["--address", "198.51.100.7", "--until", "2026-11-20T12:30"],
        &[
            "--connections",
            "--since",
            "2026-11-20T11:59",
            "--until",
            "2026-11-20T12:00:00",
        ],
    ] {
        let said = desk.says(filter);
        assert!(said.contains(failed), "{filter:?}: {said}");
        assert_eq!(said.matches("not queued").count(), 1, "{filter:?}: {said}");
    }
    // One that is not over; one whose messages were told already; one of which only the end is known.
    let not_over = desk.says(&["--address", "198.51.100.7", "--since", "2026-11-20T13:00"]);
    assert_eq!(not_over.matches("connection from 198.51.100.7").count(), 1);
    let refused = desk.says(&["--address", "198.51.100.8"]);
    assert_eq!(refused.matches("not queued").count(), 2, "{refused}");
    for words in ["First", "Second"] {
        assert_eq!(refused.matches(words).count(), 1, "{refused}");
    }
    assert!(!desk.trace(&["--id", "t6"]).status.success());
    let mail = desk.says(&["--address", "203.0.113.20"]);
    assert_eq!(mail.matches("connection from 203.0.113.20").count(), 2, "{mail}");
}

#[test]
fn json_has_a_line_for_each_story() {
    let said = Desk::new().says(&["--id", "a1", "--json"]);
    let stories: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(stories.len(), 2);
    assert_eq!(stories[0]["node"], "gateway");
    assert_eq!(stories[0]["events"].as_array().unwrap().len(), 6);
    assert_eq!(stories[1]["id"], "b7");
}

#[test]
fn bad_input_is_explained() {
    let desk = Desk::new();
    for (arguments, expected) in [
        (["--since", "yesterday"], "write a time in UTC"),
        (["--id", "nobody"], "no message and no connection fits"),
        (["--journal", "missing"], "cannot read the journal missing"),
    ] {
        let output = desk.trace(&arguments);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
