//! What every process owes its service manager: ready, watchdog, stop.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Says that the process serves, with `status` for people, and starts the watchdog where the manager wants one.
///
/// The watchdog is fed by a task of the runtime that serves: a runtime that is stuck does not feed it.
pub fn ready(status: &str) {
    tell_ready(status);
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval((limit / 3).max(Duration::from_millis(100)));
            loop {
                tick.tick().await;
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
        });
    }
}

/// [`ready`] for a process without a runtime; the time that the watchdog gives it, for [`feed_watchdog`].
pub fn ready_without_runtime(status: &str) -> Option<Duration> {
    tell_ready(status);
    sd_notify::watchdog_enabled()
}

/// Without a service manager there is nobody to tell, which is no error. One that hears nothing ends the process after a while,
/// and its journal should say why.
fn tell_ready(status: &str) {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]) {
        eprintln!("the service manager cannot be told that the process is ready: {error}");
    }
}

/// Says that the process is alive.
pub fn feed_watchdog() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// Says that the process is going down in order.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// SIGTERM or SIGINT.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// Begins to listen for the request to stop.
pub fn stop_signal() -> std::io::Result<Stop> {
    Ok(Stop {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    })
}

impl Stop {
    /// Waits for it.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
