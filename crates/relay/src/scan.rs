//! The scan process: looks at the structure and the attachments of messages, where a crash harms nobody.
//!
//! Enters: on a `SOCK_SEQPACKET` connection one packet, which is the message itself ([`INLINE`] in front) or comes with sealed or
//! lent memory that ends with it ([`MEMORY`]). Leaves: one packet, a [`Report`] as JSON; or the end of the connection, when the message
//! ended the worker. The process opens no file and no connection. Each worker has one message at a time, bounded memory
//! and a deadline; the supervisor, which reads nothing, starts the next one.

mod archive;
pub mod config;
mod decode;
mod header;
mod kinds;
mod message;
pub mod names;
mod report;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postern_control::EventKind;
use postern_sandbox::worker::{self, Happened, Supervisor};
use postern_sandbox::{Inherited, Policy, fd, memfd, seqpacket};

use crate::config::Config;
use crate::events::Events;
use crate::handover::{FIELDS, ROOM};
use config::Content;
pub use message::examine;
pub use report::{Report, Seen};

/// Name of the descriptor in the socket unit.
pub const DESCRIPTOR: &str = "scan";
/// First octet of a packet that goes on with the message.
pub const INLINE: u8 = b'I';
/// First octet of a packet beside which memory comes; behind it the message's octets as a little-endian u64: the memory's last so many.
pub const MEMORY: u8 = b'M';

/// A client sends at once.
const SEND: Duration = Duration::from_secs(10);
/// Rest before the next worker is started, so that messages made to end workers do not take the processor.
const PACE: Duration = Duration::from_millis(50);
/// How long the supervisor waits where no watchdog waits for it.
const TICK: Duration = Duration::from_hours(1);

/// The process: configuration, socket, sandbox, workers, and then nothing but their ends.
pub fn main(config: &Config, passed: Vec<Inherited>) -> anyhow::Result<()> {
    let events = Events::stdout("scan");
    let content = config
        .content
        .as_ref()
        .context("the configuration has no [content] table; add it, or do not start this process")?;
    let socket = passed
        .into_iter()
        .find(|inherited| inherited.name == DESCRIPTOR)
        .with_context(|| format!("no socket named {DESCRIPTOR:?} was passed; start the process by its socket unit, or use `run`"))?
        .fd;
    seqpacket::let_accept_wait(&socket).context("the passed socket cannot be used")?;
    let largest = config.limits.max_message_size.saturating_add(FIELDS);
    let supervisor =
        Supervisor::enforce(Policy::scan(), content.memory(largest)).context("the sandbox does not stand")?;
    let start = || supervisor.start(|| work(&socket, content, largest));
    for _ in 0..content.workers {
        start().context("a worker cannot be started")?;
    }
    events.started();
    let watchdog = crate::service::ready_without_runtime(&supervisor.report().to_string());
    loop {
        // Whatever happened, and however often: it is alive.
        crate::service::feed_watchdog();
        match supervisor.wait(watchdog.map_or(TICK, |limit| limit / 3))? {
            Happened::Stop => {
                events.emit(
                    None,
                    None,
                    EventKind::Stopping {
                        reason: "asked to".into(),
                    },
                );
                return Ok(());
            }
            Happened::Nothing => {}
            Happened::Ended(ended) => {
                for end in ended {
                    if end.reason.is_unwalled() {
                        bail!("a worker could not put its sandbox up");
                    }
                    events.warn(format!(
                        "content worker {} ended: {}; the message that it looked at is deferred, the next worker starts",
                        end.pid, end.reason
                    ));
                    std::thread::sleep(PACE);
                    start().context("a worker cannot be started again")?;
                }
            }
        }
    }
}

/// A worker: one message after another, until one ends it.
fn work(listener: &OwnedFd, content: &Content, largest: u64) {
    let mut buffer = vec![0; fd::MAX_PACKET];
    while let Ok(socket) = seqpacket::accept(listener) {
        if let Err(error) = answer(&socket, &mut buffer, content, largest) {
            eprintln!("a request for a scan broke: {error}");
        }
    }
}

fn answer(socket: &OwnedFd, buffer: &mut [u8], content: &Content, largest: u64) -> io::Result<()> {
    if !seqpacket::readable(socket, SEND)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let packet = fd::recv_with_fd(socket, buffer)?;
    let mapped;
    let message = match (&buffer[..packet.len], packet.fd) {
        ([INLINE, message @ ..], None) => message,
        ([MEMORY, size @ ..], Some(memory)) => {
            mapped = memfd::map_lent(&memory, largest.saturating_add(ROOM as u64))?;
            let size = size
                .try_into()
                .map(u64::from_le_bytes)
                .map_err(io::Error::other)?;
            let start = (mapped.len() as u64)
                .checked_sub(size)
                .filter(|_| size <= largest);
            let start = start.ok_or_else(|| io::Error::other("the message is larger than its memory"))?;
            mapped
                .get(usize::try_from(start).map_err(io::Error::other)?..)
                .unwrap_or_default()
        }
        _ => return Err(io::Error::other("it is neither a message nor memory")),
    };
    // A client says nothing more: what is there to read is its end. It has given up waiting.
    if seqpacket::readable(socket, Duration::ZERO)? {
        return Ok(());
    }
    worker::time_left(content.timeout);
    let report = examine(content, message);
    worker::time_free();
    fd::send_with_fd(socket, &serde_json::to_vec(&report)?, None)
}
