//! The system calls of each process, as data: groups, each with the reason it is there.
//!
//! An allow-list: what is not named answers EPERM. EPERM and not a kill, because libc and the standard library try
//! things that may fail (glibc's allocator reads `/proc/sys/vm/overcommit_memory`, the thread count reads cgroup files) and go on,
//! and because a stranger must not be able to end a mail daemon by steering it into a rare path. [`TRIPWIRE`] names the calls
//! that no honest path makes: those end the process at once.
//!
//! Several conditions close holes that Landlock's network rules leave; each is marked *Landlock*.

use libc::c_long;

/// One condition on one argument of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arg {
    /// Position of the argument, from 0.
    pub(crate) index: u8,
    /// What must hold.
    pub(crate) test: Test,
}

/// Tests on the low 32 bits of an argument: all arguments tested here are C ints or flag words below 2^32.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Test {
    /// Equal.
    Is(libc::c_int),
    /// The masked bits equal the value.
    Bits(libc::c_int, libc::c_int),
    /// Equal to this process's id.
    OwnPid,
}

/// One call, allowed where all conditions hold. A call may stand in a table several times: any one will do.
#[derive(Debug)]
pub(crate) struct Call(pub(crate) c_long, pub(crate) &'static [Arg]);

/// Calls that stand or fall together.
#[derive(Debug)]
pub(crate) struct Group {
    /// Why a process that has the group cannot do without it.
    #[allow(dead_code, reason = "the reason is for the reader, and the tests demand one")]
    pub(crate) reason: &'static str,
    /// The calls.
    pub(crate) calls: &'static [Call],
}

const fn is(index: u8, value: libc::c_int) -> Arg {
    Arg {
        index,
        test: Test::Is(value),
    }
}

const fn bits(index: u8, mask: libc::c_int, value: libc::c_int) -> Arg {
    Arg {
        index,
        test: Test::Bits(mask, value),
    }
}

const fn any(number: c_long) -> Call {
    Call(number, &[])
}

/// The type argument of `socket` carries flags above its low four bits.
const TYPE: libc::c_int = 0xf;

/// ioctl(2) numbers of the generic table, as C ints (libc has them as longs).
const FIONBIO: libc::c_int = 0x5421;
const FIOCLEX: libc::c_int = 0x5451;

/// What any tokio program does while it runs.
pub(crate) static RUNTIME: Group = Group {
    reason: "memory, clocks, randomness, signals, descriptors already held, and the event loop of a tokio program",
    calls: &[
        any(libc::SYS_read),
        any(libc::SYS_write),
        any(libc::SYS_readv),
        any(libc::SYS_writev),
        any(libc::SYS_close),
        any(libc::SYS_lseek),
        // Memory is never executable once the filter stands: no just-in-time code, no libraries loaded late.
        Call(libc::SYS_mmap, &[bits(2, libc::PROT_EXEC, 0)]),
        Call(libc::SYS_mprotect, &[bits(2, libc::PROT_EXEC, 0)]),
        any(libc::SYS_munmap),
        any(libc::SYS_mremap),
        any(libc::SYS_madvise),
        any(libc::SYS_brk),
        any(libc::SYS_futex),
        any(libc::SYS_clock_gettime),
        any(libc::SYS_clock_getres),
        any(libc::SYS_clock_nanosleep),
        any(libc::SYS_nanosleep),
        any(libc::SYS_gettimeofday),
        any(libc::SYS_getrandom),
        any(libc::SYS_getpid),
        any(libc::SYS_gettid),
        any(libc::SYS_rt_sigaction),
        any(libc::SYS_rt_sigprocmask),
        any(libc::SYS_rt_sigreturn),
        any(libc::SYS_sigaltstack),
        any(libc::SYS_restart_syscall),
        // abort() after a panic: a signal to ourselves, and to nobody else.
        Call(
            libc::SYS_tgkill,
            &[Arg {
                index: 0,
                test: Test::OwnPid,
            }],
        ),
        any(libc::SYS_exit),
        any(libc::SYS_exit_group),
        any(libc::SYS_epoll_create1),
        any(libc::SYS_epoll_ctl),
        any(libc::SYS_epoll_pwait),
        any(libc::SYS_epoll_pwait2),
        any(libc::SYS_ppoll),
        any(libc::SYS_eventfd2),
        Call(libc::SYS_fcntl, &[is(1, libc::F_GETFD)]),
        Call(libc::SYS_fcntl, &[is(1, libc::F_SETFD)]),
        Call(libc::SYS_fcntl, &[is(1, libc::F_GETFL)]),
        Call(libc::SYS_fcntl, &[is(1, libc::F_SETFL)]),
        Call(libc::SYS_fcntl, &[is(1, libc::F_DUPFD_CLOEXEC)]),
        Call(libc::SYS_ioctl, &[is(1, FIONBIO)]),
        Call(libc::SYS_ioctl, &[is(1, FIOCLEX)]),
        // Reading our own limits (stack size of new threads), not setting any.
        Call(libc::SYS_prlimit64, &[is(0, 0), is(2, 0)]),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_epoll_wait),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_poll),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_time),
    ],
};

