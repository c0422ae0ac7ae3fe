//! Requests and replies of the control socket. All requests so far only read.

use serde::{Deserialize, Serialize};

/// What a client may ask, one JSON object per line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who this node is and how its queue stands.
    Status,
    /// Every message in the queue, oldest first.
    QueueList,
    /// The DNS records that publish this node's DKIM keys.
    DkimRecords,
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
    /// Answer to [`Request::QueueList`].
    QueueList {
        /// Oldest first.
        messages: Vec<QueuedMessage>,
        /// True where the list was cut because it is too long.
        truncated: bool,
    },
    /// Answer to [`Request::DkimRecords`].
    DkimRecords {
        /// One for each key.
        records: Vec<DkimRecord>,
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
    /// Those not yet done.
    pub recipients: Vec<QueuedRecipient>,
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
}

/// A DNS TXT record to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimRecord {
    /// Owner name without the trailing dot.
    pub name: String,
    /// The text, not split into strings.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_agreed_form() {
        assert_eq!(
            serde_json::to_string(&Request::QueueList).unwrap(),
            r#"{"request":"queue-list"}"#
        );
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
