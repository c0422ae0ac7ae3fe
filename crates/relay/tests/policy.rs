//! `postern policy`: from a journal and a changed site file to the verdicts that would differ.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXAMPLE: &str = include_str!("../../../docs/site.example.toml");
const JOURNAL: &str = r#"Jan 02 03:00:00 gateway postern-relay[42]: event {"time":"2026-01-02T03:00:00.000Z","process":"smtpd/public","trace":"t1","event":"connected","peer":"192.0.2.7","port":1}
event {"time":"2026-01-02T03:00:01.000Z","process":"smtpd/public","trace":"t1","event":"check","check":"spam","result":"scored","evidence":"6.0 about alice's secret","millis":3,"seen":{"scored":6.0}}
event {"time":"2026-01-02T03:00:01.500Z","process":"smtpd/public","trace":"t1","event":"check","check":"content","result":"odd","evidence":"x","millis":1,"seen":{"content":{"odd":{"what":"the part alice.pdf"}}}}
event {"time":"2026-01-02T03:00:02.000Z","process":"smtpd/public","trace":"t1","event":"verdict","decision":"mark","score":6.0}
event {"time":"2026-01-02T03:00:03.000Z","process":"smtpd/public","trace":"t1","id":"a1","event":"queued","from":"bob@elsewhere.example","to":["alice@example.org"],"size":700}
event {"time":"2026-01-02T03:00:04.000Z","process":"queue","trace":"t1","id":"a1","event":"delivered","recipient":"alice@example.org","reply":"250 ok"}
"#;

struct Desk(tempfile::TempDir);

impl Desk {
    fn new(site: &str, journal: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        std::fs::write(desk.path("site.toml"), site).unwrap();
        std::fs::write(desk.path("gateway.journal"), journal).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn postern(&self, arguments: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_postern-relay")).with_file_name("postern");
        Command::new(&program)
            .arg("policy")
            .args(arguments)
            .args(["--journal", "gateway.journal"])
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; build it first: cargo build --workspace --bins",
                    program.display()
                )
            })
    }

    fn replay(&self, more: &[&str]) -> Output {
        let mut arguments = vec!["replay", "--site", "site.toml", "--node", "gateway"];
        arguments.extend(more);
        self.postern(&arguments)
    }
}

