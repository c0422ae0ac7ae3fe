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
    assert_eq!(out(&desk.replay(&[])), before);
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
