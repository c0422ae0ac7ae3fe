//! Postern's mail daemon: the processes `smtpd`, `proxy`, `scan` and `queue`, each with rights of its own.
//!
//! A message flows one way: listener → session → receive → checks → verdict → handover → queue → delivery. The
//! modules are in that order. `main.rs` only picks the process.

#![forbid(unsafe_code)]

pub mod checks;
pub mod config;
pub mod deliver;
pub mod dkim;
pub mod dsn;
pub mod durable;
pub mod events;
pub mod handover;
pub mod metrics;
pub mod proxy;
pub mod proxy_header;
pub mod queue;
pub mod rate;
pub mod replay;
pub mod reports;
pub mod reputation;
pub mod resolver;
pub mod run;
pub mod sasl;
pub mod scan;
pub mod service;
pub mod smtpd;
pub mod spool;
pub mod table;
pub mod throttle;
pub mod tls;
pub mod verdict;
