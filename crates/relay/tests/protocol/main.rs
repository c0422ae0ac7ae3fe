//! SMTP dialogues as text files (`tests/protocol/*.smtp` at the top of the repository) against the real daemon.
//!
//! The daemon is `postern-relay run` with all its processes and sandboxes; behind it stands a small SMTP sink. Each file
//! is one test. Its language is in `tests/protocol/README.md`. An argument picks files by part of their name.

mod daemon;
mod dialogue;
mod dns;
mod logins;
mod names;
mod replay;
mod scanner;
mod selftest;
mod sink;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use daemon::Daemon;

/// How long what must not be delivered is waited for, when all dialogues are over.
const LATE: Duration = Duration::from_millis(1500);

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/protocol");
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .expect("tests/protocol is there")
        .map(|entry| entry.expect("tests/protocol can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    files.sort();
    let mut daemons: BTreeMap<String, Daemon> = BTreeMap::new();
    let mut undelivered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut passed, mut failed) = (0, Vec::new());
    for path in files {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a dialogue can be read");
        let began = Instant::now();
        let kind = dialogue::daemon_of(&text).to_owned();
        let daemon = daemons
            .entry(kind.clone())
            .or_insert_with(|| Daemon::start(&kind));
        match dialogue::run(&text, daemon) {
            Ok(texts) => {
                undelivered.entry(kind).or_default().extend(texts);
                println!("test {name} ... ok ({} ms)", began.elapsed().as_millis());
                passed += 1;
            }
            Err(why) => {
                println!("test {name} ... FAILED");
                failed.push(format!(
                    "{}:{why}\n--- the daemon said\n{}",
                    path.display(),
                    daemon.said()
                ));
            }
        }
    }
    if wanted.is_empty() || wanted.iter().any(|part| "selftest".contains(part.as_str())) {
        let daemon = daemons
            .entry("default".to_owned())
            .or_insert_with(|| Daemon::start("default"));
        match selftest::run(daemon) {
            Ok(attempts) => {
                println!("test selftest ... ok ({attempts} attempts refused)");
                passed += 1;
            }
            Err(why) => {
                println!("test selftest ... FAILED");
                failed.push(format!("selftest: {why}\n--- the daemon said\n{}", daemon.said()));
            }
        }
    }
    std::thread::sleep(LATE);
    for (kind, daemon) in daemons {
        for text in undelivered.get(&kind).into_iter().flatten() {
            if daemon.sink.wait_for(text, Duration::ZERO).is_some() {
                failed.push(format!("undelivered {text}: it arrived after its dialogue"));
            }
        }
        match replay::run(&daemon) {
            Ok(verdicts) => {
                println!("test replay of {kind} ... ok ({verdicts} verdicts as before)");
                passed += 1;
            }
            Err(why) => {
                println!("test replay of {kind} ... FAILED");
                failed.push(format!("replay of {kind}: {why}"));
            }
        }
        match trace::run(&daemon) {
            Ok(found) => {
                println!("test trace of {kind} ... ok ({found} connections and messages)");
                passed += 1;
            }
            Err(why) => {
                println!("test trace of {kind} ... FAILED");
                failed.push(format!("trace of {kind}: {why}"));
            }
        }
        if let Err(why) = daemon.stop() {
            failed.push(format!("daemon {kind}: {why}"));
        }
    }
    for why in &failed {
        println!("\n{why}");
    }
    let result = if failed.is_empty() && passed > 0 {
        "ok"
    } else {
        "FAILED"
    };
    println!(
        "\ntest result: {result}. {passed} passed; {} failed",
        failed.len()
    );
    if result == "ok" {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
