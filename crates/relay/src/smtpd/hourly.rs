//! The hourly limits of strangers' messages: of an address, of its network, of a sender, of a recipient.
//!
//! Limits of address and network are looked at before a message comes; the sender's when it is known whether he is one (SPF),
//! the recipient's at RCPT. Who has a history of mail that passed DMARC has more (`proven-factor`). What a client merely says
//! gives him no more than the room to show it: the message is looked at, counted, and refused before the scanners.
//!
//! Bounded, and costly to flood: an entry is made only by a message that the limits of its address let through, a recipient's and a
//! history's only by one that was accepted, and histories that are complete have room of their own.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use postern_smtp::replies;
use postern_smtp::server::Message;

use super::connection::Connection;
use super::permit::Denial;
use crate::checks::authentication::AuthResult;
use crate::checks::{Finding, Observation};
use crate::config::{CheckName, Limits, PerHour};
use crate::rate::{Counts, client};
use crate::reputation::hourly as remembered;
use crate::table::Table;

const KEYS: usize = 262_144;
const HISTORIES: usize = 65_536;
/// How long a history lasts after its last message.
const REMEMBERED: Duration = Duration::from_hours(35 * 24);

/// Who sends a message, as far as he says.
#[derive(Debug, Clone, Copy)]
struct Who<'a> {
    peer: IpAddr,
    reverse_path: &'a str,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Proof {
    Spf,
    Dkim(IpAddr),
}

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Address,
    Network,
    Sender,
    Recipient,
}

impl Limit {
    fn of(self) -> &'static str {
        match self {
            Self::Address => "from your address",
            Self::Network => "from your network",
            Self::Sender => "from this sender",
            Self::Recipient => "to this recipient",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Address => "messages-per-hour",
            Self::Network => "messages-per-hour-network",
            Self::Sender => "messages-per-hour-sender",
            Self::Recipient => "messages-per-hour-recipient",
        }
    }
}

/// A limit is reached.
#[derive(Debug, PartialEq, Eq)]
struct Exceeded {
    limit: Limit,
    per_hour: u32,
    wait: Duration,
}

/// Whose messages a sender's are counted as.
#[derive(Debug, Hash)]
enum Sender {
    /// SPF says so: wherever they come from.
    Proven(String),
    /// Of this client alone, so that a forger uses up nobody's allowance.
    Claimed(String, IpAddr),
    /// Who logged in, whatever he writes in the envelope.
    User(String),
}

/// All counts of one process.
#[derive(Debug)]
pub(super) struct Hourly {
    limits: PerHour,
    factor: u32,
    addresses: Counts,
    networks: Counts,
    senders: Counts,
    recipients: Counts,
    histories: Histories,
}

