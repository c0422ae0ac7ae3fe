//! One policy for each process, and the order in which its walls go up.

use std::{fmt, fs, io, path::PathBuf, process};

use nix::sys::prctl;

use crate::{
    SandboxError, capabilities, landlock,
    landlock::Reach,
    seccomp,
    syscalls::{self, Group},
};

/// What one process may still do after [`Policy::enforce`].
#[derive(Debug)]
pub struct Policy {
    process: &'static str,
    groups: Vec<&'static Group>,
    reach: Reach,
}

/// What stands: for the event that a process writes at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Process name of the policy.
    pub process: &'static str,
    /// Landlock ABI in force, 4 or more.
    pub landlock_abi: i32,
    /// Whether the capability bounding set is empty too (an ordinary user cannot empty it, and need not).
    pub bounding_set_empty: bool,
    /// System calls the filter knows, with and without conditions.
    pub system_calls: usize,
}

impl Policy {
    /// `smtpd`: accepts on listening sockets it was given, talks to local sockets and the resolver. No files.
    pub fn smtpd() -> Self {
        Self::new(
            "smtpd",
            &[
                &syscalls::RUNTIME,
                &syscalls::THREADS,
                &syscalls::SOCKETS,
                &syscalls::ACCEPT,
                &syscalls::MEMFD,
            ],
        )
    }

    /// `proxy`: accepts on its local socket, connects to the internal node, reads messages in sealed memory. No files.
    pub fn proxy() -> Self {
        Self::new(
            "proxy",
            &[
                &syscalls::RUNTIME,
                &syscalls::THREADS,
                &syscalls::SOCKETS,
                &syscalls::ACCEPT,
                &syscalls::SEALED,
            ],
        )
    }

    /// `queue`: owns the spool and the DKIM keys below `directories`, connects to destinations.
    pub fn queue<P: Into<PathBuf>>(directories: impl IntoIterator<Item = P>) -> Self {
        let mut policy = Self::new(
            "queue",
            &[
                &syscalls::RUNTIME,
                &syscalls::THREADS,
                &syscalls::SOCKETS,
                &syscalls::ACCEPT,
                &syscalls::MEMFD,
                &syscalls::FILES,
            ],
        );
        policy.reach.directories = directories.into_iter().map(Into::into).collect();
        policy
    }

    /// `scan`: starts workers and reads what becomes of them. No files, no network; its workers have still less, see
    /// [`crate::worker`].
    pub fn scan() -> Self {
        Self::new(
            "scan",
            &[&syscalls::RUNTIME, &syscalls::WORK, &syscalls::SUPERVISE],
        )
    }

    /// Also allows TCP connections to `port` (on any address: addresses are the packet filter's).
    #[must_use]
    pub fn connect_tcp(mut self, port: u16) -> Self {
        self.reach.connect_tcp.push(port);
        self
    }

    /// Also allows TCP sockets to be bound to an address with a port that the system chooses. Nothing can be accepted on them:
    /// `listen` is in no policy.
    #[must_use]
    pub fn bind_addresses(mut self) -> Self {
        self.reach.bind_addresses = true;
        self
    }

    fn new(process: &'static str, groups: &[&'static Group]) -> Self {
        Self {
            process,
            groups: groups.to_vec(),
            reach: Reach::default(),
        }
    }

    /// Puts the walls up, for ever, for this thread and all it will start.
    ///
    /// Order: single thread, no core dumps, `no_new_privs`, capabilities, Landlock, seccomp. Read configuration,
    /// keys and credentials before; build the tokio runtime after. On an error, some walls may stand already: end the process.
    pub fn enforce(self) -> Result<Report, SandboxError> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(SandboxError::Proc)?
            .count();
        if threads != 1 {
            return Err(SandboxError::Threads { threads });
        }
        // The process holds keys: no core file, and no ptrace by another process of the same user.
        prctl::set_dumpable(false).map_err(|e| failed("PR_SET_DUMPABLE", e))?;
        prctl::set_no_new_privs().map_err(|e| failed("PR_SET_NO_NEW_PRIVS", e))?;
        let bounding_set_empty = capabilities::drop_all()?;
        let landlock_abi = landlock::restrict(&self.reach)?;
        let system_calls = seccomp::install(&self.groups, process::id())?;
        Ok(Report {
            process: self.process,
            landlock_abi,
            bounding_set_empty,
            system_calls,
        })
    }
}

fn failed(operation: &'static str, e: nix::Error) -> SandboxError {
    SandboxError::Prctl {
        operation,
        source: io::Error::from(e),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounding = if self.bounding_set_empty {
            "empty"
        } else {
            "unreachable"
        };
        write!(
            f,
            "{}: no_new_privs, no capabilities (bounding set {bounding}), Landlock ABI {}, {} system calls",
            self.process, self.landlock_abi, self.system_calls
        )
    }
}
