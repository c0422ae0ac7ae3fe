//! The appliance console on tty1 and the serial line: what the node is and how it does, and nothing else.
//!
//! No login, no shell, no command: it runs as an ordinary user, reads what anybody of the journal's group may read, and draws. It
//! never ends by itself: a panic or a fault of the terminal starts the screen again, and the service manager the process.
#![forbid(unsafe_code)]

mod app;
mod clock;
mod keys;
mod model;
mod pages;
mod screen;
mod sources;
mod text;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use crossterm::event::KeyEvent;
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;

use crate::{app::App, model::Update, pages::Moment, screen::Screen};

/// How often the screen is drawn without a key.
const PERIOD: Duration = Duration::from_secs(2);
/// Updates that wait for the screen before their sources have to.
const BACKLOG: usize = 1000;

const USAGE: &str = "usage: postern-console [--root DIR] [--version]
Draws the node's state on this terminal. DIR stands before every path that is read (default /).";

fn main() -> anyhow::Result<()> {
    let Some(root) = arguments(env::args().skip(1))? else {
        return Ok(());
    };
    block_terminal_signals()?;
    let (sender, updates) = sync_channel(BACKLOG);
    sources::start(root, &sender).context("cannot start the threads that read the node's state")?;
    let keys = keys::start().context("cannot start the thread that reads the keys")?;
    let mut app = App::new(None);
    let mut announced = false;
    loop {
        let run = catch_unwind(AssertUnwindSafe(|| {
            run(&mut app, &updates, &keys, &mut announced)
        }));
        let notice = if run.is_err() {
            "the screen failed and was started again"
        } else {
            "the terminal failed and was taken again"
        };
        if let Ok(Err(fault)) = run {
            eprintln!("terminal: {fault}");
        }
        // What was known stays; the page that may have failed does not.
        app = App {
            model: app.model,
            ..App::new(Some(notice))
        };
        thread::sleep(PERIOD);
    }
}

/// Draws until the terminal fails.
fn run(
    app: &mut App,
    updates: &Receiver<Update>,
    keys: &Receiver<KeyEvent>,
    announced: &mut bool,
) -> std::io::Result<()> {
    let mut screen = Screen::open()?;
    loop {
        let now = Instant::now();
        for update in updates.try_iter().take(BACKLOG) {
            app.model.take(update, now);
        }
        screen.draw(
            app,
            Moment {
                now,
                wall: SystemTime::now(),
            },
        )?;
        // Without a service manager these do nothing.
        if !*announced {
            sd_notify::notify(&[NotifyState::Ready])?;
            *announced = true;
        }
        sd_notify::notify(&[NotifyState::Watchdog])?;
        screen.keys(app, keys, PERIOD)?;
    }
}

/// The directory before every path; None where there is nothing to do.
fn arguments(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Option<PathBuf>> {
    let mut root = PathBuf::from("/");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--root" => root = arguments.next().context(USAGE)?.into(),
            "--version" => {
                println!("postern-console {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            _ => bail!("unknown argument {argument}\n{USAGE}"),
        }
    }
    Ok(Some(root))
}

/// Keys make no signals in raw mode; this is for the moments before and between, and holds for every thread started later.
fn block_terminal_signals() -> anyhow::Result<()> {
    let signals = [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ];
    SigSet::from_iter(signals)
        .thread_block()
        .context("cannot block the terminal's signals")
}