/// Threads, but no processes.
pub(crate) static THREADS: Group = Group {
    reason: "tokio starts worker threads after the filter stands; a clone that is not a thread is a process, and refused",
    calls: &[
        Call(
            libc::SYS_clone,
            &[bits(
                0,
                libc::CLONE_THREAD | libc::CLONE_VM,
                libc::CLONE_THREAD | libc::CLONE_VM,
            )],
        ),
        any(libc::SYS_set_robust_list),
        any(libc::SYS_rseq),
        any(libc::SYS_sched_yield),
        any(libc::SYS_sched_getaffinity),
        Call(libc::SYS_prctl, &[is(0, libc::PR_SET_NAME)]),
    ],
};

/// Sockets of three families and two protocols.
pub(crate) static SOCKETS: Group = Group {
    reason: "TCP to mail peers and the resolver, UDP to the resolver, unix sockets to scanners, queue, proxy and the service manager",
    calls: &[
        Call(libc::SYS_socket, &[is(0, libc::AF_UNIX)]),
        // *Landlock*: its port rules see TCP only. MPTCP, SCTP, SMC and raw sockets would walk past them.
        Call(
            libc::SYS_socket,
            &[is(0, libc::AF_INET), bits(1, TYPE, libc::SOCK_STREAM), is(2, 0)],
        ),
        Call(
            libc::SYS_socket,
            &[
                is(0, libc::AF_INET),
                bits(1, TYPE, libc::SOCK_STREAM),
                is(2, libc::IPPROTO_TCP),
            ],
        ),
        Call(
            libc::SYS_socket,
            &[is(0, libc::AF_INET), bits(1, TYPE, libc::SOCK_DGRAM), is(2, 0)],
        ),
        Call(
            libc::SYS_socket,
            &[
                is(0, libc::AF_INET),
                bits(1, TYPE, libc::SOCK_DGRAM),
                is(2, libc::IPPROTO_UDP),
            ],
        ),
        Call(
            libc::SYS_socket,
            &[is(0, libc::AF_INET6), bits(1, TYPE, libc::SOCK_STREAM), is(2, 0)],
        ),
        Call(
            libc::SYS_socket,
            &[
                is(0, libc::AF_INET6),
                bits(1, TYPE, libc::SOCK_STREAM),
                is(2, libc::IPPROTO_TCP),
            ],
        ),
        Call(
            libc::SYS_socket,
            &[is(0, libc::AF_INET6), bits(1, TYPE, libc::SOCK_DGRAM), is(2, 0)],
        ),
        Call(
            libc::SYS_socket,
            &[
                is(0, libc::AF_INET6),
                bits(1, TYPE, libc::SOCK_DGRAM),
                is(2, libc::IPPROTO_UDP),
            ],
        ),
        // tokio's signal driver wakes itself through a pair.
        Call(libc::SYS_socketpair, &[is(0, libc::AF_UNIX)]),
        any(libc::SYS_connect),
        // The resolver client binds its UDP socket to a random port; Landlock refuses any TCP bind, but for the queue's to one of the
        // source addresses that the site names.
        any(libc::SYS_bind),
        any(libc::SYS_recvfrom),
        any(libc::SYS_recvmsg),
        // *Landlock*: data with MSG_FASTOPEN connects without asking it.
        Call(libc::SYS_sendto, &[bits(3, libc::MSG_FASTOPEN, 0)]),
        Call(libc::SYS_sendmsg, &[bits(2, libc::MSG_FASTOPEN, 0)]),
        any(libc::SYS_shutdown),
        any(libc::SYS_getsockopt),
        any(libc::SYS_setsockopt),
        any(libc::SYS_getsockname),
        any(libc::SYS_getpeername),
    ],
};

