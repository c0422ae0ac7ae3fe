//! The queue process itself, `postern-relay queue` with its sandbox, its spool on a real disk and real sockets.
//!
//! Handovers come from [`postern_relay::handover::Client`]; mail goes to a sink of the test that speaks LMTP or SMTP
//! with TLS. Processes are ended by their own id only.

#![allow(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

mod command;
mod crash;
mod dane;
mod destination;
mod disk;
mod drain;
mod hold;
mod hosts;
mod killed;
mod mta_sts;
mod names;
mod node;
mod notify;
mod operator;
mod order;
mod outward;
mod peers;
mod postfix;
mod process;
mod published;
mod reports;
mod require_tls;
mod sessions;
mod sink;
mod smarthost;
mod sources;
mod tls;
mod tls_reports;
