//! The hourly limits of strangers' messages, as questions: of an address, of its network, of a sender, of a recipient.
//!
//! Limits of address and network are looked at before a message comes; the sender's when it is known whether he is one (SPF),
//! the recipient's at RCPT. Who has a history of mail that passed DMARC has more (`proven-factor`). What a client merely says
//! gives him no more than the room to show it: the message is looked at, counted, and refused before the scanners.
//!
//! Costly to flood: an entry is made only by a message that the limits of its address let through, a recipient's and a history's
//! only by one that was accepted, and histories that are complete have room of their own. Each moment of a message is one question.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Accepted, Answer, Count, History, How, Key, Limit, Millis, Question, Weigh, millis};
use crate::config::{Limits, PerHour};
use crate::rate::client;

/// Recipients of one question, so that it fits into a packet.
const RECIPIENTS: usize = 64;

/// Who sends a message, as far as he says.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The client.
    pub peer: IpAddr,
    /// What he gives as reverse-path; empty is the null one.
    pub reverse_path: &'a str,
}

impl Who<'_> {
    fn domain(self) -> Option<String> {
        let (_, domain) = self.reverse_path.rsplit_once('@')?;
        Some(domain.to_lowercase())
    }

    /// The /24, or the /48 of IPv6: what one site is given (RFC 6177), since a /64 is one client already.
    fn network(self) -> IpNet {
        let length = if self.peer.is_ipv4() { 24 } else { 48 };
        IpNet::new_assert(self.peer, length).trunc()
    }
}

/// What showed that a reverse-path's domain sent the message. A signature can be replayed by anybody, so that it speaks only
/// for the client that brought it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The address may send for the domain.
    Spf,
    /// A signature, and the client that brought it.
    Dkim(IpAddr),
}

impl Limit {
    /// What a client reads of it.
    pub fn of(self) -> &'static str {
        match self {
            Self::Address => "from your address",
            Self::Network => "from your network",
            Self::Sender => "from this sender",
            Self::Recipient => "to this recipient",
        }
    }

    /// Its key in `[limits]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Address => "messages-per-hour",
            Self::Network => "messages-per-hour-network",
            Self::Sender => "messages-per-hour-sender",
            Self::Recipient => "messages-per-hour-recipient",
        }
    }

    /// All.
    pub const ALL: [Self; 4] = [Self::Address, Self::Network, Self::Sender, Self::Recipient];
}

/// A limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub limit: Limit,
    /// Messages in an hour.
    pub per_hour: u32,
    /// Until there is room for one more.
    pub wait: Duration,
}

/// The limit that an answer to [`Question::Weigh`] tells of.
pub fn within(answer: Answer) -> Result<(), Exceeded> {
    match answer {
        Answer::Over {
            limit,
            per_hour,
            wait,
        } => Err(Exceeded {
            limit,
            per_hour,
            wait: Duration::from_millis(wait),
        }),
        _ => Ok(()),
    }
}

/// The limits of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Hourly {
    limits: PerHour,
    factor: u32,
    messages: u32,
    age: Millis,
}

