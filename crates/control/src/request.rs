//! Requests and replies of the control socket. [`Request::QueueChange`] changes something; all others only read.

use serde::{Deserialize, Serialize};

/// What a client may ask, one JSON object per line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who this node is and how its queue stands.
    Status,
    /// The node's figures.
    Metrics,
    /// Messages in the queue, oldest first, a page at a time.
    QueueList {
        /// Only messages that it fits.
        #[serde(default, skip_serializing_if = "Filter::is_empty")]
        filter: Filter,
        /// Only messages behind this id: `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// Messages on the page; the queue may give fewer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// One message, in detail.
    QueueShow {
        /// Its id.
        id: String,
    },
    /// Changes what becomes of messages. Only the queue's own user and root may ask for it.
    QueueChange {
        /// What is to be done.
        change: Change,
        /// With which messages; at most [`MAX_IDS`].
        ids: Vec<String>,
        /// Why, for the event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The DNS records that publish this node's DKIM keys.
    DkimRecords,
    /// Whether the site's domains publish what its mail is judged by; the DNS is asked anew.
    DnsCheck,
}

/// Messages in one [`Request::QueueChange`] at most.
pub const MAX_IDS: usize = 1000;

impl Request {
    /// The whole queue, as much of it as one page takes.
    pub fn list_all() -> Self {
        Self::QueueList {
            filter: Filter::default(),
            after: None,
            limit: None,
        }
    }

    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        matches!(self, Self::QueueChange { .. })
    }
}

/// Which messages: those that fit every condition given. Letter case is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A recipient that is not yet done is at this domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The reverse-path is this mailbox; empty for notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// A recipient that is not yet done is this mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// It is held, or is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// It is in quarantine, or is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<bool>,
}

impl Filter {
    /// Every message fits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Not to be tried until it is released, over a restart too.
    Hold,
    /// No longer held.
    Release,
    /// The same, though it was found to be bad when it was scanned.
    ReleaseBad,
    /// To be tried now, not when its time comes.
    Retry,
    /// Given up for the recipients that are not yet done; nobody is told.
    Cancel,
    /// Given up, and whoever a failure is told is told.
    Bounce,
}

/// What the queue process answers, one JSON object per line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Answer to [`Request::Status`].
    Status {
        /// The node's host name.
        node: String,
        /// `gateway` or `internal`.
        role: String,
        /// Version of the program.
        version: String,
        /// How the queue stands.
        queue: QueueStatus,
    },
    /// Answer to [`Request::Metrics`].
    Metrics {
        /// The `OpenMetrics` 1.0 text.
        text: String,
    },
    /// Answer to [`Request::QueueList`].
    QueueList {
        /// Oldest first.
        messages: Vec<QueuedMessage>,
        /// There are more.
        truncated: bool,
        /// What `after` is to be on the next page; absent on the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// Answer to [`Request::QueueShow`].
    QueueShow {
        /// The message.
        message: QueuedMessage,
        /// What a list does not show of it.
        details: Details,
    },
    /// Answer to [`Request::QueueChange`].
    QueueChanged {
        /// Ids of messages with which it was done; on stable storage, but for retry.
        done: Vec<String>,
        /// The others.
        failed: Vec<NotChanged>,
    },
    /// Answer to [`Request::DkimRecords`].
    DkimRecords {
        /// One for each key.
        records: Vec<DkimRecord>,
    },
    /// Answer to [`Request::DnsCheck`].
    DnsCheck {
        /// Domains that were looked at.
        domains: u64,
        /// What is wrong; empty where all is well.
        findings: Vec<DnsFinding>,
    },
    /// The request could not be answered.
    Error {
        /// Why.
        text: String,
    },
}

/// The queue in figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Messages that are not yet done.
    pub messages: u64,
    /// Recipients that are not yet done.
    pub recipients_due: u64,
    /// Age of the oldest message in seconds; 0 where the queue is empty.
    pub oldest_age_seconds: u64,
    /// Size of the spool on disk in octets.
    pub spool_octets: u64,
}

/// A message in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedMessage {
    /// The id in `queued as <id>`.
    pub id: String,
    /// Arrival, RFC 3339 UTC.
    pub arrived: String,
    /// Through which socket the message came: `public`, `inside`, `dmz`, or `own` for our notifications.
    pub provenance: String,
    /// Reverse-path; empty for notifications.
    pub from: String,
    /// Size in octets.
    pub size: u64,
    /// Not tried until it is released.
    #[serde(default)]
    pub held: bool,
    /// Why, where it is held for its scan or in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<QueuedHold>,
    /// Those not yet done.
    pub recipients: Vec<QueuedRecipient>,
}

/// How a message stands that was taken before the scanners had answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum QueuedHold {
    /// It is to be scanned.
    Unscanned {
        /// Why it has not been, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// In quarantine: no scanner has answered in time, or to the end.
    Expired {
        /// Why not, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// In quarantine: it was found to be bad.
    Bad {
        /// What was found.
        reason: String,
    },
}

/// What is known of a message besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Trace id of the connection by which it came.
    pub trace: String,
    /// Address of the client; empty for our notifications.
    pub peer: String,
    /// What the client called itself.
    pub helo: String,
    /// TLS version and cipher of that connection; absent in clear.
    pub tls: Option<String>,
    /// Who had logged in.
    pub authenticated_user: Option<String>,
    /// Whether its sender is told of failures.
    pub return_path_proven: bool,
    /// Recipients that are done.
    pub recipients_done: u64,
}

/// A message that was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotChanged {
    /// The id as it was asked for.
    pub id: String,
    /// Why not, and what to do.
    pub why: String,
}

/// A recipient that is not yet done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRecipient {
    /// The forward-path's mailbox.
    pub address: String,
    /// Tries so far.
    pub attempts: u32,
    /// Time of the next try, RFC 3339 UTC.
    pub next_attempt: String,
    /// Why the last try did not succeed; empty before the first.
    pub last_reply: String,
    /// Name of the next hop by which it goes; empty where no route leads any more.
    #[serde(default)]
    pub next_hop: String,
}

/// A DNS TXT record to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimRecord {
    /// Owner name without the trailing dot.
    pub name: String,
    /// The text, not split into strings.
    pub value: String,
}

/// What is wrong with a record of one of the site's domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsFinding {
    /// The domain.
    pub domain: String,
    /// Owner name of the record, without the trailing dot.
    pub record: String,
    /// What is wrong.
    pub problem: String,
    /// What to publish.
    pub remedy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_agreed_form() {
        assert_eq!(
            serde_json::to_string(&Request::list_all()).unwrap(),
            r#"{"request":"queue-list"}"#
        );
        let hold = r#"{"request":"queue-change","change":"hold","ids":["a"]}"#;
        let read = serde_json::from_str::<Request>(hold).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), hold);
        assert!(read.changes() && !Request::list_all().changes());
        let wrong = r#"{"request":"queue-list","filter":{"sendr":"a@b"}}"#;
        assert!(serde_json::from_str::<Request>(wrong).is_err());
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"request":"status"}"#).unwrap(),
            Request::Status
        );
        assert!(serde_json::from_str::<Request>(r#"{"request":"reboot"}"#).is_err());
    }

    #[test]
    fn replies_read_back() {
        let reply = Reply::DkimRecords {
            records: vec![DkimRecord {
                name: "a".into(),
                value: "b".into(),
            }],
        };
        let line = serde_json::to_string(&reply).unwrap();
        assert_eq!(
            line,
            r#"{"reply":"dkim-records","records":[{"name":"a","value":"b"}]}"#
        );
        assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
    }
}
