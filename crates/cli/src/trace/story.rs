//! Events, put together as stories: one for each message, one for each attempt that came to nothing, one for each
//! connection that did not even try.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Result;
use postern_control::{Event, EventKind};

/// What happened to one message, or to one attempt at one, on one node.
pub(super) struct Story {
    node: String,
    /// The queue's; absent where nothing was queued.
    pub(super) id: Option<String>,
    events: Vec<Event>,
}

impl Story {
    pub(super) fn began(&self) -> &str {
        self.events.first().map_or("", |event| event.time.as_str())
    }

    pub(super) fn ended(&self) -> &str {
        self.events.last().map_or("", |event| event.time.as_str())
    }

    /// What tells it from others: one connection may have several refused messages.
    pub(super) fn key(&self) -> [String; 5] {
        let trace = self.events.first().and_then(|event| event.trace.clone());
        [
            self.node.clone(),
            self.id.clone().unwrap_or_default(),
            trace.unwrap_or_default(),
            self.began().to_owned(),
            self.ended().to_owned(),
        ]
    }

    /// Whether it is of a connection that had nothing queued and nothing refused.
    pub(super) fn is_silent(&self) -> bool {
        self.id.is_none() && !self.events.iter().any(is_refusal)
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id) || self.events.iter().any(|event| event.trace.as_deref() == Some(id))
    }

    pub(super) fn has_peer(&self, address: IpAddr) -> bool {
        self.events.iter().any(|event| match &event.kind {
            EventKind::Connected { peer, .. }
            | EventKind::OnBehalf { peer, .. }
            | EventKind::AuthenticationFailed { peer, .. } => peer.parse() == Ok(address),
            _ => false,
        })
    }

    pub(super) fn has_sender(&self, wanted: &str) -> bool {
        self.events.iter().any(|event| match &event.kind {
            EventKind::Queued { from, .. } | EventKind::Refused { from: Some(from), .. } => {
                fits(from, wanted)
            }
            _ => false,
        })
    }

    pub(super) fn has_recipient(&self, wanted: &str) -> bool {
        self.events.iter().any(|event| match &event.kind {
            EventKind::Queued { to, .. } | EventKind::Refused { to, .. } => {
                to.iter().any(|recipient| fits(recipient, wanted))
            }
            EventKind::Attempt { recipient, .. } => fits(recipient, wanted),
            _ => false,
        })
    }

    /// Ids under which it goes on: at the next hop, and as a notification.
    pub(super) fn leads_to(&self) -> Vec<String> {
        let next = |reply: &str| {
            let (_, id) = reply.rsplit_once("queued as ")?;
            let id: String = id.chars().take_while(char::is_ascii_alphanumeric).collect();
            (!id.is_empty()).then_some(id)
        };
        self.events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Delivered { reply, .. } => next(reply),
                EventKind::Dsn { dsn, .. } => Some(dsn.clone()),
                _ => None,
            })
            .collect()
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> Result<String> {
        let line = serde_json::to_string(&serde_json::json!({
            "node": self.node,
            "id": self.id,
            "events": self.events,
        }))?;
        // JSON escapes the others itself.
        Ok(harmless(&line))
    }

    /// Aligned text.
    pub(super) fn text(&self) -> String {
        let what = self
            .id
            .as_ref()
            .map_or("not queued".to_owned(), |id| format!("message {id}"));
        let node = if self.node.is_empty() { "" } else { " on " };
        let mut text = harmless(&format!("{what}{node}{}, {}", self.node, self.began()));
        for event in &self.events {
            let clock = event.time.get(11..23).unwrap_or(&event.time);
            let line = format!("  {clock}  {:<13}  {}", event.process, event.kind);
            text.extend(["\n", &harmless(&line)]);
        }
        text + "\n\n"
    }
}

