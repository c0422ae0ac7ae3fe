//! The queue process itself, `postern-relay queue` with its sandbox, its spool on a real disk and real sockets.
//!
//! Handovers come from [`postern_relay::handover::Client`]; mail goes to a sink of the test that speaks LMTP or SMTP
//! with TLS. Processes are ended by their own id only.

mod crash;
mod disk;
mod notify;
mod process;
mod sink;
mod tls;