fn out(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_changed_score_is_shown_before_it_is_applied() {
    let same = out(&Desk::new(EXAMPLE, JOURNAL).replay(&[]));
    assert!(same.contains(" 0 would differ"), "{same}");
    assert_eq!(same.lines().count(), 1, "{same}");

    let stricter = EXAMPLE.replace("reject-score = 10.0", "reject-score = 6.0");
    let desk = Desk::new(&stricter, JOURNAL);
    let changed = out(&desk.replay(&[]));
    let (difference, sum) = changed.trim_end().split_once('\n').unwrap();
    assert!(
        difference.contains("t1  mark -> reject") && difference.contains("554 5.7.1"),
        "{difference}"
    );
    assert!(sum.contains("1 would differ; 1 mark -> reject"), "{sum}");
    assert!(sum.contains("not seen by virus"), "{sum}");
    assert!(out(&desk.replay(&["--json"])).starts_with(r#"{"time":"2026-01-02T03:00:02.000Z","trace":"t1""#));
}

#[test]
fn what_is_recorded_tells_no_secrets_and_weighs_the_same() {
    let desk = Desk::new(
        &EXAMPLE.replace("reject-score = 10.0", "reject-score = 6.0"),
        JOURNAL,
    );
    let before = out(&desk.replay(&[]));
    let recorded = out(&desk.postern(&["record"]));
    for secret in ["alice", "bob", "delivered"] {
        assert!(!recorded.contains(secret), "{secret} in {recorded}");
    }
    assert!(recorded.contains("*@example.org"), "{recorded}");
    std::fs::write(desk.path("gateway.journal"), recorded).unwrap();
    // Only whose messages they were is not known any more, which the sum says.
    let after = out(&desk.replay(&[]));
    assert!(after.starts_with(before.trim_end()), "{after}");
    let more = &after[before.trim_end().len()..];
    assert!(
        more.starts_with("; of 1 messages the local parts were left out"),
        "{more}"
    );
}

#[test]
fn a_wrong_site_or_node_is_said_and_nothing_is_weighed() {
    let desk = Desk::new("[site]\nname = 1\n", JOURNAL);
    let wrong = desk.replay(&[]);
    assert!(!wrong.status.success() && wrong.stdout.is_empty());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("site.toml"));
    let desk = Desk::new(EXAMPLE, JOURNAL);
    let unknown = desk.postern(&["replay", "--site", "site.toml", "--node", "nowhere"]);
    assert!(!unknown.status.success() && unknown.stdout.is_empty());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("nowhere"));
}

#[test]
fn a_lower_limit_and_a_new_sealer_change_verdicts() {
    let lines = |trace: &str, peer: &str, more: &[&str]| {
        let connected = format!(r#""event":"connected","peer":"{peer}","port":1"#);
        let line = |rest: &str| {
            format!(
                "event {{\"time\":\"2026-01-02T03:00:00.000Z\",\"process\":\"smtpd/public\",\"trace\":\"{trace}\",{rest}}}\n"
            )
        };
        std::iter::once(connected.as_str())
            .chain(more.iter().copied())
            .map(line)
            .collect::<String>()
    };
    let accepted = [
        r#""event":"verdict","decision":"accept""#,
        r#""event":"queued","from":"bob@elsewhere.example","to":["alice@example.org"],"size":700"#,
    ];
    let sealed = [
        r#""event":"check","check":"dmarc","result":"fail","evidence":"","millis":1,"seen":{"authenticated":{"result":"fail","proves_reverse_path":false,"policy":"reject","domain":"x.example","sealed":[{"domain":"list.example","dmarc_passed":true,"arc_passed":false}]}}"#,
        r#""event":"verdict","decision":"reject""#,
    ];
    let journal = lines("t1", "192.0.2.7", &accepted)
        + &lines("t2", "198.51.100.7", &accepted)
        + &lines("t3", "203.0.113.7", &sealed);
    let same = out(&Desk::new(EXAMPLE, &journal).replay(&[]));
    assert!(
        same.contains("3 verdicts weighed again, 0 would differ"),
        "{same}"
    );

    let one = EXAMPLE.replace(
        "messages-per-hour-recipient = 1000",
        "messages-per-hour-recipient = 1",
    );
    let changed = out(&Desk::new(&one, &journal).replay(&[]));
    let difference = changed.lines().next().unwrap();
    assert!(difference.contains("t2  accept -> defer"), "{changed}");
    assert!(
        difference.contains("to *@example.org") && difference.contains("to this recipient"),
        "{changed}"
    );
    assert!(changed.contains("1 would differ; 1 accept -> defer"), "{changed}");

    let trusting = EXAMPLE.replace("trusted-sealers = []", "trusted-sealers = [\"list.example\"]");
    let changed = out(&Desk::new(&trusting, &journal).replay(&[]));
    assert!(
        changed.contains("1 would differ; 1 reject -> accept"),
        "{changed}"
    );
}

#[test]
fn users_and_the_postmaster_are_counted_without_their_names() {
    let line = |trace: &str, rest: &str| {
        format!(
            "event {{\"time\":\"2026-01-02T03:00:00.000Z\",\"process\":\"smtpd/public\",\"trace\":\"{trace}\",{rest}}}\n"
        )
    };
    let connected = r#""event":"connected","peer":"192.0.2.7","port":1"#;
    let submitted = |trace: &str, user: &str| {
        let user = format!("\"event\":\"authenticated\",\"user\":\"{user}\"");
        let verdict = r#""event":"verdict","decision":"accept""#;
        [connected, &user, verdict, r#""event":"disconnected""#]
            .map(|rest| line(trace, rest))
            .concat()
    };
    let late = r#""event":"refused","stage":"rcpt","code":451,"enhanced":"4.7.1","text":"TEXT","from":"bob@elsewhere.example","to":["PostMaster@example.org"]"#;
    let reply =
        postern_smtp::replies::rate_limited("to this recipient", 1, std::time::Duration::from_mins(9));
    let journal = submitted("u1", "alice@example.org")
        + &submitted("u2", "Alice@example.org")
        + &line("t1", connected)
        + &line("t1", r#""event":"verdict","decision":"accept""#)
        + &line(
            "t1",
            r#""event":"queued","from":"bob@elsewhere.example","to":["alice@example.org"],"size":700"#,
        )
        + &line("t2", connected)
        + &line("t2", &late.replace("TEXT", &reply.text()));
    let mut site = EXAMPLE.to_owned();
    for (key, old) in [
        ("postmaster = ", "\"postmaster@example.org\""),
        ("messages-per-hour = ", "100"),
        ("messages-per-hour-sender = ", "1000"),
        ("messages-per-hour-recipient = ", "1000"),
    ] {
        let new = if old.starts_with('"') {
            "\"alice@example.org\""
        } else {
            "1"
        };
        assert!(site.contains(&format!("{key}{old}")), "{key}");
        site = site.replace(&format!("{key}{old}"), &format!("{key}{new}"));
    }
    let changed = out(&Desk::new(&site, &journal).replay(&[]));
    // Alice's second message is over a sender's limit; the address is a stranger's only at t1; the postmaster has had his one.
    assert!(changed.contains("1 would differ; 1 accept -> defer"), "{changed}");
    assert!(
        changed.contains("u2  accept -> defer") && changed.contains("from this sender"),
        "{changed}"
    );
    assert!(!changed.contains("alice"), "{changed}");
    let recorded = out(&Desk::new(&site, &journal).postern(&["record"]));
    assert!(recorded.contains(r#""user":"*@example.org""#), "{recorded}");
    assert!(!recorded.to_lowercase().contains("alice"), "{recorded}");
}