impl Hourly {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.per_hour(),
            factor: limits.proven_factor,
            addresses: Counts::new(KEYS),
            networks: Counts::new(KEYS),
            senders: Counts::new(KEYS),
            recipients: Counts::new(KEYS),
            histories: Histories::new(limits.proven_messages, Duration::from_secs(limits.proven_age)),
        }
    }

    fn raised(&self, limit: u32, is: bool) -> u32 {
        if is {
            limit.saturating_mul(self.factor)
        } else {
            limit
        }
    }

    /// Before the message: what is known without it.
    fn may_begin(&mut self, who: Who<'_>, now: Instant) -> Result<(), Exceeded> {
        let claims = self.histories.may_have(who, now);
        self.client(who, claims, 0, now)?;
        let per_hour = self.raised(self.limits.sender, claims);
        let sender = Sender::Claimed(who.reverse_path.to_lowercase(), client(who.peer));
        match self.senders.wait(&sender, per_hour, now) {
            Some(wait) => Err(Exceeded {
                limit: Limit::Sender,
                per_hour,
                wait,
            }),
            None => Ok(()),
        }
    }

    /// Whether address and network are within their limits; `counted` of the messages is the one that is asked about.
    fn client(&mut self, who: Who<'_>, proven: bool, counted: u32, now: Instant) -> Result<(), Exceeded> {
        let address = self.raised(self.limits.address, proven);
        let network = self.raised(self.limits.network, proven);
        let allowed = |per_hour: u32| {
            if per_hour == 0 {
                0
            } else {
                per_hour.saturating_add(counted)
            }
        };
        let exceeded = |limit, per_hour| {
            move |wait| {
                Err(Exceeded {
                    limit,
                    per_hour,
                    wait,
                })
            }
        };
        self.addresses
            .wait(&client(who.peer), allowed(address), now)
            .map_or(Ok(()), exceeded(Limit::Address, address))?;
        self.networks
            .wait(&who.network(), allowed(network), now)
            .map_or(Ok(()), exceeded(Limit::Network, network))
    }

    /// The message is here: counts it, if it may be looked at.
    fn begin(&mut self, who: Who<'_>, now: Instant) -> Result<(), Exceeded> {
        self.may_begin(who, now)?;
        self.addresses.count(&client(who.peer), now);
        self.networks.count(&who.network(), now);
        Ok(())
    }

    /// It is known what proves the sender; with that the limits are as they are.
    fn go_on(&mut self, who: Who<'_>, proofs: &[Proof], now: Instant) -> Result<(), Exceeded> {
        let proven = proofs.iter().any(|proof| self.histories.has(who, *proof, now));
        self.client(who, proven, 1, now)?;
        if who.reverse_path.is_empty() {
            return Ok(());
        }
        let path = who.reverse_path.to_lowercase();
        let sender = if proofs.contains(&Proof::Spf) {
            Sender::Proven(path)
        } else {
            Sender::Claimed(path, client(who.peer))
        };
        let per_hour = self.raised(self.limits.sender, proven);
        if let Some(wait) = self.senders.wait(&sender, per_hour, now) {
            return Err(Exceeded {
                limit: Limit::Sender,
                per_hour,
                wait,
            });
        }
        self.senders.count(&sender, now);
        Ok(())
    }

    fn of_user(&mut self, user: &str, count: bool, now: Instant) -> Result<(), Exceeded> {
        let (sender, per_hour) = (Sender::User(user.to_lowercase()), self.limits.sender);
        if let Some(wait) = self.senders.wait(&sender, per_hour, now) {
            return Err(Exceeded {
                limit: Limit::Sender,
                per_hour,
                wait,
            });
        }
        if count {
            self.senders.count(&sender, now);
        }
        Ok(())
    }

    fn may_go_to(&mut self, who: Who<'_>, recipient: &str, now: Instant) -> Result<(), Exceeded> {
        // Where strangers fill a mailbox's hour, those who are known still get through.
        let claims = self.histories.may_have(who, now);
        let per_hour = self.raised(self.limits.recipient, claims);
        match self.recipients.wait(&recipient.to_lowercase(), per_hour, now) {
            Some(wait) => Err(Exceeded {
                limit: Limit::Recipient,
                per_hour,
                wait,
            }),
            None => Ok(()),
        }
    }
    /// The message was accepted; `passed` is whether it passed DMARC and is not marked.
    fn accepted<'a>(
        &mut self,
        who: Who<'_>,
        recipients: impl Iterator<Item = &'a str>,
        proofs: &[Proof],
        passed: bool,
        now: Instant,
    ) {
        for recipient in recipients {
            self.recipients.count(&recipient.to_lowercase(), now);
        }
        for proof in proofs.iter().filter(|_| passed) {
            self.histories.add(who, *proof, now);
        }
    }
}

/// What has been accepted of whom, by domain of the reverse-path and what proved it.
#[derive(Debug)]
struct Histories {
    messages: u32,
    age: Duration,
    beginning: Table<(Instant, u32)>,
    complete: Table<()>,
    /// Domains that have a complete one.
    domains: Table<()>,
}

impl Histories {
    /// A history is complete after so many messages, the first of which came so long ago.
    fn new(messages: u32, age: Duration) -> Self {
        Self {
            messages,
            age,
            beginning: Table::new(HISTORIES),
            complete: Table::new(HISTORIES),
            domains: Table::new(HISTORIES),
        }
    }

    /// Whether the domain that the client names has a history; whether the client has a part in it is not known yet.
    fn may_have(&mut self, who: Who<'_>, now: Instant) -> bool {
        who.domain()
            .is_some_and(|domain| self.domains.get(&domain, now).is_some())
    }

    fn has(&mut self, who: Who<'_>, proof: Proof, now: Instant) -> bool {
        who.domain()
            .is_some_and(|domain| self.complete.get(&(domain, proof), now).is_some())
    }

    fn add(&mut self, who: Who<'_>, proof: Proof, now: Instant) {
        let Some(domain) = who.domain() else { return };
        let key = (domain.clone(), proof);
        let (first, before) = self.beginning.get(&key, now).map_or((now, 0), |begun| *begun);
        let messages = before.saturating_add(1);
        let complete = self.complete.get(&key, now).is_some()
            || (messages >= self.messages && now.saturating_duration_since(first) >= self.age);
        if complete {
            self.complete.insert(&key, (), now + REMEMBERED, now);
            self.domains.insert(&domain, (), now + REMEMBERED, now);
        } else {
            self.beginning
                .insert(&key, (first, messages), now + REMEMBERED, now);
        }
    }
}

