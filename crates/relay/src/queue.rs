//! The queue process: owns the spool, routes, signs, delivers, and tells who must be told when mail fails.
//!
//! [`main`] is a checklist: sockets, keys and credentials, the spool's lock, sandbox, recovery, runtime, serve. A
//! message comes in by [`intake`], waits in the [`schedule`] that the [`manager`] owns, and is tried by a [`job`].

pub mod bounce;
pub mod change;
pub mod compaction;
pub mod config;
pub mod control;
pub mod damage;
pub mod entry;
pub mod fair;
pub mod figures;
pub mod fresh;
pub mod health;
pub mod hold;
pub mod intake;
pub mod job;
pub mod mail;
pub mod manager;
pub mod notice;
pub mod outward;
pub mod page;
pub mod priority;
pub mod provenance;
pub mod published;
pub mod reasons;
pub mod rebuild;
pub mod report;
pub mod reports;
pub mod router;
pub mod schedule;
pub mod snapshots;
pub mod store;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use postern_control::{DkimRecord, EventKind};
use postern_sandbox::{Inherited, Policy};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::{Config, Role};
use crate::deliver::hop;
use crate::deliver::source::{self, Sources};
use crate::dkim::{Signers, keys};
use crate::events::Events;
use crate::handover::Listener;
use crate::service;
use crate::spool::recovery::Recovered;
use bounce::Identity;
use config::{LmtpSocket, NextHop};
use control::Control;
use figures::Figures;
use intake::Intake;
use job::Worker;
use manager::{Command, Manager};
use provenance::Provenance;
use published::Published;
use reports::desk::Desk;
use router::Router;
use schedule::{Entry, Schedule};
use snapshots::Snapshots;
use store::Store;

/// Name of the control socket's descriptor.
pub const CONTROL: &str = "control";
/// When the process stops, what was handed over is taken within this time.
const LAST_INTAKE: Duration = Duration::from_secs(5);
/// What the names of handover sockets' descriptors begin with.
pub const HANDOVER: &str = "handover-";

/// The sockets that were passed.
struct Sockets {
    handover: Vec<(Provenance, OwnedFd)>,
    control: Option<OwnedFd>,
}

/// Everything read before the sandbox stands.
struct Prepared {
    config: Config,
    hops: std::collections::BTreeMap<String, hop::Hop>,
    mta_sts: outward::Policies,
    observed: reports::Observed,
    sources: Sources,
    signers: Option<Signers>,
    records: Vec<DkimRecord>,
    snapshots: Snapshots,
    sockets: Sockets,
    /// The user as which the process runs.
    own_user: u32,
    router: Router,
    /// It knows the destinations of what was recovered.
    schedule: Schedule,
    /// Held until the process ends.
    _lock: File,
}

/// The process.
pub fn main(config: Config, passed: Vec<Inherited>) -> anyhow::Result<()> {
    let sockets = sockets(passed)?;
    let events = Events::stdout("queue");
    let spool = config.state_directory.join("spool");
    let lock = lock_spool(&spool)?;
    let (signers, records) = signers(&config, &events)?;
    let hops = hop::prepare(&config)?;
    let mta_sts = outward::mta_sts(&config, &events)?;
    let observed = reports::open(&config, &events)?;
    let snapshots = Snapshots::open(&config.snapshots_directory(), events.clone())?;
    let sources = source::prepare(&config)?;
    let own_user = nix::unistd::geteuid().as_raw();
    // It waits more than it computes, and signs elsewhere: a second thread on a small machine costs more in waking it for each
    // step of a message than it carries.
    let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 2));
    let report = policy(&config, &spool)
        .enforce()
        .context("the sandbox does not stand")?;
    // After the sandbox: the writer is a thread, and threads inherit its filters only from here on.
    let begun = Instant::now();
    let router = Router::new(&config);
    let mut schedule = Manager::empty_schedule(&config.queue);
    let (store, writer, recovered) = Store::open_as(&spool, |location, message| {
        Entry::from(rebuild::routed(&mut schedule, &router, location, message))
    })?;
    tell_recovery(&events, &recovered, begun.elapsed());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        // Reading and signing; more threads would only stand in each other's way, and the unit bounds tasks.
        .max_blocking_threads(32)
        .enable_all()
        .build()?;
    events.gather(runtime.handle());
    let prepared = Prepared {
        config,
        hops,
        mta_sts,
        observed,
        sources,
        signers,
        records,
        snapshots,
        sockets,
        own_user,
        router,
        schedule,
        _lock: lock,
    };
    let result = runtime.block_on(serve(prepared, store, recovered, events, &report.to_string()));
    // The tasks hold the store; when they are gone the writer's thread ends after its last flush.
    runtime.shutdown_timeout(Duration::from_secs(5));
    if writer.join().is_err() {
        bail!("the spool's writer ended by a fault; the journal says more");
    }
    result
}

