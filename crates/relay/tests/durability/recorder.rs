//! A directory whose operations are written down, held up, made to fail, or cut off as by SIGKILL.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use postern_relay::spool::disk::{Append, Directory, Disk};

use crate::log::{Entry, Log, Note, Op};

/// What shall fail next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Flush,
    /// And what cleans up behind it.
    FlushAndCut,
    /// After half of it.
    Write,
    /// The flush of the directory after a segment was made.
    Create,
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "they do not depend on each other")]
struct State {
    log: Log,
    /// Of all files that have a name.
    names: HashMap<String, usize>,
    files: usize,
    fault: Option<Fault>,
    /// Flushes wait while this is set, so that requests gather into one batch as the workload wants it.
    held: bool,
    waiting: bool,
    /// So many flushes may go through all the same.
    pass: usize,
    /// Operations until the process is killed.
    left: Option<usize>,
    dead: bool,
    /// A flush says that it is done, and does nothing.
    lies: bool,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<(Mutex<State>, Condvar)>);

/// One door to the directory.
struct Recorded {
    recorder: Recorder,
    real: Directory,
}

struct RecordedFile {
    recorder: Recorder,
    file: usize,
    real: Box<dyn Append>,
    length: u64,
}

impl Recorder {
    /// For a directory that holds these files, durably.
    pub(crate) fn on(base: Vec<(String, Arc<Vec<u8>>)>) -> Self {
        let recorder = Self::default();
        let mut state = recorder.state();
        for (number, (name, _)) in base.iter().enumerate() {
            state.names.insert(name.clone(), number);
        }
        state.files = base.len();
        state.log.base = base;
        drop(state);
        recorder
    }

    /// For a new directory on a disk that flushes no segment and says that it has.
    pub(crate) fn lying() -> Self {
        let recorder = Self::default();
        recorder.state().lies = true;
        recorder
    }

    pub(crate) fn disk(&self, directory: &Path) -> Box<dyn Disk> {
        Box::new(Recorded {
            recorder: self.clone(),
            real: Directory::open(directory).unwrap(),
        })
    }

    pub(crate) fn note(&self, note: Note) {
        let mut state = self.state();
        // A dead process learns of nothing.
        if !state.dead || matches!(note, Note::Killed) {
            state.log.entries.push(Entry::Note(note));
        }
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Nothing shall fail any more.
    pub(crate) fn mend(&self) {
        self.state().fault = None;
    }

    pub(crate) fn hold(&self) {
        self.state().held = true;
    }

    pub(crate) fn release(&self) {
        let mut state = self.state();
        (state.held, state.waiting, state.pass) = (false, false, 0);
        self.0.1.notify_all();
    }

    /// Lets the flush through that is being held up; the next one waits.
    pub(crate) fn pass(&self) {
        let mut state = self.state();
        if state.waiting {
            (state.waiting, state.pass) = (false, 1);
            self.0.1.notify_all();
        }
    }

    /// A flush is being held up.
    pub(crate) fn waits(&self) -> bool {
        self.state().waiting
    }

    pub(crate) fn kill_after(&self, operations: usize) {
        self.state().left = Some(operations);
    }

    pub(crate) fn dead(&self) -> bool {
        self.state().dead
    }

    /// The next process may begin.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        (state.dead, state.left, state.fault) = (false, None, None);
    }

    pub(crate) fn take(&self) -> Log {
        std::mem::take(&mut self.state().log)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// Does an operation and writes it down, unless the process is dead or dies of it.
    fn run(&self, op: impl FnOnce(&mut State) -> io::Result<Op>) -> io::Result<()> {
        let mut state = self.state();
        if !state.survives() {
            return Err(killed());
        }
        let op = op(&mut state)?;
        state.log.entries.push(Entry::Op(op));
        Ok(())
    }
}

impl State {
    fn survives(&mut self) -> bool {
        match &mut self.left {
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.dead
    }

    fn fails(&mut self, faults: &[Fault]) -> bool {
        let fails = self.fault.is_some_and(|fault| faults.contains(&fault));
        if fails {
            self.fault = None;
        }
        fails
    }
}

fn killed() -> io::Error {
    io::Error::other("the process was killed")
}

fn broken() -> io::Error {
    io::Error::other("made to fail")
}

impl Disk for Recorded {
    fn create(&mut self, name: &str) -> io::Result<Box<dyn Append>> {
        let (mut made, mut number) = (None, 0);
        self.recorder.run(|state| {
            made = Some(self.real.create(name)?);
            number = state.files;
            state.files += 1;
            state.names.insert(name.into(), number);
            Ok(Op::Create {
                file: number,
                name: name.into(),
            })
        })?;
        Ok(Box::new(RecordedFile {
            recorder: self.recorder.clone(),
            file: number,
            real: made.ok_or_else(killed)?,
            length: 0,
        }))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.recorder.run(|state| {
            if state.fails(&[Fault::Create]) {
                return Err(broken());
            }
            self.real.sync()?;
            Ok(Op::SyncDirectory)
        })
    }

    fn settle(&mut self, name: &str) -> io::Result<()> {
        self.recorder.run(|state| {
            self.real.settle(name)?;
            Ok(Op::Settle {
                file: state.names[name],
            })
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.recorder.run(|state| {
            self.real.remove(name)?;
            state.names.remove(name);
            Ok(Op::Remove { name: name.into() })
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.recorder.run(|state| {
            self.real.rename(from, to)?;
            if let Some(file) = state.names.remove(from) {
                state.names.insert(to.into(), file);
            }
            Ok(Op::Rename {
                from: from.into(),
                to: to.into(),
            })
        })
    }

    fn free(&mut self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl Append for RecordedFile {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        let mut state = self.recorder.state();
        if state.dead {
            return Err(killed());
        }
        // Who is killed or meets a full disk while he writes may have written a part.
        let whole = state.survives() && !state.fails(&[Fault::Write]);
        let octets = if whole {
            octets
        } else {
            &octets[..octets.len() / 2]
        };
        self.real.append(octets)?;
        state.log.entries.push(Entry::Op(Op::Write {
            file: self.file,
            offset: self.length,
            octets: octets.into(),
        }));
        self.length += octets.len() as u64;
        if whole { Ok(()) } else { Err(broken()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.recorder.state();
        while state.held && !state.dead && state.pass == 0 {
            state.waiting = true;
            state = self.recorder.0.1.wait(state).unwrap();
        }
        state.pass = state.pass.saturating_sub(1);
        if state.lies && !state.dead {
            return Ok(());
        }
        drop(state);
        let mut lost = false;
        self.recorder.run(|state| {
            let cut_too = state.fault == Some(Fault::FlushAndCut);
            lost = state.fails(&[Fault::Flush, Fault::FlushAndCut]);
            if lost {
                state.fault = cut_too.then_some(Fault::FlushAndCut);
                return Ok(Op::FailedFlush { file: self.file });
            }
            self.real.flush()?;
            Ok(Op::Flush { file: self.file })
        })?;
        if lost { Err(broken()) } else { Ok(()) }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.recorder.state().fails(&[Fault::FlushAndCut]) {
            return Err(broken());
        }
        self.recorder.run(|_| {
            self.real.cut(length)?;
            Ok(Op::Truncate {
                file: self.file,
                length,
            })
        })?;
        self.length = length;
        self.recorder.run(|_| Ok(Op::Flush { file: self.file }))
    }
}
