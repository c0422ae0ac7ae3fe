//! Why a process's walls could not be put up. Each text says what, where, and how to mend it.

use std::{io, path::PathBuf};

use crate::landlock::MINIMUM_ABI;

/// A wall that could not be put up. The process must end: it has not lost its rights.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Filters bind to a thread and its children; a thread that already runs would keep its rights.
    #[error(
        "the sandbox must be entered before any thread is started, but {threads} threads run: call enforce() before the tokio runtime is built"
    )]
    Threads {
        /// Threads found in `/proc/self/task`.
        threads: usize,
    },
    /// `/proc` is needed to count threads.
    #[error(
        "cannot count this process's threads in /proc/self/task: {0}; mount /proc for this process (ProcSubset=pid is enough)"
    )]
    Proc(#[source] io::Error),
    /// A `prctl` that every kernel we support has.
    #[error("prctl {operation} failed: {source}")]
    Prctl {
        /// The option that failed.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Capabilities stayed.
    #[error("cannot drop the {set} capabilities: {reason}; start the process as an ordinary user")]
    Capabilities {
        /// The capability set.
        set: &'static str,
        /// The kernel's answer.
        reason: String,
    },
    /// A path of the policy is not there.
    #[error(
        "cannot open {path} to allow it in the sandbox: {reason}; it must exist, and be readable by this user, before the process starts"
    )]
    Path {
        /// The path of the policy.
        path: PathBuf,
        /// Why it could not be opened.
        reason: String,
    },
    /// Landlock is missing, switched off, or too old.
    #[error("Landlock refused the policy: {reason}; Linux 6.7 or newer with Landlock (ABI {min}) in its `lsm=` list is needed", min = MINIMUM_ABI)]
    Landlock {
        /// What the kernel or the crate answered.
        reason: String,
    },
    /// The system call filter could not be compiled or installed.
    #[error(
        "the system call filter {filter} could not be installed: {reason}; the kernel needs CONFIG_SECCOMP_FILTER"
    )]
    Seccomp {
        /// Which of the filters.
        filter: &'static str,
        /// What the kernel or the compiler answered.
        reason: String,
    },
}