fn sockets(passed: Vec<Inherited>) -> anyhow::Result<Sockets> {
    let mut sockets = Sockets {
        handover: Vec::new(),
        control: None,
    };
    for Inherited { name, fd, .. } in passed {
        if name == CONTROL {
            sockets.control = Some(fd);
            continue;
        }
        let provenance = name.strip_prefix(HANDOVER).and_then(Provenance::of_instance).with_context(|| {
            format!("a socket named {name:?} was passed; set FileDescriptorName= in its unit to control, handover-public, handover-inside, handover-dmz or handover-submission")
        })?;
        sockets.handover.push((provenance, fd));
    }
    if sockets.handover.is_empty() {
        bail!(
            "no handover socket was passed; start the queue by its socket units, or use `postern-relay run`"
        );
    }
    Ok(sockets)
}

/// Two processes that append to one spool would destroy it.
fn lock_spool(spool: &Path) -> anyhow::Result<File> {
    let whose = "state-directory must be on a disk that the queue's user may write to";
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(spool)
        .with_context(|| format!("cannot make the spool {}; {whose}", spool.display()))?;
    if let Some(parent) = spool.parent() {
        // The spool's own name must survive a power cut, too; the process that made it may have been killed before this.
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("cannot flush {}; {whose}", parent.display()))?;
    }
    let path = spool.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}; {whose}", path.display()))?;
    lock.try_lock().with_context(|| {
        format!(
            "the spool {} is in use; stop the other queue process first",
            spool.display()
        )
    })?;
    Ok(lock)
}

fn signers(config: &Config, events: &Events) -> anyhow::Result<(Option<Signers>, Vec<DkimRecord>)> {
    let Some(dkim) = &config.dkim else {
        return Ok((None, Vec::new()));
    };
    let pairs = keys::load_or_make(dkim, &config.state_directory.join(&dkim.directory))?;
    let mut records = Vec::new();
    for pair in &pairs {
        let (name, value) = pair.record(&dkim.selector)?;
        let kind = EventKind::DkimKey {
            domain: pair.domain.clone(),
            selector: pair.selector.name(&dkim.selector),
            record_name: name.clone(),
            record_value: value.clone(),
        };
        events.emit(None, None, kind);
        records.push(DkimRecord { name, value });
    }
    Ok((Some(Signers::new(dkim, pairs)?), records))
}

/// Files: the spool, snapshots, kept policies, and what is collected for reports. TCP: the resolver's port, those of next hops, and that
/// of policies.
fn policy(config: &Config, spool: &Path) -> Policy {
    let hops = config.next_hop.values().filter_map(|hop| match hop {
        NextHop::Smtp(smtp) => Some(smtp.port),
        NextHop::Mx { port, .. } => Some(*port),
        NextHop::Lmtp {
            socket: LmtpSocket::Tcp(address),
        } => Some(address.port()),
        NextHop::Lmtp {
            socket: LmtpSocket::Unix(_),
        } => None,
    });
    let mta_sts = config.mta_sts.as_ref();
    let ports: BTreeSet<u16> = hops
        .chain([config.resolver.address.port()])
        .chain(mta_sts.map(|settings| settings.port))
        .collect();
    let kept = mta_sts.map(|settings| config.state_directory.join(&settings.directory));
    let observed = config.reports.as_ref();
    let observed = observed.map(|settings| config.state_directory.join(&settings.directory));
    let directories = [spool.to_owned(), config.snapshots_directory()];
    let directories = directories.into_iter().chain(kept).chain(observed);
    let policy = ports
        .into_iter()
        .fold(Policy::queue(directories), Policy::connect_tcp);
    if config.source_pool.is_empty() {
        policy
    } else {
        policy.bind_addresses()
    }
}

