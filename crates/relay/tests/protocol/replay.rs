//! What the daemon did, weighed again under its own configuration: every verdict must come out the same.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::daemon::Daemon;

/// How many verdicts were weighed again.
pub(crate) fn run(daemon: &Daemon) -> Result<u64, String> {
    let journal: String = daemon
        .since(0)
        .iter()
        .map(|line| line[line.find("event {").unwrap_or(0)..].to_owned() + "\n")
        .collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_postern-relay"))
        .args(["replay", "--config"])
        .arg(daemon.configuration())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut input = child.stdin.take().ok_or("no input")?;
    let writer = std::thread::spawn(move || input.write_all(journal.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let fed = writer.join().map_err(|_| "the writer panicked")?;
    fed.map_err(|error| error.to_string())?;
    let out = String::from_utf8_lossy(&output.stdout);
    let (differences, sum) = out.trim_end().rsplit_once('\n').unwrap_or(("", out.trim_end()));
    if !output.status.success() || !differences.is_empty() {
        return Err(format!("{}; other verdicts now:\n{out}", output.status));
    }
    let sum: serde_json::Value = serde_json::from_str(sum).map_err(|error| format!("{error}: {out}"))?;
    let not_recorded = &sum["summary"]["not_recorded"];
    if *not_recorded != 0 {
        return Err(format!("{not_recorded} checks cannot be read back"));
    }
    sum["summary"]["judged"].as_u64().ok_or_else(|| out.into_owned())
}
