//! Workers that may be lost: forks of one supervising process, each with fewer rights than that one and nothing of its own.
//!
//! What enters: the work, as a closure. What leaves: how each worker ended. A worker that crashes, takes too much memory or
//! too long ends alone; the supervisor, which reads nothing from anybody, starts the next. No program is executed:
//! a worker is the same program with the same memory, and so the walls of the supervisor stand around it from its first instruction.

use std::{
    fmt, io,
    os::fd::AsRawFd,
    os::unix::process::parent_id,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SigHandler, SigSet, Signal, signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, alarm, fork},
};

use crate::{Policy, Report, SandboxError, seccomp, seqpacket, syscalls};

/// Exit status of a worker that could not put its own filter up; no next one could.
const UNWALLED: i32 = 71;
/// Exit status of a worker that panicked, as Rust's own.
const PANICKED: i32 = 101;

/// The process that starts workers.
#[derive(Debug)]
pub struct Supervisor {
    signals: SignalFd,
    report: Report,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its process id.
    pub pid: i32,
    /// Why.
    pub reason: Reason,
}

/// Why a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It exited with this status.
    Exit(i32),
    /// Its time was up.
    OutOfTime,
    /// Another signal: a crash, the kernel's or somebody's kill.
    Signal(i32),
}

impl Reason {
    /// Whether the worker could not put its own filter up.
    pub fn is_unwalled(self) -> bool {
        self == Self::Exit(UNWALLED)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(PANICKED) => f.write_str("it panicked"),
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::OutOfTime => f.write_str("its time was up"),
            Self::Signal(signal) => match Signal::try_from(*signal) {
                Ok(name) => write!(f, "{name}"),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// What a supervisor waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Happened {
    /// These workers ended.
    Ended(Vec<End>),
    /// SIGTERM or SIGINT came.
    Stop,
    /// Nothing, for as long as it was asked to wait.
    Nothing,
}

impl Supervisor {
    /// Puts the walls up for this process and its workers, each of which may map at most `memory` octets.
    pub fn enforce(policy: Policy, memory: u64) -> Result<Self, SandboxError> {
        let failed = |operation| {
            move |errno: Errno| SandboxError::Prctl {
                operation,
                source: errno.into(),
            }
        };
        setrlimit(Resource::RLIMIT_AS, memory, memory).map_err(failed("RLIMIT_AS"))?;
        let mask = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
        mask.thread_block().map_err(failed("sigprocmask"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(failed("signalfd"))?;
        Ok(Self {
            report: policy.enforce()?,
            signals,
        })
    }

    /// What stands.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Starts a worker, which does `work` behind a filter of its own, ends with it, and dies when this process does. Returns
    /// its process id.
    pub fn start(&self, work: impl FnOnce()) -> io::Result<i32> {
        let supervisor = process::id();
        // SAFETY: this process has one thread: `enforce` counted, and the filter that it put up allows no clone that is
        // a thread. So the child may do all that its parent may.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(child.as_raw()),
            ForkResult::Child => {
                let status = match self.become_worker(supervisor) {
                    Ok(()) => catch_unwind(AssertUnwindSafe(work)).map_or(PANICKED, |()| 0),
                    Err(error) => {
                        eprintln!("a worker's walls do not stand: {error}");
                        UNWALLED
                    }
                };
                process::exit(status)
            }
        }
    }

    fn become_worker(&self, supervisor: u32) -> Result<(), SandboxError> {
        let failed = |operation| {
            move |errno: Errno| SandboxError::Prctl {
                operation,
                source: errno.into(),
            }
        };
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("PR_SET_PDEATHSIG"))?;
        if parent_id() != supervisor {
            return Err(failed("PR_SET_PDEATHSIG")(Errno::ESRCH));
        }
        // SAFETY: plain system call on a descriptor that this process owns and, as it never returns from `start`, uses
        // no more.
        unsafe { libc::close(self.signals.as_raw_fd()) };
        // SAFETY: the default action is no function of ours.
        unsafe { signal(Signal::SIGALRM, SigHandler::SigDfl) }.map_err(failed("sigaction"))?;
        SigSet::empty().thread_set_mask().map_err(failed("sigprocmask"))?;
        seccomp::narrow(&[&syscalls::WORK], process::id())?;
        Ok(())
    }

    /// Waits for the end of a worker or for the request to stop, at most so long.
    pub fn wait(&self, at_most: Duration) -> io::Result<Happened> {
        match seqpacket::readable(&self.signals, at_most) {
            Ok(false) => return Ok(Happened::Nothing),
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Happened::Nothing),
            Err(error) => return Err(error),
        }
        while let Some(signal) = self.signals.read_signal()? {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return Ok(Happened::Stop);
            }
        }
        let mut ended = Vec::new();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => ended.push(End {
                    pid: pid.as_raw(),
                    reason: Reason::Exit(status),
                }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => ended.push(End {
                    pid: pid.as_raw(),
                    reason: match signal {
                        Signal::SIGALRM => Reason::OutOfTime,
                        other => Reason::Signal(other as i32),
                    },
                }),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(Happened::Ended(ended)),
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// From now on this worker has `seconds` (1 or more) left; it dies when they are over.
pub fn time_left(seconds: u32) {
    alarm::set(seconds.max(1));
}

/// This worker has all the time it wants again.
pub fn time_free() {
    alarm::cancel();
}