/// Without characters that a terminal would obey: a node that was taken over writes its journal as it likes.
pub(crate) fn harmless(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Whether an address is the wanted one, or in the wanted `@domain`; `<>` is the null reverse-path.
fn fits(address: &str, wanted: &str) -> bool {
    let (address, wanted) = (address.to_lowercase(), wanted.to_lowercase());
    if wanted.starts_with('@') {
        address.ends_with(&wanted)
    } else {
        address == wanted || (wanted == "<>" && address.is_empty())
    }
}

/// A connection that is not over.
#[derive(Default)]
struct Connection {
    /// Peer, TLS, login: they belong to all its messages.
    opening: Vec<Event>,
    /// What belongs to the message that is coming.
    pending: Vec<Event>,
    /// Whether a story was told of it.
    told: bool,
}

impl Connection {
    fn take(&mut self) -> Vec<Event> {
        self.told = true;
        let mut events = self.opening.clone();
        events.append(&mut self.pending);
        events
    }

    /// Whether there is something that no story has told. What is known by its end alone began before the journal.
    fn is_untold(&self) -> bool {
        let began = |event: &Event| matches!(event.kind, EventKind::Connected { .. });
        self.pending.iter().any(is_refusal)
            || (self.opening.iter().any(began) && (!self.told || !self.pending.is_empty()))
    }
}

/// The stories of one node that are not over. They end when the queue is done with the message, or the client has gone.
pub(super) struct Stories {
    node: String,
    connections: HashMap<String, Connection>,
    messages: HashMap<String, Vec<Event>>,
}

impl Stories {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            connections: HashMap::new(),
            messages: HashMap::new(),
        }
    }

    /// Adds the next event; `take` gets what it ends.
    pub(super) fn add(&mut self, event: Event, take: &mut impl FnMut(Story)) {
        match (event.id.clone(), event.trace.clone()) {
            (Some(id), trace) => {
                // What smtpd tells of a message in the hold comes when its connection may be at the next one.
                let queued = matches!(event.kind, EventKind::Queued { .. });
                let told_by_smtpd = queued && event.process.starts_with("smtpd");
                let events = self.messages.entry(id.clone()).or_default();
                if told_by_smtpd
                    && let Some(connection) = trace.and_then(|trace| self.connections.get_mut(&trace))
                {
                    // The queue may have told first; the connection's part comes before all.
                    events.splice(0..0, connection.take());
                }
                let over = matches!(event.kind, EventKind::Removed);
                events.push(event);
                if over && let Some(events) = self.messages.remove(&id) {
                    take(self.story(Some(id), events));
                }
            }
            (None, Some(trace)) => self.add_to_connection(&trace, event, take),
            (None, None) => {}
        }
    }

    fn add_to_connection(&mut self, trace: &str, event: Event, take: &mut impl FnMut(Story)) {
        let connection = self.connections.entry(trace.to_owned()).or_default();
        match &event.kind {
            EventKind::Connected { .. }
            | EventKind::Tls { .. }
            | EventKind::OnBehalf { .. }
            | EventKind::Authenticated { .. } => {
                connection.opening.push(event);
            }
            EventKind::Refused { stage, .. } if stage == "message" => {
                connection.pending.push(event);
                let events = connection.take();
                take(self.story(None, events));
            }
            EventKind::Disconnected { .. } => {
                let untold = connection.is_untold();
                connection.pending.push(event);
                let events = connection.take();
                self.connections.remove(trace);
                if untold {
                    take(self.story(None, events));
                }
            }
            _ => connection.pending.push(event),
        }
    }

    /// The journal is over; what goes on is told as far as it is known.
    pub(super) fn end(mut self, take: &mut impl FnMut(Story)) {
        for (id, events) in std::mem::take(&mut self.messages) {
            take(self.story(Some(id), events));
        }
        for (_, mut connection) in std::mem::take(&mut self.connections) {
            if connection.is_untold() {
                take(self.story(None, connection.take()));
            }
        }
    }

    fn story(&self, id: Option<String>, events: Vec<Event>) -> Story {
        Story {
            node: self.node.clone(),
            id,
            events,
        }
    }
}

fn is_refusal(event: &Event) -> bool {
    matches!(event.kind, EventKind::Refused { .. })
}
