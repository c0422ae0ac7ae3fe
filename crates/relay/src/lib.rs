//! Postern's mail daemon: the processes `smtpd`, `proxy` and `queue`, each with rights of its own.
//!
//! A message flows one way: listener → session → receive → checks → verdict → handover → queue → delivery. The
//! modules are in that order. `main.rs` only picks the process.

#![forbid(unsafe_code)]

pub mod config;
pub mod events;
pub mod handover;
pub mod queue;
pub mod spool;
