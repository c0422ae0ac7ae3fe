//! Starting a process with listening sockets in its hands, as a service manager would: for `postern-relay run`.
//!
//! The child finds them with [`crate::listen_fds`]. systemd announces by process id, which a parent cannot know when it
//! writes the child's environment, and by fixed numbers, which the standard library may be using between fork and
//! exec; so this announcement names the parent, and the numbers that the descriptors have already.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{self, Command},
};

use crate::inherited::{FDS, NAMES, OURS, PARENT, PID};

/// Makes `command` start its process with `sockets` under their names, and with a SIGTERM when the *thread* that
/// spawned it ends (so spawn from the main thread).
///
/// Names are letters, digits and hyphens. The command keeps the descriptors open as long as it lives.
pub fn pass_descriptors(command: &mut Command, sockets: Vec<(String, OwnedFd)>) {
    let announced: Vec<String> = sockets
        .iter()
        .map(|(name, fd)| format!("{name}={}", fd.as_raw_fd()))
        .collect();
    for variable in [PID, FDS, NAMES] {
        command.env_remove(variable);
    }
    command
        .env(PARENT, process::id().to_string())
        .env(OURS, announced.join(":"));
    let parent = process::id().cast_signed();
    // SAFETY: between fork and exec the closure makes only async-signal-safe calls (prctl, getppid, fcntl), on
    // descriptors that it owns, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            for (_, fd) in &sockets {
                if libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
