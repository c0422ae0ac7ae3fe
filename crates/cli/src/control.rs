//! The control socket of the queue process: a line of JSON out, a line of JSON back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postern_control::{Reply, Request};

/// Long enough for a busy queue, short enough for someone who waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the queue.
pub(crate) struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| {
            format!(
                "cannot reach the queue at {}: is postern-queue running, and may this user use its socket?",
                socket.display()
            )
        })?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .context("cannot limit the wait")?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks, and gives the answer as it came.
    pub(crate) fn ask_line(&mut self, request: &Request) -> Result<String> {
        let mut line = serde_json::to_string(request).context("cannot write the request")?;
        line.push('\n');
        self.0
            .get_mut()
            .write_all(line.as_bytes())
            .context("cannot send the request")?;
        let mut answer = String::new();
        self.0
            .read_line(&mut answer)
            .context("the queue did not answer")?;
        if answer.is_empty() {
            bail!("the queue closed the connection without an answer: its journal says why");
        }
        Ok(answer)
    }

    /// Asks; what the queue refuses is an error.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply> {
        let line = self.ask_line(request)?;
        match serde_json::from_str(&line).context("the queue answered with something else than a reply")? {
            Reply::Error { text } => bail!("the queue could not answer: {text}"),
            reply => Ok(reply),
        }
    }
}

/// For a reply that fits another request.
pub(crate) fn another() -> anyhow::Error {
    anyhow::anyhow!("the queue answered another question: are both programs of the same version?")
}
