//! The event writer: every decision becomes one line on standard output, which the journal takes.
//!
//! Whole lines are written under a lock, so lines of different tasks never mix. A process that carries much mail lets its
//! lines gather for a moment ([`Events::gather`]): each write wakes the reader, and under load there are ten thousands a second.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_control::{Event, EventKind};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::metrics::{Family, Meter, approximate};

/// How long a line waits for others at most, and octets that no longer wait.
const GATHER: Duration = Duration::from_millis(5);
const ENOUGH: usize = 64 * 1024;

/// Where a process tells what it does. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    process: Arc<str>,
    meter: Arc<Meter>,
    lines: Arc<Mutex<Lines>>,
    /// A first line waits.
    waits: Arc<Notify>,
}

/// The way out.
struct Lines {
    waiting: Vec<u8>,
    /// Whether somebody writes what waits.
    gathered: bool,
    sink: Box<dyn Write + Send>,
}

impl Lines {
    fn write(&mut self) {
        // Taken first: lines over which the sink faults are not written again.
        let mut lines = std::mem::take(&mut self.waiting);
        if !lines.is_empty() {
            // A journal that cannot be written must not stop the mail; there is nowhere left to tell of it.
            let _ = self.sink.write_all(&lines).and_then(|()| self.sink.flush());
            lines.clear();
            self.waiting = lines;
        }
    }
}

/// While it lives, lines gather. It ends with its runtime, and what is told after that is written at once again.
struct Gathering(Events);

impl Drop for Gathering {
    fn drop(&mut self) {
        let mut lines = self.0.lines();
        lines.gathered = false;
        lines.write();
    }
}

impl Events {
    /// Events of `process` (`queue`, `smtpd/public`, …) on standard output.
    pub fn stdout(process: &str) -> Self {
        Self::to(process, std::io::stdout())
    }

    /// Events of `process` into `sink`.
    pub fn to(process: &str, sink: impl Write + Send + 'static) -> Self {
        let meter = Meter::default();
        let started = approximate(unix_millis(SystemTime::now())) / 1000.0;
        meter.set(Family::ProcessStart, &[], started);
        Self {
            process: process.into(),
            meter: Arc::new(meter),
            lines: Arc::new(Mutex::new(Lines {
                waiting: Vec::new(),
                gathered: false,
                sink: Box::new(sink),
            })),
            waits: Arc::default(),
        }
    }

    /// From now on, and until the runtime ends, a line waits for others, [`GATHER`] at most. What must not be lost when the
    /// process is killed at this moment needs [`Self::write_out`].
    pub fn gather(&self, runtime: &Handle) {
        self.lines().gathered = true;
        let gathering = Gathering(self.clone());
        runtime.spawn(async move {
            loop {
                gathering.0.waits.notified().await;
                tokio::time::sleep(GATHER).await;
                gathering.0.write_out();
            }
        });
    }

    /// Writes what was gathered: to be called before what was told becomes durable.
    pub fn write_out(&self) {
        self.lines().write();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `kind` about the connection `trace` and the message `id`, where there is one.
    pub fn emit(&self, trace: Option<&str>, id: Option<&str>, kind: EventKind) {
        self.meter.observe(&kind);
        let event = Event {
            time: rfc3339(SystemTime::now()),
            process: self.process.to_string(),
            trace: trace.map(str::to_owned),
            id: id.map(str::to_owned),
            kind,
        };
        let mut line = event.to_line();
        line.push('\n');
        let mut lines = self.lines();
        let first = lines.waiting.is_empty();
        lines.waiting.extend_from_slice(line.as_bytes());
        if !lines.gathered || lines.waiting.len() >= ENOUGH {
            lines.write();
        } else if first {
            drop(lines);
            self.waits.notify_one();
        }
    }

    /// What was counted.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Tells that the process serves.
    pub fn started(&self) {
        let version = env!("CARGO_PKG_VERSION").into();
        self.emit(None, None, EventKind::Started { version });
    }

    /// Tells the operator of something to mend.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(None, None, EventKind::Warning { text: text.into() });
    }
}

/// A new trace id: 64 random bits in hexadecimal.
pub fn trace_id() -> String {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => format!("{:016x}", u64::from_be_bytes(bytes)),
        Err(_) => format!("{:016x}", unix_millis(SystemTime::now())),
    }
}

/// Milliseconds since 1970; 0 for times before.
pub fn unix_millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `time` as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    rfc3339_millis(unix_millis(time))
}

/// Milliseconds since 1970 as RFC 3339 in UTC with milliseconds.
pub fn rfc3339_millis(unix_millis: u64) -> String {
    let (seconds, millis) = (unix_millis / 1000, unix_millis % 1000);
    let (year, month, day) = civil(seconds / 86_400);
    let second = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Days since 1970-01-01 as year, month, day (proleptic Gregorian). The year is counted from 1 March, so that
/// the leap day is its last.
pub fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097; // 400 years
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339_millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_millis(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339_millis(1_795_163_099_007), "2026-11-20T08:24:59.007Z");
        assert_eq!(rfc3339_millis(4_102_444_799_999), "2099-12-31T23:59:59.999Z");
    }

    #[test]
    fn lines_gather_until_they_are_wanted_and_the_last_ones_are_not_lost() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = || std::fs::read_to_string(file.path()).unwrap().lines().count();
        let events = Events::to("queue", file.reopen().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let removed = || events.emit(None, None, EventKind::Removed);
        runtime.block_on(async {
            events.gather(&Handle::current());
            removed();
            removed();
            assert_eq!(lines(), 0);
            events.write_out();
            assert_eq!(lines(), 2);
            removed();
            assert_eq!(lines(), 2);
            tokio::time::sleep(2 * GATHER).await;
            assert_eq!(lines(), 3, "a line waits for a moment only");
            removed();
        });
        assert_eq!(lines(), 3);
        drop(runtime);
        assert_eq!(lines(), 4, "what waits is written before the end");
        removed();
        assert_eq!(lines(), 5, "nobody would write it later");
    }

    #[test]
    fn a_line_is_written_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let events = Events::to("queue", file.reopen().unwrap());
        events.emit(Some("t"), Some("i"), EventKind::Removed);
        let text = std::fs::read_to_string(file.path()).unwrap();
        let event = Event::from_line(&text).unwrap();
        assert_eq!(
            (event.process.as_str(), event.id.as_deref()),
            ("queue", Some("i"))
        );
        assert!(text.ends_with('\n'));
    }
}
