//! A run of the spool: messages of all sizes in batches, outcomes of all kinds, compaction, disks that fail, processes
//! that are killed and started again. The same seed makes the same operations: one batch is let through at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use postern_relay::queue::provenance::Provenance;
use postern_relay::queue::store::Store;
use postern_relay::spool::recovery::LiveMessage;
use postern_relay::spool::writer::Options;
use tokio::runtime::Builder;

use crate::ledger::{self, Ledger};
use crate::log::{Log, Note};
use crate::process::Process;
use crate::recorder::Recorder;

/// Small, so that segments close, empty and go within a short run.
const OPTIONS: Options = Options {
    segment_octets: 12 << 10,
    reserve_octets: 0,
    outcomes_wait: Duration::ZERO,
};

/// Where the recorded files lie; what they cost does not matter.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
    }
}

/// Three processes one after the other on a new spool; the first two are killed.
pub(crate) fn record(seed: u64) -> Log {
    record_of(&Recorder::default(), seed, false)
}

/// The same on a disk whose flushes do nothing.
pub(crate) fn record_unflushed(seed: u64) -> Log {
    record_of(&Recorder::lying(), seed, false)
}

/// The same with mail that is held for its scan.
pub(crate) fn record_holding(seed: u64) -> Log {
    record_of(&Recorder::default(), seed, true)
}

fn record_of(recorder: &Recorder, seed: u64, holds: bool) -> Log {
    let directory = scratch();
    let mut rng = Rng::with_seed(seed);
    let ledger = Ledger::default();
    for last in [false, false, true] {
        if !last {
            recorder.kill_after(rng.usize(30..120));
        }
        let steps = if last { 16 } else { 40 };
        let run = Run {
            steps,
            killed: !last,
            holds,
        };
        live(recorder, directory.path(), &mut rng, &ledger, run);
        recorder.revive();
    }
    recorder.take()
}

/// A process on a new spool that compacts while a batch has begun in one segment and goes on in the next. `protects`: with
/// what keeps the first of them.
pub(crate) fn record_roll_over(seed: u64, protects: bool) -> Log {
    let directory = scratch();
    let recorder = Recorder::default();
    let runtime = runtime();
    let opened = Store::open_on(
        directory.path(),
        recorder.disk(directory.path()),
        recorder.disk(directory.path()),
        OPTIONS,
        LiveMessage::new,
    );
    let (store, writer, _) = opened.unwrap();
    let process = Process::new(recorder.clone(), store, Rng::with_seed(seed), false);
    let mut process = if protects { process } else { process.unprotected() };
    runtime.block_on(process.roll_over());
    drop((process, runtime));
    writer.join().unwrap();
    recorder.take()
}

fn runtime() -> tokio::runtime::Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        // One: what is read in parallel would be appended in any order.
        .max_blocking_threads(1)
        .build()
        .unwrap()
}

/// A process that starts on what a power cut left in `directory`, where `ledger` was promised.
pub(crate) fn record_on(
    directory: &Path,
    base: Vec<(String, Arc<Vec<u8>>)>,
    ledger: &Ledger,
    rng: &mut Rng,
) -> Log {
    let recorder = Recorder::on(base);
    let run = Run {
        steps: 5,
        killed: false,
        holds: true,
    };
    live(&recorder, directory, rng, ledger, run);
    recorder.take()
}

/// One process of it.
#[derive(Clone, Copy)]
struct Run {
    steps: usize,
    killed: bool,
    holds: bool,
}

fn live(recorder: &Recorder, directory: &Path, rng: &mut Rng, ledger: &Ledger, run: Run) {
    let runtime = runtime();
    // Ids are made of milliseconds, and no process starts as soon after another as here.
    std::thread::sleep(Duration::from_millis(2));
    let opened = Store::open_on(
        directory,
        recorder.disk(directory),
        recorder.disk(directory),
        OPTIONS,
        LiveMessage::new,
    );
    let Ok((store, writer, recovered)) = opened else {
        assert!(recorder.dead(), "the spool does not open");
        return recorder.note(Note::Killed);
    };
    let mut process = Process::new(recorder.clone(), store, rng.fork(), run.killed).holding(run.holds);
    for (id, live) in &recovered.messages {
        // A notification that nobody had learned of when its process was killed.
        if !ledger.knows(*id) && live.message.provenance == Provenance::Own {
            let (message, body) = ledger::read(&recovered, live).unwrap();
            process.offer(*id, message, body);
        }
        process.insert(*id, live.location, live.message.clone());
    }
    runtime.block_on(async {
        // As the queue's manager does when it starts.
        process.compact().await;
        if recovered.segments.is_empty() {
            process.roll_over().await;
        }
        for _ in 0..run.steps {
            if recorder.dead() {
                break;
            }
            process.step().await;
        }
    });
    if recorder.dead() {
        recorder.note(Note::Killed);
    }
    drop(process);
    drop(runtime);
    writer.join().unwrap();
}