impl Connection {
    /// At MAIL.
    pub(super) async fn within_limits(&self) -> Result<(), Denial> {
        if let Some(user) = &self.user {
            return self.of_user(user, false);
        }
        self.counted(Hourly::may_begin)?;
        self.within_remembered(false).await
    }

    /// At RCPT, for a mailbox of ours.
    pub(super) fn may_reach(&self, mailbox: &str) -> Result<(), Denial> {
        self.counted(|hourly, who, now| hourly.may_go_to(who, mailbox, now))
    }

    /// At the end of the message, before it is looked at.
    pub(super) async fn count_message(&self) -> Result<(), Denial> {
        if let Some(user) = &self.user {
            return self.of_user(user, true);
        }
        self.counted(Hourly::begin)?;
        self.within_remembered(true).await
    }

    /// Who logged in at a door for strangers has a sender's limit, and nothing to do with what else comes from his address.
    fn of_user(&self, user: &str, count: bool) -> Result<(), Denial> {
        self.counted(|hourly, _, now| hourly.of_user(user, count, now))
    }

    /// The count of the address that outlives this process and that gateways may share.
    async fn within_remembered(&self, count: bool) -> Result<(), Denial> {
        let mut limit = 0;
        self.counted(|hourly, who, now| {
            let claims = hourly.histories.may_have(who, now);
            limit = hourly.raised(hourly.limits.address, claims);
            Ok(())
        })?;
        let reputation = &self.server.tools.reputation;
        let within = if count {
            remembered::take(reputation, self.peer, limit).await
        } else {
            remembered::allows(reputation, self.peer, limit).await
        };
        if within {
            return Ok(());
        }
        Err(Denial::because(
            replies::rate_limited(Limit::Address.of(), limit, Duration::from_hours(1)),
            format!("{} is {limit}", Limit::Address.key()),
        ))
    }

    /// When its origin is known, before what is in it is.
    pub(super) fn count_sender(&self, findings: &[Finding]) -> Result<(), Denial> {
        self.counted(|hourly, who, now| hourly.go_on(who, &self.proofs(findings), now))
    }

    /// When the queue has it.
    pub(super) fn count_accepted(&self, message: &Message, findings: &[Finding], marked: bool) {
        let mailboxes: Vec<String> = message
            .transaction
            .recipients
            .iter()
            .map(|recipient| self.server.mailbox(&recipient.path))
            .collect();
        let passed = !marked && has_passed(findings, CheckName::Dmarc);
        let proofs = self.proofs(findings);
        // It only counts: there is nothing to deny.
        let _ = self.counted(|hourly, who, now| {
            hourly.accepted(who, mailboxes.iter().map(String::as_str), &proofs, passed, now);
            Ok(())
        });
    }

    /// What `look` says, of a client that is counted: neither one of ours nor a listed peer.
    fn counted(
        &self,
        look: impl FnOnce(&mut Hourly, Who<'_>, Instant) -> Result<(), Exceeded>,
    ) -> Result<(), Denial> {
        if !self.server.is_stranger(self.peer) {
            return Ok(());
        }
        let who = Who {
            peer: self.peer,
            reverse_path: self.facts("", &[]).reverse_path,
        };
        let mut hourly = self.server.hourly.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut hourly, who, Instant::now()).map_err(|exceeded| {
            Denial::because(
                replies::rate_limited(exceeded.limit.of(), exceeded.per_hour, exceeded.wait),
                format!("{} is {}", exceeded.limit.key(), exceeded.per_hour),
            )
        })
    }

    fn proofs(&self, findings: &[Finding]) -> Vec<Proof> {
        let proves = |check| {
            findings.iter().any(|finding| {
                finding.check == check
                    && matches!(&finding.observation, Observation::Authenticated(seen) if seen.proves_reverse_path)
            })
        };
        let spf = proves(CheckName::Spf).then_some(Proof::Spf);
        let dkim = proves(CheckName::Dkim).then_some(Proof::Dkim(client(self.peer)));
        spf.into_iter().chain(dkim).collect()
    }
}

fn has_passed(findings: &[Finding], check: CheckName) -> bool {
    findings.iter().any(|finding| {
        finding.check == check
            && matches!(&finding.observation, Observation::Authenticated(seen) if seen.result == AuthResult::Pass)
    })
}

#[cfg(test)]
#[path = "hourly_tests.rs"]
mod tests;
