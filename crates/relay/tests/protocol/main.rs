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
    let mut tally = Tally::default();
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
                tally.note(&name, Ok(format!("{} ms", began.elapsed().as_millis())));
            }
            Err(why) => {
                let why = format!("{}:{why}\n--- the daemon said\n{}", path.display(), daemon.said());
                tally.note(&name, Err(why));
            }
        }
    }
    if wanted.is_empty() || wanted.iter().any(|part| "selftest".contains(part.as_str())) {
        let daemon = daemons
            .entry("default".to_owned())
            .or_insert_with(|| Daemon::start("default"));
        let tried = selftest::run(daemon)
            .map(|attempts| format!("{attempts} attempts refused"))
            .map_err(|why| format!("{why}\n--- the daemon said\n{}", daemon.said()));
        tally.note("selftest", tried);
    }
    std::thread::sleep(LATE);
    for (kind, daemon) in daemons {
        for text in undelivered.get(&kind).into_iter().flatten() {
            if daemon.sink.wait_for(text, Duration::ZERO).is_some() {
                tally.note(text, Err("it arrived after its dialogue".into()));
            }
        }
        let replayed = replay::run(&daemon).map(|verdicts| format!("{verdicts} verdicts as before"));
        tally.note(&format!("replay of {kind}"), replayed);
        let traced = trace::run(&daemon).map(|found| format!("{found} connections and messages"));
        tally.note(&format!("trace of {kind}"), traced);
        if let Err(why) = daemon.stop() {
            tally.note(&format!("end of {kind}"), Err(why));
        }
    }
    tally.end()
}

/// What was tested.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
}

impl Tally {
    fn note(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(what) => {
                println!("test {name} ... ok ({what})");
                self.passed += 1;
            }
            Err(why) => {
                println!("test {name} ... FAILED");
                self.failed.push(format!("{name}: {why}"));
            }
        }
    }

    /// Says what has failed, and how many.
    fn end(self) -> ExitCode {
        for why in &self.failed {
            println!("\n{why}");
        }
        let good = self.failed.is_empty() && self.passed > 0;
        let result = if good { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {result}. {} passed; {} failed",
            self.passed,
            self.failed.len()
        );
        if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
