//! The descriptors a process was started with (`sd_listen_fds(3)`): the named ones are taken, all others closed.

use std::{
    env, fs, io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    os::unix::process::parent_id,
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

/// The first descriptor that a service manager passes (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// The service manager's variables.
pub(crate) const PID: &str = "LISTEN_PID";
pub(crate) const FDS: &str = "LISTEN_FDS";
pub(crate) const NAMES: &str = "LISTEN_FDNAMES";
/// Those of [`crate::child`]: the parent's process id, and `name=number:name=number`.
pub(crate) const PARENT: &str = "POSTERN_LISTEN_PARENT";
pub(crate) const OURS: &str = "POSTERN_LISTEN_FDS";
/// Far more than any unit of ours passes.
const MOST: usize = 64;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// One passed descriptor and its `FileDescriptorName=`.
#[derive(Debug)]
pub struct Inherited {
    /// Its name; `unknown` where the unit gave none.
    pub name: String,
    /// The descriptor, close-on-exec and non-blocking.
    pub fd: OwnedFd,
}

/// Why the passed descriptors could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Called a second time, or too late.
    #[error("listen_fds() belongs at the start of main, once, before any thread: {0}")]
    Late(&'static str),
    /// The announcement in the environment is damaged.
    #[error("{variable}={value}: {wrong}; it is written by the service manager, not by hand")]
    Announcement {
        /// Which variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// An announced descriptor is not open, or could not be made ours.
    #[error("passed descriptor {fd} ({name}): {source}; does the socket unit still match the service unit?")]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Descriptors that nobody announced stayed open.
    #[error("cannot close the descriptors {from} to {to}, which nobody announced: {source}")]
    Close {
        /// The first of them.
        from: RawFd,
        /// The last of them.
        to: RawFd,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Takes the descriptors that the service manager (or [`crate::child`]) passed, removes the announcement from the
/// environment, and closes every other descriptor above standard error.
///
/// Call it first in `main`, once, before anything is opened and any thread is started. Without an announcement for
/// this process the list is empty, and everything above standard error is closed all the same.
pub fn listen_fds() -> Result<Vec<Inherited>, ListenError> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(ListenError::Late("it was called before"));
    }
    if fs::read_dir("/proc/self/task").map_or(0, Iterator::count) != 1 {
        return Err(ListenError::Late(
            "threads are running already, or /proc is not mounted",
        ));
    }
    let announced = announcement();
    for variable in [PID, FDS, NAMES, PARENT, OURS] {
        // SAFETY: changing the environment is sound while no other thread can read it; there is exactly one thread.
        unsafe { env::remove_var(variable) };
    }
    let mut announced = announced?;
    announced.sort_by_key(|(fd, _)| *fd);
    let mut next = FIRST;
    let mut taken = Vec::with_capacity(announced.len());
    for (fd, name) in announced {
        if fd < next {
            let wrong = "announced twice, or one of the standard descriptors".to_owned();
            return Err(ListenError::Announcement {
                variable: FDS,
                value: format!("{name}={fd}"),
                wrong,
            });
        }
        close(next, fd - 1)?;
        taken.push(take(fd, name)?);
        next = fd + 1;
    }
    close(next, RawFd::MAX)?;
    Ok(taken)
}

/// Numbers and names announced for this very process: an announcement inherited from some ancestor is not ours.
fn announcement() -> Result<Vec<(RawFd, String)>, ListenError> {
    if number(PARENT)? == Some(parent_id()) {
        ours()
    } else if number(PID)? == Some(process::id()) {
        systemd()
    } else {
        Ok(Vec::new())
    }
}

fn systemd() -> Result<Vec<(RawFd, String)>, ListenError> {
    let count = number(FDS)?.unwrap_or(0) as usize;
    let value = env::var(NAMES).unwrap_or_default();
    let names: Vec<&str> = if value.is_empty() {
        vec!["unknown"; count.min(MOST)]
    } else {
        value.split(':').collect()
    };
    if count > MOST || names.len() != count {
        let wrong = format!(
            "{FDS}={count} descriptors were announced, and at most {MOST} are taken, each with a name"
        );
        return Err(ListenError::Announcement {
            variable: NAMES,
            value,
            wrong,
        });
    }
    Ok((FIRST..).zip(names.into_iter().map(str::to_owned)).collect())
}

fn ours() -> Result<Vec<(RawFd, String)>, ListenError> {
    let value = env::var(OURS).unwrap_or_default();
    let parts = value.split(':').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.split_once('=')
                .and_then(|(name, fd)| Some((fd.parse().ok()?, name.to_owned())))
        })
        .collect::<Option<Vec<_>>>()
        .filter(|list| list.len() <= MOST)
        .ok_or_else(|| {
            let wrong = format!("not a list of at most {MOST} name=number");
            ListenError::Announcement {
                variable: OURS,
                value: value.clone(),
                wrong,
            }
        })
}

fn number(variable: &'static str) -> Result<Option<u32>, ListenError> {
    let Ok(value) = env::var(variable) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(number) => Ok(Some(number)),
        Err(e) => Err(ListenError::Announcement {
            variable,
            value,
            wrong: e.to_string(),
        }),
    }
}

fn take(raw: RawFd, name: String) -> Result<Inherited, ListenError> {
    // SAFETY: F_GETFD on any number is harmless: a number that is not open answers EBADF.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return Err(ListenError::Descriptor {
            fd: raw,
            name,
            source: io::Error::last_os_error(),
        });
    }
    // SAFETY: it is open (just asked), it was passed to this process by number and so belongs to no value inside
    // it, and TAKEN and the ascending order let each number be taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let set = || -> nix::Result<()> {
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(())
    };
    match set() {
        Ok(()) => Ok(Inherited { name, fd }),
        Err(e) => Err(ListenError::Descriptor {
            fd: raw,
            name,
            source: e.into(),
        }),
    }
}

/// Closes the descriptors `from` to `to`, both included.
fn close(from: RawFd, to: RawFd) -> Result<(), ListenError> {
    if from > to {
        return Ok(());
    }
    // SAFETY: the only thread, at the start of main: every descriptor of this range was inherited without being
    // announced, so no value in this process owns it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, from.cast_unsigned(), to.cast_unsigned(), 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(ListenError::Close {
            from,
            to,
            source: io::Error::last_os_error(),
        })
    }
}
