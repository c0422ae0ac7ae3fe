//! Figures of a process, counted from its events, and all processes' figures as `OpenMetrics` text.
//!
//! Every decision is an event already, so [`Meter::observe`] counts there and nowhere else. Labels come from closed lists
//! (checks, stages, codes, TLS versions), never from a stranger: no address, domain or text of his. Each instance of smtpd
//! gives its figures to the queue, which answers for the node ([`text`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_control::EventKind;
use serde::{Deserialize, Serialize};

/// Upper bounds in seconds; the last bucket has none.
const BUCKETS: [f64; 13] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 21_600.0, 86_400.0,
];
/// Series of one process at most; what is beyond is not counted.
const SERIES: usize = 500;
/// Octets of a label's value at most.
const LABEL: usize = 40;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the table below has a help text for each")]
pub enum Family {
    Connections,
    ConnectionsOpen,
    TlsSessions,
    Refused,
    Checks,
    CheckSeconds,
    Verdicts,
    Accepted,
    AcceptedOctets,
    MessageMemory,
    Remembered,
    QueueMessages,
    QueueRecipients,
    QueueOldest,
    SpoolOctets,
    Outcomes,
    DeliverySeconds,
    Notifications,
    HoldMessages,
    HoldOctets,
    HoldEvents,
    Warnings,
    ProxyConnections,
    ProxyOpen,
    ProxyFailed,
    ProxyOctets,
    ProxyAnswers,
    ProcessStart,
    ProcessCpu,
}

/// How a family is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

struct Row {
    family: Family,
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
}

const fn row(
    family: Family,
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Row {
    Row {
        family,
        name,
        kind,
        labels,
        help,
    }
}

/// Every family, in the order of the text. All have the label `process` besides.
const FAMILIES: [Row; 29] = [
    row(
        Family::Connections,
        "postern_connections",
        Kind::Counter,
        &[],
        "Connections from clients.",
    ),
    row(
        Family::ConnectionsOpen,
        "postern_connections_open",
        Kind::Gauge,
        &[],
        "Connections held now.",
    ),
    row(
        Family::TlsSessions,
        "postern_tls_sessions",
        Kind::Counter,
        &["version"],
        "TLS sessions with clients.",
    ),
    row(
        Family::Refused,
        "postern_refused",
        Kind::Counter,
        &["stage", "check", "code"],
        "Refusals and deferrals.",
    ),
    row(
        Family::Checks,
        "postern_checks",
        Kind::Counter,
        &["check", "result"],
        "What checks found.",
    ),
    row(
        Family::CheckSeconds,
        "postern_check_seconds",
        Kind::Histogram,
        &["check"],
        "Time that checks and scanners took.",
    ),
    row(
        Family::Verdicts,
        "postern_verdicts",
        Kind::Counter,
        &["decision"],
        "Verdicts on whole messages.",
    ),
    row(
        Family::Accepted,
        "postern_accepted_messages",
        Kind::Counter,
        &[],
        "Messages on stable storage.",
    ),
    row(
        Family::AcceptedOctets,
        "postern_accepted_octets",
        Kind::Counter,
        &[],
        "Their octets.",
    ),
    row(
        Family::MessageMemory,
        "postern_message_memory_octets",
        Kind::Gauge,
        &[],
        "Memory that messages under way take.",
    ),
    row(
        Family::Remembered,
        "postern_remembered_entries",
        Kind::Gauge,
        &["table"],
        "Greylist, proven clients and counts.",
    ),
    row(
        Family::QueueMessages,
        "postern_queue_messages",
        Kind::Gauge,
        &[],
        "Messages that are not yet done.",
    ),
    row(
        Family::QueueRecipients,
        "postern_queue_recipients",
        Kind::Gauge,
        &[],
        "Recipients that are not yet done.",
    ),
    row(
        Family::QueueOldest,
        "postern_queue_oldest_seconds",
        Kind::Gauge,
        &[],
        "Age of the oldest message.",
    ),
    row(
        Family::SpoolOctets,
        "postern_spool_octets",
        Kind::Gauge,
        &[],
        "Size of the spool.",
    ),
    row(
        Family::Outcomes,
        "postern_delivery_outcomes",
        Kind::Counter,
        &["outcome"],
        "What attempts came to, by recipient.",
    ),
    row(
        Family::DeliverySeconds,
        "postern_delivery_seconds",
        Kind::Histogram,
        &[],
        "From arrival to delivery.",
    ),
    row(
        Family::Notifications,
        "postern_notifications",
        Kind::Counter,
        &[],
        "Delivery status notifications queued.",
    ),
    row(
        Family::HoldMessages,
        "postern_hold_messages",
        Kind::Gauge,
        &["state"],
        "Messages that wait for their scan, or in quarantine.",
    ),
    row(
        Family::HoldOctets,
        "postern_hold_octets",
        Kind::Gauge,
        &["state"],
        "Their octets.",
    ),
    row(
        Family::HoldEvents,
        "postern_hold_events",
        Kind::Counter,
        &["state"],
        "Messages taken unscanned, and what became of them.",
    ),
    row(
        Family::Warnings,
        "postern_warnings",
        Kind::Counter,
        &[],
        "Warnings in the journal.",
    ),
    row(
        Family::ProxyConnections,
        "postern_proxy_connections",
        Kind::Counter,
        &["destination", "purpose"],
        "Connections made by the proxy: to the internal node's port 25, to the host of dmz-state.",
    ),
    row(
        Family::ProxyOpen,
        "postern_proxy_connections_open",
        Kind::Gauge,
        &["destination", "purpose"],
        "Those held now.",
    ),
    row(
        Family::ProxyFailed,
        "postern_proxy_connections_failed",
        Kind::Counter,
        &["destination", "purpose"],
        "Connections that could not be made, or not be used.",
    ),
    row(
        Family::ProxyOctets,
        "postern_proxy_octets",
        Kind::Counter,
        &["destination", "purpose", "direction"],
        "Octets on the proxy's connections, TLS included.",
    ),
    row(
        Family::ProxyAnswers,
        "postern_proxy_answers",
        Kind::Counter,
        &["question", "answer"],
        "What smtpd was answered about recipients, logins and shared state.",
    ),
    row(
        Family::ProcessStart,
        "postern_process_start_time_seconds",
        Kind::Gauge,
        &[],
        "Start, seconds since 1970.",
    ),
    row(
        Family::ProcessCpu,
        "postern_process_cpu_seconds",
        Kind::Counter,
        &[],
        "Processor time.",
    ),
];

/// One series of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    family: Family,
    labels: Vec<String>,
    /// The value; of a histogram the sum.
    value: f64,
    /// Of a histogram, how many were in each bucket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    buckets: Vec<u64>,
}

