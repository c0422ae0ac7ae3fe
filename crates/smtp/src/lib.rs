//! Sans-I/O SMTP: commands, replies, state machines and the DATA/BDAT receiver.
//!
//! What enters is octets, what leaves is typed steps; sockets, clocks, resolvers and policy belong to the caller.
//! The governing text is RFC 5321; each module names the sections and the extensions that it implements.
//!
//! - [`server::Session`] and [`client::Session`] are the two state machines (SMTP, and LMTP as a client);
//! - [`data`] and [`bdat`] receive message content strictly: only CRLF ends a line, only CRLF.CRLF ends DATA;
//! - [`replies`] holds every text that a peer may read, each with its enhanced status code;
//! - [`trace`] builds the header fields that RFC 5321 section 4.4 asks of a relay.
#![forbid(unsafe_code)]

pub mod address;
pub mod bdat;
pub mod client;
pub mod command;
pub mod content;
pub mod data;
pub mod dsn;
pub mod parameters;
pub mod replies;
pub mod reply;
pub mod server;
pub mod trace;