/// Accepting, without listening.
pub(crate) static ACCEPT: Group = Group {
    reason: "listening sockets are handed over before the filter stands; listen() is missing on purpose: on an unbound \
             TCP socket it takes a port that Landlock never sees",
    calls: &[any(libc::SYS_accept4)],
};

/// Messages in sealed memory.
pub(crate) static MEMFD: Group = Group {
    reason: "a message crosses from smtpd to queue as one sealed memory file",
    calls: &[
        any(libc::SYS_memfd_create),
        any(libc::SYS_pread64),
        any(libc::SYS_ftruncate),
        Call(libc::SYS_fcntl, &[is(1, libc::F_GET_SEALS)]),
        Call(libc::SYS_fcntl, &[is(1, libc::F_ADD_SEALS)]),
    ],
};

/// Sealed memory of others.
pub(crate) static SEALED: Group = Group {
    reason: "a submission crosses from smtpd to proxy as one sealed memory file, which proxy only reads",
    calls: &[
        any(libc::SYS_pread64),
        Call(libc::SYS_fcntl, &[is(1, libc::F_GET_SEALS)]),
    ],
};

/// Files below the directories that Landlock allows.
pub(crate) static FILES: Group = Group {
    reason: "the queue's spool and DKIM keys: Landlock says where, this says how",
    calls: &[
        any(libc::SYS_openat),
        any(libc::SYS_statx),
        any(libc::SYS_newfstatat),
        any(libc::SYS_fstat),
        any(libc::SYS_getdents64),
        any(libc::SYS_pread64),
        any(libc::SYS_pwrite64),
        any(libc::SYS_pwritev),
        any(libc::SYS_ftruncate),
        any(libc::SYS_fallocate),
        any(libc::SYS_fsync),
        any(libc::SYS_fdatasync),
        any(libc::SYS_copy_file_range),
        any(libc::SYS_sendfile),
        any(libc::SYS_renameat),
        any(libc::SYS_renameat2),
        any(libc::SYS_linkat),
        any(libc::SYS_unlinkat),
        any(libc::SYS_mkdirat),
        any(libc::SYS_fchmod),
        any(libc::SYS_flock),
        any(libc::SYS_fstatfs),
        any(libc::SYS_umask),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_open),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_stat),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_lstat),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_rename),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_link),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_unlink),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_mkdir),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_rmdir),
    ],
};

/// What a worker of `scan` does, and all it does: one thread, no sockets but those it accepts.
pub(crate) static WORK: Group = Group {
    reason: "one packet in, a message in memory looked at, one packet out; a timer that ends the worker when it takes too long",
    calls: &[
        any(libc::SYS_accept4),
        any(libc::SYS_recvmsg),
        Call(libc::SYS_sendmsg, &[bits(2, libc::MSG_FASTOPEN, 0)]),
        any(libc::SYS_ppoll),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_poll),
        // The seals and the length of a message's memory.
        Call(libc::SYS_fcntl, &[is(1, libc::F_GET_SEALS)]),
        Call(libc::SYS_fcntl, &[is(1, libc::F_DUPFD_CLOEXEC)]),
        any(libc::SYS_lseek),
        any(libc::SYS_close),
        Call(libc::SYS_mmap, &[bits(2, libc::PROT_EXEC, 0)]),
        Call(libc::SYS_mprotect, &[bits(2, libc::PROT_EXEC, 0)]),
        any(libc::SYS_munmap),
        any(libc::SYS_mremap),
        any(libc::SYS_madvise),
        any(libc::SYS_brk),
        any(libc::SYS_futex),
        // Seeds of hash tables.
        any(libc::SYS_getrandom),
        any(libc::SYS_clock_gettime),
        any(libc::SYS_setitimer),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_alarm),
        // A panic's last words, and its end.
        any(libc::SYS_write),
        any(libc::SYS_getpid),
        any(libc::SYS_gettid),
        any(libc::SYS_rt_sigaction),
        any(libc::SYS_rt_sigprocmask),
        any(libc::SYS_rt_sigreturn),
        any(libc::SYS_sigaltstack),
        any(libc::SYS_restart_syscall),
        Call(
            libc::SYS_tgkill,
            &[Arg {
                index: 0,
                test: Test::OwnPid,
            }],
        ),
        any(libc::SYS_exit),
        any(libc::SYS_exit_group),
    ],
};

