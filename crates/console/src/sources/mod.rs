//! Where the console's knowledge comes from: one thread for each source, so that one that hangs holds up no other.
//!
//! Everything is read as an ordinary user: files that anybody may read, `systemctl show`, `journalctl`, and the queue's control socket.

mod command;
mod host;
mod journal;
mod queue;
mod services;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::mpsc::SyncSender,
    thread,
    time::Duration,
};

use crate::{model::Update, text::Text};

/// How often a source looks again.
const PERIOD: Duration = Duration::from_secs(2);

/// Starts all sources. `root` stands before every path, `/` on a node.
pub(crate) fn start(root: PathBuf, updates: &SyncSender<Update>) -> std::io::Result<()> {
    let host = root.clone();
    poll(
        "host",
        updates,
        move || Update::Host(Ok(host::read(&host))),
        |why| Update::Host(Err(why)),
    )?;
    poll(
        "services",
        updates,
        || Update::Services(services::read()),
        |why| Update::Services(Err(why)),
    )?;
    poll(
        "queue",
        updates,
        move || Update::Queue(queue::read(&root)),
        |why| Update::Queue(Err(why)),
    )?;
    let events = updates.clone();
    poll(
        "events",
        updates,
        move || Update::EventsFault(journal::follow(&events)),
        Update::EventsFault,
    )
}

/// A thread that reads, tells and rests, for ever; a panic is told like any other fault.
fn poll(
    name: &'static str,
    updates: &SyncSender<Update>,
    mut read: impl FnMut() -> Update + Send + 'static,
    fault: fn(Text) -> Update,
) -> std::io::Result<()> {
    let updates = updates.clone();
    let body = move || {
        loop {
            let update = catch_unwind(AssertUnwindSafe(&mut read))
                .unwrap_or_else(|_| fault(Text::new("the console's reader failed; it is started again")));
            // An error means that the screen's thread is gone, and the process with it.
            if updates.send(update).is_err() {
                return;
            }
            thread::sleep(PERIOD);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}
