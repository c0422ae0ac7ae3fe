//! Running a program of the service manager, with bounds on its time and on what it prints.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::text::Text;

/// What a program printed, or why there is nothing. It gets 10 seconds and 1 MiB.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, Text> {
    const TIME: Duration = Duration::from_secs(10);
    const SIZE: u64 = 1 << 20;
    let mut child = start(program, arguments)?;
    let Some(stdout) = child.stdout.take() else {
        return Err(Text::new("no pipe to read from"));
    };
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.take(SIZE).read_to_end(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + TIME;
    while !reader.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let late = !reader.is_finished();
    // Also where it is not late: it may go on printing beyond the limit, or have closed its output and stay.
    let ended = if late { None } else { wait(&mut child, deadline) };
    child.kill().ok();
    child.wait().ok();
    let text = reader
        .join()
        .map_err(|_| Text::new("the reader of its output failed"))?;
    match (ended, text) {
        (None, _) => Err(Text::new(&format!(
            "{program} did not end in time: the service manager or journal hangs"
        ))),
        (Some(status), _) if !status.success() => Err(Text::new(&format!(
            "{program} ended with {status}: {}",
            complaint(&mut child)
        ))),
        (_, Ok(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
        (_, Err(e)) => Err(Text::new(&format!("the output of {program} cannot be read: {e}"))),
    }
}

/// Starts a program whose output will be read.
pub(crate) fn start(program: &str, arguments: &[&str]) -> Result<Child, Text> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Text::new(&format!("{program} cannot be started: {e}")))
}

/// The first line that an ended program wrote to its standard error.
pub(crate) fn complaint(child: &mut Child) -> Text {
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(4096).read_to_end(&mut text).ok();
    }
    Text::from_bytes(text.split(|b| *b == b'\n').next().unwrap_or_default())
}

fn wait(child: &mut Child, deadline: Instant) -> Option<std::process::ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_back_and_faults_are_told() {
        assert_eq!(output("echo", &["x"]), Ok("x\n".to_owned()));
        let complaint = output("cat", &["/nonexistent"]).unwrap_err();
        assert!(complaint.as_str().contains("No such file"), "{complaint}");
        assert!(
            output("false", &[])
                .unwrap_err()
                .as_str()
                .contains("exit status: 1")
        );
        assert!(
            output("/nonexistent", &[])
                .unwrap_err()
                .as_str()
                .contains("cannot be started")
        );
    }
}