/// Any of these makes of a fork a thread or a namespace.
const NOT_A_FORK: libc::c_int = libc::CLONE_VM
    | libc::CLONE_THREAD
    | libc::CLONE_PARENT
    | libc::CLONE_PTRACE
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Forks of itself, and no threads.
pub(crate) static SUPERVISE: Group = Group {
    reason: "the process that starts workers again which a message has ended; it reads nothing from anybody",
    calls: &[
        Call(libc::SYS_clone, &[bits(0, NOT_A_FORK, 0)]),
        any(libc::SYS_wait4),
        any(libc::SYS_getppid),
        any(libc::SYS_set_robust_list),
        any(libc::SYS_rseq),
        // Of a new worker: to die with its parent, and to install its own filter, which can only be narrower.
        Call(libc::SYS_prctl, &[is(0, libc::PR_SET_PDEATHSIG)]),
        Call(libc::SYS_prctl, &[is(0, libc::PR_SET_NO_NEW_PRIVS)]),
        any(libc::SYS_seccomp),
        // The worker's own id is not known yet; its filter puts it in.
        Call(libc::SYS_tgkill, &[is(2, libc::SIGABRT)]),
        // The service manager's socket; there is no other to connect.
        Call(
            libc::SYS_socket,
            &[is(0, libc::AF_UNIX), bits(1, TYPE, libc::SOCK_DGRAM)],
        ),
        any(libc::SYS_connect),
        Call(libc::SYS_sendto, &[bits(3, libc::MSG_FASTOPEN, 0)]),
    ],
};

/// Calls that end the process.
pub(crate) static TRIPWIRE: Group = Group {
    reason: "nothing in libc, std or our code makes these calls: whoever does has taken the process over",
    calls: &[
        any(libc::SYS_execve),
        any(libc::SYS_execveat),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_fork),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_vfork),
        any(libc::SYS_ptrace),
        any(libc::SYS_process_vm_readv),
        any(libc::SYS_process_vm_writev),
        any(libc::SYS_pidfd_getfd),
        any(libc::SYS_bpf),
        any(libc::SYS_perf_event_open),
        any(libc::SYS_userfaultfd),
        any(libc::SYS_io_uring_setup),
        any(libc::SYS_io_uring_enter),
        any(libc::SYS_io_uring_register),
        any(libc::SYS_unshare),
        any(libc::SYS_setns),
        any(libc::SYS_chroot),
        any(libc::SYS_pivot_root),
        any(libc::SYS_mount),
        any(libc::SYS_umount2),
        any(libc::SYS_open_tree),
        any(libc::SYS_move_mount),
        any(libc::SYS_fsopen),
        any(libc::SYS_fsmount),
        any(libc::SYS_open_by_handle_at),
        any(libc::SYS_init_module),
        any(libc::SYS_finit_module),
        any(libc::SYS_delete_module),
        any(libc::SYS_kexec_load),
        any(libc::SYS_reboot),
        any(libc::SYS_add_key),
        any(libc::SYS_request_key),
        any(libc::SYS_keyctl),
        any(libc::SYS_personality),
        any(libc::SYS_setuid),
        any(libc::SYS_setgid),
        any(libc::SYS_setresuid),
        any(libc::SYS_setresgid),
        any(libc::SYS_capset),
    ],
};

/// Every group a policy is made of.
#[cfg(test)]
pub(crate) static GROUPS: [&Group; 10] = [
    &RUNTIME, &THREADS, &SOCKETS, &ACCEPT, &MEMFD, &SEALED, &FILES, &WORK, &SUPERVISE, &TRIPWIRE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_says_why() {
        for group in GROUPS {
            assert!(group.reason.len() > 20, "{group:?}");
        }
    }

    #[test]
    fn no_group_allows_what_the_tripwire_kills() {
        for group in &GROUPS[..9] {
            for Call(number, _) in group.calls {
                assert!(
                    !TRIPWIRE.calls.iter().any(|c| c.0 == *number),
                    "system call {number}"
                );
            }
        }
    }

    #[test]
    fn no_group_allows_listen() {
        assert!(
            GROUPS
                .iter()
                .all(|g| g.calls.iter().all(|c| c.0 != libc::SYS_listen))
        );
    }
}