fn tell_recovery(events: &Events, recovered: &Recovered<Entry>, took: Duration) {
    for (segment, damage) in &recovered.damage {
        let kind = EventKind::SpoolDamage {
            segment: recovered
                .segments
                .get(segment)
                .map_or(String::new(), |file| file.path.display().to_string()),
            offset: damage.offset,
            length: damage.length,
            kind: if damage.tail { "torn-tail" } else { "corrupt" }.into(),
            detail: damage.detail.clone(),
        };
        events.emit(None, None, kind);
    }
    let kind = EventKind::SpoolRecovered {
        segments: recovered.segments.len() as u64,
        indexed: recovered.indexed,
        messages: recovered.messages.len() as u64,
        octets: recovered.sizes.values().sum(),
        millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    events.emit(None, None, kind);
}

async fn serve(
    prepared: Prepared,
    store: Store,
    recovered: Recovered<Entry>,
    events: Events,
    sandbox: &str,
) -> anyhow::Result<()> {
    let mut stop = service::stop_signal()?;
    let Prepared {
        config,
        hops,
        mta_sts,
        observed,
        sources,
        signers,
        records,
        snapshots,
        sockets,
        own_user,
        router,
        schedule,
        _lock,
    } = prepared;
    let snapshots = Arc::new(snapshots);
    let figures = Arc::new(Figures::new(events.meter().clone()));
    let worker = Arc::new(Worker {
        store: Arc::new(store),
        router,
        hops,
        courier: outward::courier(&config, mta_sts, sources, observed.tls.clone()),
        signers,
        queue: config.queue.clone(),
        identity: Identity::of(&config),
        events: events.clone(),
        unreadable: damage::Unreadable::default(),
        hold: hold::Holding::new(config.hybrid.clone().unwrap_or_default(), config.scan_timeout()),
    });
    let (mut manager, door) = Manager::new(worker.clone(), schedule);
    // What is damaged, too: whoever sent it is to be told, should the disk not give it back after all.
    manager.recovered(recovered.all_messages());
    let mut manager = tokio::spawn(manager.run());
    let mut listeners = JoinSet::new();
    let desk = Desk::new(&config, worker.clone(), door.clone());
    let reports = desk.map_or_else(reports::Sent::default, |desk| {
        reports::Sent::start(observed, &desk, &mut listeners)
    });
    let published = Published::new(&config, &records)?;
    if let Some(published) = &published {
        tokio::spawn(published.clone().watch(events.clone()));
    }
    let (stop_taking, taking) = watch::channel(false);
    let mut intakes = JoinSet::new();
    for (provenance, socket) in sockets.handover {
        let intake = Intake {
            provenance,
            worker: worker.clone(),
            manager: door.clone(),
            figures: figures.clone(),
            snapshots: snapshots.clone(),
            max_octets: config.limits.max_message_size + (1 << 20),
            postmaster: config.postmaster.clone(),
            reports: reports.dmarc.clone(),
        };
        intakes.spawn(Arc::new(intake).serve(Listener::new(socket)?, taking.clone()));
    }
    if let Some(socket) = sockets.control {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        let role = match config.role {
            Role::Gateway => "gateway",
            Role::Internal => "internal",
        };
        let control = Control {
            node: config.hostname,
            role,
            records,
            figures,
            worker: worker.clone(),
            manager: door.clone(),
            own_user,
            published,
            bounds: control::Bounds::default(),
        };
        listeners.spawn(Arc::new(control).serve(UnixListener::from_std(listener)?));
    }
    service::ready(&format!("serving; {sandbox}"));
    events.started();
    // Without the manager nothing is delivered, without the writer nothing taken: then the process ends, and is
    // started again.
    let fault = tokio::select! {
        () = stop.wait() => None,
        _ = &mut manager => Some("the queue's manager ended by a fault"),
        () = worker.store.closed() => Some("the spool's writer ended by a fault"),
        Some(_) = intakes.join_next() => Some("a listener ended by a fault"),
        Some(_) = listeners.join_next() => Some("a listener ended by a fault"),
    };
    if let Some(fault) = fault {
        bail!("{fault}; the journal says more");
    }
    let _ = stop_taking.send(true);
    drain(intakes, listeners, &door, &events).await;
    reports.write().await;
    manager.await.context("the queue's manager ended by a fault")
}

/// Takes what was handed over, then lets the deliveries under way end.
async fn drain(
    mut intakes: JoinSet<()>,
    mut listeners: JoinSet<()>,
    manager: &mpsc::UnboundedSender<Command>,
    events: &Events,
) {
    service::stopping();
    let taken = tokio::time::timeout(LAST_INTAKE, async {
        while intakes.join_next().await.is_some() {}
    });
    if taken.await.is_err() {
        events.warn("a handover was broken off; smtpd has told its client to try again");
    }
    listeners.shutdown().await;
    let (done, drained) = oneshot::channel();
    let _ = manager.send(Command::Drain(done));
    // Whoever reads this finds that nothing new is begun.
    events.emit(
        None,
        None,
        EventKind::Stopping {
            reason: "asked to".into(),
        },
    );
    if let Ok(left @ 1..) = drained.await {
        events.warn(format!(
            "{left} deliveries were under way and are tried again at the next start"
        ));
    }
}
