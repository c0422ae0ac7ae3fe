//! What the console knows of the node. Sources fill it, pages show it; every text in it is safe to show.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::text::Text;

/// Events kept for scrolling back.
pub(crate) const EVENTS_KEPT: usize = 1000;

/// A value with its age, or why there is none.
#[derive(Debug, Clone)]
pub(crate) enum Seen<T> {
    /// The source has not answered yet.
    Waiting,
    /// It answered.
    Known(T, Instant),
    /// It could not: why.
    Unknown(Text),
}

impl<T> Seen<T> {
    /// The value, if there is one.
    pub(crate) fn value(&self) -> Option<&T> {
        match self {
            Self::Known(value, _) => Some(value),
            _ => None,
        }
    }
}

/// Everything shown.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) host: Seen<Host>,
    pub(crate) services: Seen<Services>,
    pub(crate) queue: Seen<Queue>,
    /// Newest last.
    pub(crate) events: VecDeque<Event>,
    /// Why no events come, where none do.
    pub(crate) events_fault: Option<Text>,
}

/// What a source has to tell.
#[derive(Debug)]
pub(crate) enum Update {
    Host(Result<Host, Text>),
    Services(Result<Services, Text>),
    Queue(Result<Queue, Text>),
    Event(Event),
    /// The journal is read anew: what was seen will come again.
    EventsAgain,
    EventsFault(Text),
}

/// The node itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    pub(crate) node: Option<Text>,
    pub(crate) role: Option<Text>,
    /// What it calls itself in SMTP.
    pub(crate) mail_name: Option<Text>,
    pub(crate) version: Option<Text>,
    pub(crate) uptime: Duration,
    pub(crate) links: Vec<Link>,
}

/// A network link and its addresses.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) name: Text,
    pub(crate) up: bool,
    pub(crate) addresses: Vec<Text>,
}

/// The units of the product.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    pub(crate) units: Vec<Unit>,
    /// Last journal lines of the failed units that keep the node from working at all.
    pub(crate) blocking: Vec<Failure>,
}

/// A unit's state in the service manager's words.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) id: Text,
    pub(crate) description: Text,
    pub(crate) active: Text,
    pub(crate) sub: Text,
    pub(crate) result: Text,
    pub(crate) restarts: u64,
}

/// A failed unit and what it said last.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) unit: Text,
    pub(crate) result: Text,
    pub(crate) said: Vec<Text>,
}

/// Whether packets may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firewall {
    /// The site's rules are loaded.
    Loaded,
    /// Everything is dropped: the site's rules are not loaded.
    Closed,
    /// Neither is known to stand.
    Unknown,
}

/// What the queue process says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    pub(crate) role: Text,
    pub(crate) messages: u64,
    pub(crate) recipients_due: u64,
    pub(crate) oldest: Duration,
    pub(crate) spool_octets: u64,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) truncated: bool,
    pub(crate) dkim: Vec<Record>,
}

/// A message in the queue, for each recipient that is not done.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) id: Text,
    pub(crate) from: Text,
    pub(crate) to: Text,
    pub(crate) attempts: u32,
    pub(crate) next: Text,
    pub(crate) last_reply: Text,
}

/// A DNS record to publish.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) name: Text,
    pub(crate) value: Text,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Seconds since 1970.
    pub(crate) seconds: u64,
    /// syslog priority, 0 (emergency) to 7.
    pub(crate) priority: u8,
    pub(crate) source: Text,
    pub(crate) text: Text,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            host: Seen::Waiting,
            services: Seen::Waiting,
            queue: Seen::Waiting,
            events: VecDeque::new(),
            events_fault: None,
        }
    }

    /// Takes in what a source told at `now`.
    pub(crate) fn take(&mut self, update: Update, now: Instant) {
        match update {
            Update::Host(result) => self.host = seen(result, now),
            Update::Services(result) => self.services = seen(result, now),
            Update::Queue(result) => self.queue = seen(result, now),
            Update::EventsFault(fault) => self.events_fault = Some(fault),
            Update::EventsAgain => self.events.clear(),
            Update::Event(event) => {
                self.events_fault = None;
                if self.events.len() == EVENTS_KEPT {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
        }
    }

    /// Whether packets may pass, as far as the service manager tells.
    pub(crate) fn firewall(&self) -> Firewall {
        let active = |id| {
            self.services
                .value()
                .is_some_and(|s| s.units.iter().any(|u| u.id.as_str() == id && u.is_active()))
        };
        match (
            active("postern-firewall.service"),
            active("postern-closed.service"),
        ) {
            (true, _) => Firewall::Loaded,
            (false, true) => Firewall::Closed,
            (false, false) => Firewall::Unknown,
        }
    }
}

impl Unit {
    pub(crate) fn is_active(&self) -> bool {
        self.active.as_str() == "active"
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.active.as_str() == "failed"
    }
}

fn seen<T>(result: Result<T, Text>, now: Instant) -> Seen<T> {
    match result {
        Ok(value) => Seen::Known(value, now),
        Err(why) => Seen::Unknown(why),
    }
}