type Figures = BTreeMap<(Family, Vec<String>), (f64, Vec<u64>)>;

/// Counts for one process.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Figures>);

impl Meter {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what an event tells.
    pub fn observe(&self, kind: &EventKind) {
        match kind {
            EventKind::Connected { .. } => self.add(Family::Connections, &[], 1.0),
            EventKind::Tls { version, .. } => self.add(Family::TlsSessions, &[version], 1.0),
            EventKind::Refused {
                stage, code, check, ..
            } => {
                let check = check.as_deref().unwrap_or("none");
                self.add(Family::Refused, &[stage, check, &code.to_string()], 1.0);
            }
            EventKind::Check {
                check,
                result,
                millis,
                ..
            } => {
                self.add(Family::Checks, &[check, result], 1.0);
                self.time(Family::CheckSeconds, &[check], *millis);
            }
            EventKind::Verdict { decision, .. } => self.add(Family::Verdicts, &[decision], 1.0),
            EventKind::Queued { size, .. } => {
                self.add(Family::Accepted, &[], 1.0);
                self.add(Family::AcceptedOctets, &[], approximate(*size));
            }
            EventKind::Delivered { .. } => self.add(Family::Outcomes, &["delivered"], 1.0),
            EventKind::Deferred { .. } => self.add(Family::Outcomes, &["deferred"], 1.0),
            EventKind::Bounced { .. } => self.add(Family::Outcomes, &["bounced"], 1.0),
            EventKind::Dsn { .. } => self.add(Family::Notifications, &[], 1.0),
            EventKind::Hold { state, .. } => self.add(Family::HoldEvents, &[state], 1.0),
            EventKind::Warning { .. } => self.add(Family::Warnings, &[], 1.0),
            _ => {}
        }
    }

    /// A message was delivered so many milliseconds after it had come.
    pub fn delivered(&self, millis: u64) {
        self.time(Family::DeliverySeconds, &[], millis);
    }

    /// Sets a gauge, or a counter that is counted elsewhere.
    pub fn set(&self, family: Family, labels: &[&str], value: f64) {
        self.with(family, labels, |(known, _)| *known = value);
    }

    /// Counts one more.
    pub fn count(&self, family: Family, labels: &[&str]) {
        self.add(family, labels, 1.0);
    }

    fn add(&self, family: Family, labels: &[&str], more: f64) {
        self.with(family, labels, |(value, _)| *value += more);
    }

    fn time(&self, family: Family, labels: &[&str], millis: u64) {
        let seconds = approximate(millis) / 1000.0;
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        self.with(family, labels, |(sum, buckets)| {
            *sum += seconds;
            buckets.resize(BUCKETS.len() + 1, 0);
            buckets[bucket] += 1;
        });
    }

    fn with(&self, family: Family, labels: &[&str], change: impl FnOnce(&mut (f64, Vec<u64>))) {
        let key = (family, labels.iter().map(|label| (*label).to_owned()).collect());
        let mut figures = self.figures();
        if figures.len() < SERIES || figures.contains_key(&key) {
            change(figures.entry(key).or_default());
        }
    }

