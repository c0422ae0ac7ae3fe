//! `postern status`: asks the queue process over its control socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postern_control::{Reply, Request};

/// Long enough for a busy queue, short enough for someone who waits.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn show(socket: &Path, json: bool) -> Result<()> {
    let line = ask(socket, &Request::Status)?;
    if json {
        println!("{}", line.trim_end());
        return Ok(());
    }
    match serde_json::from_str(&line).context("the queue answered with something else than a reply")? {
        Reply::Status {
            node,
            role,
            version,
            queue,
        } => {
            println!("node     {node} ({role}, postern {version})");
            println!(
                "queue    {} messages, {} recipients due",
                queue.messages, queue.recipients_due
            );
            println!("oldest   {} s", queue.oldest_age_seconds);
            println!("spool    {} octets", queue.spool_octets);
            Ok(())
        }
        Reply::Error { text } => bail!("the queue could not answer: {text}"),
        _ => bail!("the queue answered another question: are both programs of the same version?"),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<String> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!(
            "cannot reach the queue at {}: is postern-queue running, and may this user use its socket?",
            socket.display()
        )
    })?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .context("cannot limit the wait")?;
    let mut line = serde_json::to_string(request).context("cannot write the request")?;
    line.push('\n');
    stream
        .write_all(line.as_bytes())
        .context("cannot send the request")?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .context("the queue did not answer")?;
    if answer.is_empty() {
        bail!("the queue closed the connection without an answer: its journal says why");
    }
    Ok(answer)
}
