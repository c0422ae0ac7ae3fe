//! Reports to those who ask for them, once in a period: [`dmarc`], and [`tls`] on the sessions of our own deliveries.
//!
//! Enters: observations. Leaves: one report for each domain and period, to the addresses that the domain publishes at that time. What
//! both kinds share is here: what is collected and kept ([`kept`]), when reports are due, and how they are sent ([`desk`]).

pub mod desk;
pub mod dmarc;
pub mod kept;
mod message;
pub mod tls;

use std::future::Future;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::events::{Events, rfc3339_millis, unix_millis};
use desk::Desk;
use dmarc::Aggregate;
use kept::{Content, Due, Kept};
use tls::Tls;

/// Addresses of one record that get its report (RFC 7489 section 6.2 asks for two at least).
const ADDRESSES: usize = 4;
/// How often what was collected is written, and what is due is looked for.
const TICK: Duration = Duration::from_mins(1);

/// A kind of reports.
pub trait Kind: Send + Sync + 'static {
    /// What is collected for them.
    type Content: Content;
    /// What they are called.
    const NAME: &'static str;
    /// Makes and sends one, and says so.
    fn report(
        &self,
        desk: &Desk,
        kept: &Kept<Self::Content>,
        due: &Due<Self::Content>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a report is not sent now.
#[derive(Debug)]
pub enum Failure {
    /// It may be later.
    Later(String),
    /// Nobody is to get it.
    Never(String),
}

/// Collects and sends reports of one kind.
pub struct Reports<K: Kind> {
    kept: Kept<K::Content>,
    kind: K,
    desk: Arc<Desk>,
}

/// Those that are sent.
#[derive(Default)]
pub struct Sent {
    /// On what smtpd sees.
    pub dmarc: Option<Arc<Reports<Aggregate>>>,
    tls: Option<Arc<Reports<Tls>>>,
}

impl Sent {
    /// Sends what was observed, and what will be, until `tasks` end.
    pub fn start(observed: Observed, desk: &Arc<Desk>, tasks: &mut JoinSet<()>) -> Self {
        let sent = Self {
            dmarc: Reports::new(observed.dmarc, Aggregate, desk),
            tls: Reports::new(observed.tls, Tls, desk),
        };
        if let Some(reports) = &sent.dmarc {
            tasks.spawn(reports.clone().run());
        }
        if let Some(reports) = &sent.tls {
            tasks.spawn(reports.clone().run());
        }
        sent
    }

    /// Makes what was collected durable.
    pub async fn write(&self) {
        if let Some(reports) = &self.dmarc {
            reports.write().await;
        }
        if let Some(reports) = &self.tls {
            reports.write().await;
        }
    }
}

/// What was collected before; absent where such reports are not sent.
#[derive(Default)]
pub struct Observed {
    /// By smtpd.
    pub dmarc: Option<dmarc::Collected>,
    /// By deliveries.
    pub tls: Option<tls::Collected>,
}

/// What was collected before; makes the directory for it, so it belongs before the sandbox.
pub fn open(config: &Config, events: &Events) -> anyhow::Result<Observed> {
    let Some(settings) = &config.reports else {
        return Ok(Observed::default());
    };
    let directory = config.state_directory.join(&settings.directory);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .with_context(|| {
            format!(
                "cannot make {}; state-directory must be on a disk that the queue's user may write to",
                directory.display()
            )
        })?;
    let lost = |damage: Option<kept::KeptError>| {
        if let Some(damage) = damage {
            events.warn(format!("what was collected for reports is lost: {damage}"));
        }
    };
    let mut observed = Observed::default();
    if settings.dmarc {
        let (kept, damage) = Kept::open(&directory, settings.interval);
        lost(damage);
        observed.dmarc = Some(kept);
    }
    if settings.tls {
        let (kept, damage) = Kept::open(&directory, settings.interval);
        lost(damage);
        observed.tls = Some(kept);
    }
    Ok(observed)
}

impl<K: Kind> Reports<K> {
    /// Sends what `kept` holds when it is due; `None` where such reports are not sent.
    pub fn new(kept: Option<Kept<K::Content>>, kind: K, desk: &Arc<Desk>) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            kept: kept?,
            kind,
            desk: desk.clone(),
        }))
    }

    /// Until the process ends. What is collected is written before anything is sent, and a report counts as sent before it
    /// is: a crash costs a report, and never makes a second one.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK.min(Duration::from_secs(self.kept.interval())));
        loop {
            tick.tick().await;
            let due = self.kept.take_due(now());
            self.tell_dropped();
            self.write().await;
            for due in due {
                let domain = due.domain.clone();
                let reason = match self.kind.report(&self.desk, &self.kept, &due).await {
                    Ok(()) => continue,
                    Err(Failure::Later(_)) if self.kept.put_back(due, now()) => continue,
                    Err(Failure::Later(reason) | Failure::Never(reason)) => reason,
                };
                self.desk.tell(K::NAME, &domain, Vec::new(), Some(reason));
            }
        }
    }

    /// Says what is missing in the reports of periods that are over.
    fn tell_dropped(&self) {
        for (begin, dropped) in self.kept.take_dropped(now()) {
            let begin = rfc3339_millis(begin.saturating_mul(1000));
            self.desk.worker.events.warn(format!(
                "{} reports of the period from {begin} leave out what found no room in them (observations about a domain): {dropped}",
                K::NAME
            ));
        }
    }

    /// Makes what was collected durable.
    pub async fn write(&self) {
        let kept = self.kept.clone();
        let written = tokio::task::spawn_blocking(move || kept.write()).await;
        let written = written.map_err(|error| error.to_string());
        if let Err(error) = written.and_then(|written| written.map_err(|error| error.to_string())) {
            self.desk.worker.events.warn(format!(
                "what is collected for {} reports is not durable: {error}",
                K::NAME
            ));
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    unix_millis(SystemTime::now()) / 1000
}
