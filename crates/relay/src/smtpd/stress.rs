//! Near the capacity of connections or of memory for messages, strangers get less time and less room, so that those who send
//! still find a place; listed peers and our own hosts do not.
//!
//! A client that was waited for before is waited for as long again as the shorter limit says, and a message that comes at the usual
//! pace is never cut off: only its pauses must be shorter. RFC 5321 section 4.5.3.2.7 asks for five minutes between commands, which
//! is what `command-timeout` is otherwise.

use std::sync::{Mutex, PoisonError};

use postern_control::EventKind;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Server;
use crate::config::{Limits, Stress as Config};
use crate::events::Events;

/// It ends so many percent below where it begins, so that it does not begin and end with every connection.
const SLACK: usize = 10;

/// Whether it is so, and since when.
#[derive(Debug)]
pub(super) struct Stress {
    at: usize,
    since: watch::Sender<Option<Instant>>,
    /// Held from a look to its event, so that the events are in order.
    saying: Mutex<()>,
}

impl Stress {
    /// None below `at` percent; 0 = never.
    pub(super) fn new(at: u8) -> Self {
        Self {
            at: usize::from(at),
            since: watch::Sender::new(None),
            saying: Mutex::default(),
        }
    }

    /// Since when, if now.
    pub(super) fn since(&self) -> Option<Instant> {
        *self.since.borrow()
    }

    /// Tells of beginning and end.
    pub(super) fn changes(&self) -> watch::Receiver<Option<Instant>> {
        self.since.subscribe()
    }

    /// Takes note of how full the server is: percent of its connections, and of its memory.
    fn note(&self, connections: usize, memory: usize, events: &Events) {
        let full = connections.max(memory);
        let now = self.since().is_some();
        if self.at == 0 || now == self.is_stress(full, now) {
            return;
        }
        let _saying = self.saying.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.since().is_some();
        let next = self.is_stress(full, now);
        if next == now {
            return;
        }
        self.since.send_replace(next.then(Instant::now));
        let state = if next { "began" } else { "ended" };
        events.emit(
            None,
            None,
            EventKind::Stress {
                state: state.to_owned(),
                detail: format!("{connections} % of the connections, {memory} % of the memory for messages"),
            },
        );
    }

    fn is_stress(&self, full: usize, now: bool) -> bool {
        full >= if now {
            self.at.saturating_sub(SLACK).max(1)
        } else {
            self.at
        }
    }
}

impl Server {
    /// Looks how full it is.
    pub(super) fn note_stress(&self) {
        let most = self.config.limits.max_connections.max(1);
        let connections = self.admission.count() * 100 / most;
        self.stress
            .note(connections, self.memory.percent_used(), &self.events);
    }

    /// Connections that one address may hold now.
    pub(super) fn per_address(&self, stranger: bool) -> usize {
        let usual = self
            .config
            .limits
            .max_connections_per_address
            .saturating_add(self.carried);
        if stranger && self.stress.since().is_some() {
            usual.min(self.config.stress.max_connections_per_address)
        } else {
            usual
        }
    }
}

/// Seconds that a client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) command: u64,
    pub(super) data: u64,
    /// What `data` is without stress.
    pub(super) usual_data: u64,
}

impl Times {
    /// As long as there is room.
    pub(super) fn usual(limits: &Limits) -> Self {
        Self {
            command: limits.command_timeout,
            data: limits.data_timeout,
            usual_data: limits.data_timeout,
        }
    }

    /// As long as there is little.
    pub(super) fn short(limits: &Limits, stress: &Config) -> Self {
        Self {
            command: limits.command_timeout.min(stress.command_timeout),
            data: limits.data_timeout.min(stress.data_timeout),
            usual_data: limits.data_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_begins_and_ends_once_and_says_so() {
        let lines = Lines::default();
        let events = Events::to("test", lines.clone());
        let stress = Stress::new(80);
        for (connections, memory, is) in [
            (79, 0, false),
            (80, 0, true),
            (75, 10, true),
            (70, 10, true),
            (10, 85, true),
            (69, 69, false),
            (79, 0, false),
            (0, 80, true),
        ] {
            stress.note(connections, memory, &events);
            assert_eq!(stress.since().is_some(), is, "{connections} {memory}");
        }
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("\"began\"").count(), 2, "{text}");
        assert_eq!(text.matches("\"ended\"").count(), 1, "{text}");
    }

    #[test]
    fn zero_is_never() {
        let stress = Stress::new(0);
        stress.note(100, 100, &Events::to("test", Lines::default()));
        assert!(stress.since().is_none());
    }

    #[test]
    fn times_are_never_longer_than_usual() {
        let limits = Limits {
            command_timeout: 8,
            ..Limits::default()
        };
        let times = Times::short(&limits, &Config::default());
        assert_eq!((times.command, times.data, times.usual_data), (8, 60, 600));
    }
}
