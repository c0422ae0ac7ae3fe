//! What a back end can be asked about strangers, and what it answers: typed, closed, of bounded size.

use serde::{Deserialize, Serialize};

use super::{Key, Millis};

/// A greylist triplet and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triplet {
    /// Client, reverse-path and forward-path.
    pub whole: Key,
    /// The client alone.
    pub client: Key,
}

/// Whose messages are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// A client address.
    Address,
    /// Its network.
    Network,
    /// A reverse-path, or a user.
    Sender,
    /// A mailbox of ours.
    Recipient,
}

/// What is done with a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is looked at.
    Look,
    /// One more is counted.
    Take,
    /// It is looked at, and one of it is the message that is asked about.
    Taken,
}

/// A count and its limit. Two neighbouring hours are weighted, so that the limit slides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Of what kind; each has room of its own.
    pub limit: Limit,
    /// Whose.
    pub key: Key,
    /// How many in an hour; not 0.
    pub per_hour: u32,
    /// What is done with it.
    pub how: How,
}

/// Counts that are weighed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weigh {
    /// In the order in which one that is reached is told.
    pub counts: Vec<Count>,
    /// Where one of these histories is complete, the limits are `factor` times as high.
    pub histories: Vec<Key>,
    /// At least 1.
    pub factor: u32,
    /// Who asks knows that one is.
    pub proven: bool,
}

/// What is to be counted of a message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Mailboxes of ours.
    pub recipients: Vec<Key>,
    /// Of who sent it, where he proved himself.
    pub history: Option<History>,
}

impl Accepted {
    /// The history alone, which is complete.
    pub(super) fn all_proven(self) -> Self {
        Self {
            recipients: Vec::new(),
            history: self.history.map(|history| History {
                proven: history.proofs.clone(),
                ..history
            }),
        }
    }
}

/// A history of messages that passed DMARC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The domain; it is complete where one of its proofs is.
    pub domain: Key,
    /// Domain and what proved it.
    pub proofs: Vec<Key>,
    /// Those that who asks knows to be complete.
    pub proven: Vec<Key>,
    /// Complete after so many messages,
    pub messages: u32,
    /// the first of which came so long ago.
    pub age: Millis,
}

/// Wrong passwords, of which one is forgiven every [`super::FORGIVEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Whose.
    pub key: Key,
    /// How many may be open.
    pub most: u32,
}

/// A password that is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Which one it is: it is taken back once, and where it was counted.
    pub id: Key,
    /// Under what a success is remembered.
    pub login: Key,
    /// Who asks knows of one.
    pub known: bool,
    /// What counts where there was one; not empty.
    pub of_known: Vec<Bucket>,
    /// What counts where there was none; not empty. The first one's count is told.
    pub of_unknown: Vec<Bucket>,
}

impl Attempt {
    /// What counts.
    pub(super) fn buckets(&self, known: bool) -> &[Bucket] {
        if known { &self.of_known } else { &self.of_unknown }
    }
}

/// What can be asked. Windows, ages and delays are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Are all these counts within their limits? Only then those are counted that are to be.
    Weigh(Weigh),
    /// A message was accepted: counts its recipients, and adds to the history of who sent it. Yes where that is complete.
    Accepted(Accepted),
    /// May a password be tried? It counts as wrong until something else is said, which may be for [`super::FORGIVEN`].
    Attempt(Attempt),
    /// The attempt was right. If it was not counted here, nothing is taken back.
    Right(Attempt),
    /// The attempt could not be judged; the same holds.
    Unjudged(Attempt),
    /// Need the triplet, or its client, not wait any more? Such a one is remembered for longer.
    Knows {
        /// Which.
        triplet: Triplet,
    },
    /// Must the triplet wait? It is remembered; when it has waited long enough, its client has one proof more.
    See {
        /// Which.
        triplet: Triplet,
        /// How long it waits from its first sight on.
        delay: Millis,
    },
    /// The triplet has waited, at another back end.
    Learn {
        /// Which.
        triplet: Triplet,
    },
    /// A message of this client passed DMARC and was accepted: the domain answers for its mail.
    Prove {
        /// Who.
        client: Key,
    },
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It may, it is known, it is done.
    Yes,
    /// It may not, it is not known.
    No,
    /// The triplet has so many milliseconds to wait.
    Wait(Millis),
    /// A count has reached its limit.
    Over {
        /// Which.
        limit: Limit,
        /// Messages in an hour, as far as histories have raised them.
        per_hour: u32,
        /// Milliseconds until there is room for one more.
        wait: Millis,
    },
    /// It may be tried, and is this many wrong one if it is wrong.
    Attempted(u32),
    /// It may not be tried for so many milliseconds.
    Throttled(Millis),
}
