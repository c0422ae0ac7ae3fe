//! The operator's own `postern selftest`, against the daemon: every attempt is refused, and nothing but its ordinary
//! message arrives.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;

/// How many attempts were refused.
pub(crate) fn run(daemon: &Daemon) -> Result<usize, String> {
    let postern = Path::new(env!("CARGO_BIN_EXE_postern-relay")).with_file_name("postern");
    let node = daemon.address("public").ok_or("no public instance")?;
    let output = Command::new(&postern)
        .args(["selftest", "--json", "--sender", "a@sender.example"])
        .args(["--recipient", "someone@example.org", "--node", &node.to_string()])
        .output()
        .map_err(|error| {
            format!(
                "{}: {error}; build it first: cargo build --workspace --bins",
                postern.display()
            )
        })?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        let wrong: Vec<_> = out
            .lines()
            .filter(|line| !line.contains(r#""outcome":"held""#))
            .collect();
        return Err(format!("{err}{}", wrong.join("\n")));
    }
    let sink = &daemon.sink;
    sink.wait_for("postern selftest: control", Duration::from_secs(30))
        .ok_or("its ordinary message did not arrive")?;
    // Every other one bears the same words.
    for subject in ["SMUGGLED", "outer message", "NUL", "chunk", "hops"] {
        let subject = format!("postern selftest: {subject}");
        if sink.wait_for(&subject, Duration::from_millis(300)).is_some() {
            return Err(format!("\"{subject}\" was delivered"));
        }
    }
    Ok(out.lines().count() - 1)
}