impl Hourly {
    /// From `[limits]`.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.per_hour(),
            factor: limits.proven_factor.max(1),
            messages: limits.proven_messages,
            age: millis(Duration::from_secs(limits.proven_age)),
        }
    }

    /// At MAIL: what is known without the message.
    pub fn may_begin(&self, who: Who<'_>) -> Question {
        self.beginning(who, How::Look)
    }

    /// The message is here, and is counted if it may be looked at.
    pub fn begin(&self, who: Who<'_>) -> Question {
        self.beginning(who, How::Take)
    }

    fn beginning(&self, who: Who<'_>, how: How) -> Question {
        let mut counts = self.client(who, how);
        if !who.reverse_path.is_empty() {
            let sender = claimed(who);
            counts.push(self.count(Limit::Sender, sender, How::Look));
        }
        self.weigh(counts, claims(who))
    }

    /// It is known what proves the sender of a message that has begun; with that the limits are as they are, and his is
    /// counted.
    pub fn go_on(&self, who: Who<'_>, proofs: &[Proof]) -> Question {
        let mut counts = self.client(who, How::Taken);
        if !who.reverse_path.is_empty() {
            let sender = if proofs.contains(&Proof::Spf) {
                // Wherever it comes from.
                Key::new("sender", &["proven", &who.reverse_path.to_lowercase()])
            } else {
                claimed(who)
            };
            counts.push(self.count(Limit::Sender, sender, How::Take));
        }
        self.weigh(counts, histories(who, proofs))
    }

    /// Who logged in has a sender's limit, whatever he writes in the envelope.
    pub fn of_user(&self, user: &str, how: How) -> Question {
        let key = Key::new("sender", &["user", &user.to_lowercase()]);
        self.weigh(vec![self.count(Limit::Sender, key, how)], Vec::new())
    }

    /// At RCPT, for a mailbox of ours. Where strangers fill a mailbox's hour, those who are known still get through.
    pub fn may_go_to(&self, who: Who<'_>, mailbox: &str) -> Question {
        let count = self.count(Limit::Recipient, recipient(mailbox), How::Look);
        self.weigh(vec![count], claims(who))
    }

    /// The message was accepted; `passed` is whether it passed DMARC and is not marked.
    pub fn accepted(
        &self,
        who: Who<'_>,
        mailboxes: &[String],
        proofs: &[Proof],
        passed: bool,
    ) -> Vec<Question> {
        let mailboxes = if self.limits.recipient == 0 {
            &[]
        } else {
            mailboxes
        };
        let keys: Vec<Key> = mailboxes.iter().map(|mailbox| recipient(mailbox)).collect();
        let proofs = histories(who, if passed { proofs } else { &[] });
        let history = who.domain().filter(|_| !proofs.is_empty()).map(|domain| History {
            domain: domain_key(&domain),
            proofs,
            proven: Vec::new(),
            messages: self.messages,
            age: self.age,
        });
        let mut questions: Vec<Accepted> = keys
            .chunks(RECIPIENTS)
            .map(|keys| Accepted {
                recipients: keys.to_vec(),
                history: None,
            })
            .collect();
        if history.is_some() {
            match questions.first_mut() {
                Some(first) => first.history = history,
                None => questions.push(Accepted {
                    recipients: Vec::new(),
                    history,
                }),
            }
        }
        questions.into_iter().map(Question::Accepted).collect()
    }

    fn client(&self, who: Who<'_>, how: How) -> Vec<Count> {
        let address = Key::new("messages-per-hour", &[&client(who.peer).to_string()]);
        let network = Key::new("network", &[&who.network().to_string()]);
        vec![
            self.count(Limit::Address, address, how),
            self.count(Limit::Network, network, how),
        ]
    }

    fn count(&self, limit: Limit, key: Key, how: How) -> Count {
        let per_hour = match limit {
            Limit::Address => self.limits.address,
            Limit::Network => self.limits.network,
            Limit::Sender => self.limits.sender,
            Limit::Recipient => self.limits.recipient,
        };
        Count {
            limit,
            key,
            per_hour,
            how,
        }
    }

    fn weigh(&self, mut counts: Vec<Count>, histories: Vec<Key>) -> Question {
        // None is no limit.
        counts.retain(|count| count.per_hour != 0);
        Question::Weigh(Weigh {
            counts,
            histories,
            factor: self.factor,
            proven: false,
        })
    }
}

/// Of this client alone, so that a forger uses up nobody's allowance.
fn claimed(who: Who<'_>) -> Key {
    let path = who.reverse_path.to_lowercase();
    Key::new("sender", &["claimed", &path, &client(who.peer).to_string()])
}

fn recipient(mailbox: &str) -> Key {
    Key::new("recipient", &[&mailbox.to_lowercase()])
}

fn domain_key(domain: &str) -> Key {
    Key::new("history of a domain", &[domain])
}

/// The history that the domain has which the client names; whether he has a part in it is not known yet.
fn claims(who: Who<'_>) -> Vec<Key> {
    who.domain()
        .map(|domain| domain_key(&domain))
        .into_iter()
        .collect()
}

fn histories(who: Who<'_>, proofs: &[Proof]) -> Vec<Key> {
    let Some(domain) = who.domain() else {
        return Vec::new();
    };
    let key = |proof: &Proof| match proof {
        Proof::Spf => Key::new("history", &[&domain, "spf"]),
        Proof::Dkim(client) => Key::new("history", &[&domain, "dkim", &client.to_string()]),
    };
    proofs.iter().map(key).collect()
}

#[cfg(test)]
mod tests;
