//! The wire contract between Postern's programs: what the mail processes report ([`Event`]) and what the
//! queue process answers on its control socket ([`Request`], [`Reply`]).
//!
//! Everything here is data: no I/O, no clock. An event is one line on standard output,
//! `event {"event":"…","time":"…","process":"…",…}`; a request is one line of JSON on the control socket and
//! gets one line of JSON back.
#![forbid(unsafe_code)]

mod event;
mod request;

pub use event::{Event, EventKind, LINE_PREFIX, LineError};
pub use request::{
    Change, Details, DkimRecord, DnsFinding, Filter, MAX_IDS, NotChanged, QueueStatus, QueuedHold,
    QueuedMessage, QueuedRecipient, Reply, Request,
};
