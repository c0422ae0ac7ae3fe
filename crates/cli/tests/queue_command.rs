//! `postern queue` against a socket that answers by the contract: what is asked for, what is shown, and what is refused.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use postern_control::{NotChanged, QueuedHold, QueuedMessage, QueuedRecipient, Reply};
use tempfile::TempDir;

/// Answers one connection with these replies in turn; gives the requests when the client has gone.
fn serve(replies: Vec<Reply>) -> (TempDir, JoinHandle<Vec<String>>) {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("s")).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut requests = Vec::new();
        for reply in replies {
            requests.push(lines.next().unwrap().unwrap());
            let answer = serde_json::to_string(&reply).unwrap();
            (&stream).write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
        assert!(lines.next().is_none(), "more was asked for");
        requests
    });
    (directory, thread)
}

fn postern(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern"))
        .arg("queue")
        .args(arguments)
        .arg("--socket")
        .arg(directory.join("s"))
        .output()
        .unwrap()
}

fn message(id: &str) -> QueuedMessage {
    QueuedMessage {
        id: id.into(),
        arrived: "2026-11-20T08:24:59.007Z".into(),
        provenance: "inside".into(),
        from: "app@example.org".into(),
        size: 7,
        held: true,
        hold: None,
        recipients: vec![QueuedRecipient {
            address: "x@far.example".into(),
            attempts: 2,
            next_attempt: "2026-11-20T09:00:00.000Z".into(),
            last_reply: "451 4.4.1 \u{1b}[2Jno".into(),
            next_hop: "world".into(),
        }],
    }
}

fn page(ids: &[&str], next: Option<&str>) -> Reply {
    Reply::QueueList {
        messages: ids.iter().map(|id| message(id)).collect(),
        truncated: next.is_some(),
        next: next.map(Into::into),
    }
}

#[test]
fn a_list_shows_what_waits_and_how_to_go_on() {
    let (directory, asked) = serve(vec![page(&["a1"], Some("a1")), page(&["a2"], Some("a2"))]);
    let output = postern(
        directory.path(),
        &["list", "--limit", "2", "--sender", "<app@example.org>"],
    );
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "a1  2026-11-20T08:24:59.007Z  inside  7 octets  from <app@example.org>  HELD\n    \
         to <x@far.example> by world, tried 2 times, next 2026-11-20T09:00:00.000Z\n        \
         451 4.4.1 \\u{1b}[2Jno\n\
         a2  2026-11-20T08:24:59.007Z  inside  7 octets  from <app@example.org>  HELD\n    \
         to <x@far.example> by world, tried 2 times, next 2026-11-20T09:00:00.000Z\n        \
         451 4.4.1 \\u{1b}[2Jno\n\
         more: postern queue list --after a2\n"
    );
    assert_eq!(
        asked.join().unwrap(),
        [
            r#"{"request":"queue-list","filter":{"sender":"app@example.org"},"limit":2}"#,
            r#"{"request":"queue-list","filter":{"sender":"app@example.org"},"after":"a1","limit":1}"#,
        ]
    );
}

#[test]
fn what_is_named_by_a_condition_is_changed_page_by_page() {
    let changed = |ids: &[&str]| Reply::QueueChanged {
        done: ids.iter().map(ToString::to_string).collect(),
        failed: Vec::new(),
    };
    let (directory, asked) = serve(vec![
        page(&["a1", "a2"], Some("a2")),
        changed(&["a1", "a2"]),
        page(&["a3"], None),
        changed(&["a3"]),
    ]);
    let arguments = [
        "cancel",
        "--bounce",
        "--domain",
        "far.example",
        "--reason",
        "spam run",
    ];
    let output = postern(directory.path(), &arguments);
    assert!(output.status.success());
    assert_eq!(output.stdout, b"3 messages changed\n");
    let asked = asked.join().unwrap();
    assert_eq!(
        asked[1],
        r#"{"request":"queue-change","change":"bounce","ids":["a1","a2"],"reason":"spam run"}"#
    );
    assert_eq!(
        asked[2],
        r#"{"request":"queue-list","filter":{"domain":"far.example"},"after":"a2"}"#
    );
}

#[test]
fn what_was_not_changed_is_an_error() {
    let (directory, asked) = serve(vec![Reply::QueueChanged {
        done: Vec::new(),
        failed: vec![NotChanged {
            id: "a1".into(),
            why: "no such message".into(),
        }],
    }]);
    let output = postern(directory.path(), &["hold", "a1"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "postern: a1: no such message\npostern: 1 messages were not changed\n"
    );
    asked.join().unwrap();
}

#[test]
fn a_change_of_nothing_or_of_all_by_mistake_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, why) in [
        (&["cancel"][..], "which messages?"),
        (&["hold", "a1", "--domain", "far.example"], "not by both"),
        (&["cancel", "--all"], "unexpected argument '--all'"),
        (&["retry", "--all", "a1"], "cannot be used with"),
        (&["list", "--limit", "0"], "0 is not in 1.."),
        (&["list"], "cannot reach the queue"),
    ] {
        let output = postern(directory.path(), arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && told.contains(why),
            "{arguments:?}: {told}"
        );
    }
}

#[test]
fn what_is_held_for_its_scan_or_in_quarantine_is_said() {
    let stands = |id, hold| QueuedMessage {
        hold: Some(hold),
        recipients: Vec::new(),
        ..message(id)
    };
    let bad = QueuedHold::Bad {
        reason: "virus: \u{1b}Eicar".into(),
    };
    let why = Some("no scanner asks for it".into());
    let messages = vec![
        stands("a1", QueuedHold::Unscanned { why: None }),
        stands("a2", QueuedHold::Expired { why }),
        stands("a3", bad),
    ];
    let (directory, asked) = serve(vec![Reply::QueueList {
        messages,
        truncated: false,
        next: None,
    }]);
    let output = postern(directory.path(), &["list", "--quarantined"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let ends: Vec<_> = text
        .lines()
        .map(|line| line.split_once(">  ").unwrap().1)
        .collect();
    assert_eq!(
        ends,
        [
            "HELD, NOT YET SCANNED",
            "QUARANTINED, never scanned: no scanner asks for it",
            "QUARANTINED, virus: \\u{1b}Eicar"
        ]
    );
    assert_eq!(
        asked.join().unwrap(),
        [r#"{"request":"queue-list","filter":{"quarantined":true},"limit":100}"#]
    );
}

#[test]
fn what_was_found_to_be_bad_is_released_by_its_id_only() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["release", "--found-bad"][..],
        &["release", "--found-bad", "--all"],
        &["release", "--found-bad", "--sender", "a@b.example"],
        &["release", "--found-bad", "a1", "--domain", "b.example"],
    ] {
        assert_eq!(
            postern(directory.path(), arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    let (directory, asked) = serve(vec![Reply::QueueChanged {
        done: vec!["a1".into()],
        failed: Vec::new(),
    }]);
    let output = postern(directory.path(), &["release", "--found-bad", "a1"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("WARNING"));
    assert_eq!(
        asked.join().unwrap(),
        [r#"{"request":"queue-change","change":"release-bad","ids":["a1"]}"#]
    );
}