    /// All series as they are now, with the process's own.
    pub fn series(&self) -> Vec<Series> {
        if let Ok(used) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID) {
            self.set(
                Family::ProcessCpu,
                &[],
                std::time::Duration::from(used).as_secs_f64(),
            );
        }
        let figures = self.figures();
        let series = figures.iter().map(|((family, labels), (value, buckets))| Series {
            family: *family,
            labels: labels.clone(),
            value: *value,
            buckets: buckets.clone(),
        });
        series.collect()
    }
}

/// Octets and milliseconds as a number that may lose its last digits beyond 2^53.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub fn approximate(number: u64) -> f64 {
    number as f64
}

/// Whether series that another process gave may go into the text: as many as there can be, shaped as their family says,
/// and with labels that are words.
pub fn are_sound(series: &[Series]) -> bool {
    let word = |text: &String| {
        text.len() <= LABEL
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/'))
    };
    series.len() <= SERIES
        && series.iter().all(|series| {
            let row = &FAMILIES[series.family as usize];
            let buckets = if row.kind == Kind::Histogram {
                BUCKETS.len() + 1
            } else {
                0
            };
            series.labels.len() == row.labels.len()
                && series.labels.iter().all(word)
                && series.buckets.len() == buckets
                && series.value.is_finite()
                && series.value >= 0.0
        })
}

/// `OpenMetrics` 1.0 text of all processes' series.
pub fn text(processes: &BTreeMap<String, Vec<Series>>) -> String {
    let mut out = String::new();
    for row in &FAMILIES {
        let mut lines = String::new();
        for (process, series) in processes {
            for series in series.iter().filter(|series| series.family == row.family) {
                write_series(&mut lines, row, process, series);
            }
        }
        if !lines.is_empty() {
            let kind = match row.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(
                out,
                "# TYPE {} {kind}\n# HELP {} {}",
                row.name, row.name, row.help
            );
            out += &lines;
        }
    }
    out += "# EOF\n";
    out
}

fn write_series(out: &mut String, row: &Row, process: &str, series: &Series) {
    let mut labels = format!("process=\"{process}\"");
    for (name, value) in row.labels.iter().zip(&series.labels) {
        let _ = write!(labels, ",{name}=\"{value}\"");
    }
    let (name, value) = (row.name, series.value);
    match row.kind {
        Kind::Gauge => _ = writeln!(out, "{name}{{{labels}}} {value}"),
        Kind::Counter => _ = writeln!(out, "{name}_total{{{labels}}} {value}"),
        Kind::Histogram => {
            let mut all = 0;
            for (number, count) in series.buckets.iter().enumerate() {
                all += count;
                let bound = BUCKETS
                    .get(number)
                    .map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {all}");
            }
            let _ = writeln!(
                out,
                "{name}_count{{{labels}}} {all}\n{name}_sum{{{labels}}} {value}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_its_row() {
        for (number, row) in FAMILIES.iter().enumerate() {
            assert_eq!(row.family as usize, number, "{}", row.name);
        }
    }

    #[test]
    fn a_time_is_in_its_bucket_and_all_above() {
        let meter = Meter::default();
        for millis in [10, 11, 100_000_000] {
            meter.delivered(millis);
        }
        let text = text(&BTreeMap::from([("queue".to_owned(), meter.series())]));
        for line in [
            "postern_delivery_seconds_bucket{process=\"queue\",le=\"0.01\"} 1",
            "postern_delivery_seconds_bucket{process=\"queue\",le=\"0.05\"} 2",
            "postern_delivery_seconds_bucket{process=\"queue\",le=\"86400.0\"} 2",
            "postern_delivery_seconds_bucket{process=\"queue\",le=\"+Inf\"} 3",
            "postern_delivery_seconds_count{process=\"queue\"} 3",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn series_are_bounded() {
        let meter = Meter::default();
        for number in 0..2 * SERIES {
            meter.set(Family::Remembered, &[&number.to_string()], 1.0);
        }
        assert_eq!(meter.figures().len(), SERIES);
    }

    #[test]
    fn what_could_break_the_text_is_refused() {
        let meter = Meter::default();
        meter.observe(&EventKind::Verdict {
            decision: "accept".into(),
            score: None,
        });
        let good = meter.series();
        assert!(are_sound(&good));
        let wrong = |change: fn(&mut Series)| {
            let mut series = good.clone();
            let verdicts = series.iter_mut().find(|series| series.family == Family::Verdicts);
            change(verdicts.expect("it was counted"));
            series
        };
        assert!(!are_sound(&wrong(|series| series.labels[0] = "a\"} 1\n".into())));
        assert!(!are_sound(&wrong(|series| series.labels[0] = "x".repeat(41))));
        assert!(!are_sound(&wrong(|series| series.labels.clear())));
        assert!(!are_sound(&wrong(|series| series.value = f64::NAN)));
        assert!(!are_sound(&wrong(|series| series.buckets = vec![1])));
        assert!(!are_sound(&vec![good[0].clone(); SERIES + 1]));
    }
}
