//! The walls around a Postern process: Landlock, seccomp, capabilities, descriptor passing and descriptor hygiene.
//!
//! What enters: a [`Policy`] made by a process's `main`, while it is still single-threaded. What leaves: a process
//! that holds what the policy names and nothing else, or an error. There is no weaker filter in debug builds, in
//! tests or on older kernels: what cannot be installed stops the process.
//!
//! Beside it stand the few things that the walls force on the processes behind them, and which need either `unsafe`
//! or care with descriptors: taking over the descriptors that a service manager passed ([`listen_fds`]), local
//! packet sockets ([`packet`] on tokio, [`seqpacket`] without), one descriptor inside a packet ([`fd`]), messages in sealed memory ([`memfd`]), and
//! starting the same walls without a service manager ([`child`]), and workers that may be lost ([`worker`]).
//!
//! This is the only crate of the workspace that may use `unsafe`; each block says why it is sound.
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod capabilities;
pub mod child;
mod error;
pub mod fd;
mod inherited;
mod landlock;
pub mod memfd;
pub mod packet;
mod policy;
mod seccomp;
pub mod seqpacket;
mod syscalls;
pub mod worker;

pub use error::SandboxError;
pub use inherited::{Inherited, ListenError, listen_fds};
pub use policy::{Policy, Report};
