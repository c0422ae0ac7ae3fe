//! The checks of a message: each observes, none decides.
//!
//! Enters: what is known so far ([`Facts`]). Leaves: [`Finding`]s, which `verdict.rs` alone turns into a decision.
//! The table [`CHECKS`] is in order of phase; within a phase checks run side by side. Time limits and "no answer" are
//! made here, once: a check that does not come back in its time has found [`Observation::NoAnswer`].

pub mod arc;
pub mod authentication;
pub mod clamd;
pub mod content;
pub mod greylist;
pub mod helo;
pub mod lists;
pub mod recipient;
pub mod reverse;
pub mod scanner;
pub mod sender;
pub mod spamd;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail_auth::MessageAuthenticator;
use postern_control::EventKind;
use postern_sandbox::memfd;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::config::{CheckName, Config, ScannerSocket};
use crate::deliver::dns::Dns;
use crate::reputation::{Answer, Question, Reputation, millis};
use crate::scan::Seen as SeenInside;
use authentication::Authenticated;
use greylist::{Client, Seen, triplet};
use helo::Greeting;
use lists::{Listing, Lists};
use recipient::{Existence, Verifier};
use reverse::Reverse;

/// Characters of evidence that are kept: some of it is quoted from the message.
const EVIDENCE: usize = 2000;

/// When a check runs. No later phase runs for a message that an earlier one refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// At the first RCPT: who is the client?
    Client,
    /// At RCPT: does the mailbox exist?
    Recipient,
    /// At RCPT, for mailboxes that exist.
    FirstContact,
    /// After the message: who sent it?
    Origin,
    /// After the message: how is it built, and what does it carry? Cheap, so that no scanner is asked about what this refuses.
    Structure,
    /// After the message: what is in it?
    Content,
}

/// What a check may know.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client, canonical.
    pub peer: IpAddr,
    /// Whether the client is a listed peer or, where it is known, on an allow-list.
    pub listed: bool,
    /// What it said in EHLO or HELO.
    pub helo: &'a str,
    /// Reverse-path, bare; empty for the null one.
    pub reverse_path: &'a str,
    /// The recipient asked about; empty after the message.
    pub recipient: &'a str,
    /// The message as it came; empty before.
    pub message: &'a [u8],
    /// The memory that ends with the message, where a memory file holds it.
    pub memory: Option<&'a memfd::View<'a>>,
}

/// One thing a check saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check.
    pub check: CheckName,
    /// What it saw.
    pub observation: Observation,
    /// How it knows, for the trace.
    pub evidence: String,
    /// How long it took.
    pub millis: u64,
}

impl Finding {
    /// For the trace.
    pub fn event(&self) -> EventKind {
        EventKind::Check {
            check: self.check.as_str().to_owned(),
            result: self.observation.word().to_owned(),
            evidence: self.evidence.clone(),
            millis: self.millis,
            seen: serde_json::to_value(&self.observation).ok(),
        }
    }
}

/// What checks can see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observation {
    /// The name in EHLO.
    Greeting(Greeting),
    /// The name of the client's address.
    Reverse(Reverse),
    /// What lists in DNS say of the client.
    Lists(Listing),
    /// SPF, DKIM, ARC or DMARC, with its part of the Authentication-Results field.
    Authenticated(Authenticated),
    /// The spam score.
    Scored(f64),
    /// A signature matched.
    Virus(String),
    /// A part is encrypted.
    Encrypted(String),
    /// A part is beyond the scanner's limits.
    Unscannable(String),
    /// The structure or an attachment is not as the site takes it.
    Content(SeenInside),
    /// Nothing was found.
    Clean,
    /// What the mailbox server says of a recipient.
    Recipient(Existence),
    /// What the greylist says of a triplet.
    Greylist(Seen),
    /// The check could not be made.
    NoAnswer,
    /// The scanner answered, and had not got to the end of the message.
    Unfinished,
}

impl Observation {
    /// One word for the trace.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Greeting(Greeting::Plausible) => "plausible",
            Self::Greeting(Greeting::Ours) => "ours",
            Self::Greeting(Greeting::OthersAddress) => "others-address",
            Self::Greeting(Greeting::Malformed) => "malformed",
            Self::Greeting(Greeting::Unresolvable) => "unresolvable",
            Self::Reverse(Reverse::Confirmed(_)) => "confirmed",
            Self::Reverse(Reverse::Missing) => "missing",
            Self::Reverse(Reverse::Unconfirmed(_)) => "unconfirmed",
            Self::Lists(listing) if listing.allowed.is_some() => "allowed",
            Self::Lists(listing) if !listing.hits.is_empty() => "listed",
            Self::Lists(_) => "unlisted",
            Self::Authenticated(authenticated) => authenticated.word(),
            Self::Scored(_) => "scored",
            Self::Virus(_) => "virus",
            Self::Encrypted(_) => "encrypted",
            Self::Unscannable(_) => "unscannable",
            Self::Content(seen) => seen.word(),
            Self::Clean => "clean",
            Self::Recipient(Existence::Exists) => "exists",
            Self::Recipient(Existence::Unknown) => "unknown",
            Self::Recipient(Existence::Full) => "full",
            Self::Greylist(Seen::Known) => "known",
            Self::Greylist(Seen::Wait(_)) => "wait",
            Self::NoAnswer => "no-answer",
            Self::Unfinished => "unfinished",
        }
    }
}

/// What a check answers: findings without times, which the runner adds.
pub type Seeing<'a> = Pin<Box<dyn Future<Output = Vec<(CheckName, Observation, String)>> + Send + 'a>>;

/// A row of the table.
pub struct Check {
    /// Listed under this name in `checks`.
    pub name: CheckName,
    /// When it runs.
    pub phase: Phase,
    /// How long it may take.
    pub limit: fn(&Config) -> Duration,
    /// The check itself.
    pub see: for<'a> fn(&'a Tools, Facts<'a>) -> Seeing<'a>,
}

/// Every check, in order of phase. SPF, DKIM, ARC and DMARC are one row, since DMARC judges by the others.
pub const CHECKS: &[Check] = &[
    Check {
        name: CheckName::Helo,
        phase: Phase::Client,
        limit: seconds::<6>,
        see: helo::see,
    },
    Check {
        name: CheckName::ReverseDns,
        phase: Phase::Client,
        limit: seconds::<6>,
        see: reverse::see,
    },
    Check {
        name: CheckName::DnsLists,
        phase: Phase::Client,
        limit: seconds::<10>,
        see: lists::see,
    },
    Check {
        name: CheckName::Recipient,
        phase: Phase::Recipient,
        limit: seconds::<20>,
        see: recipient_exists,
    },
    Check {
        name: CheckName::Greylist,
        phase: Phase::FirstContact,
        limit: seconds::<10>,
        see: greylisted,
    },
    Check {
        name: CheckName::Spf,
        phase: Phase::Origin,
        limit: seconds::<40>,
        see: authentication::see,
    },
    Check {
        name: CheckName::Content,
        phase: Phase::Structure,
        limit: content_limit,
        see: structure,
    },
    Check {
        name: CheckName::Spam,
        phase: Phase::Content,
        limit: spam_limit,
        see: spam,
    },
    Check {
        name: CheckName::Virus,
        phase: Phase::Content,
        limit: virus_limit,
        see: virus,
    },
];

fn seconds<const N: u64>(_: &Config) -> Duration {
    Duration::from_secs(N)
}

/// The worker's own time, and as much again to wait for a worker.
fn content_limit(config: &Config) -> Duration {
    let timeout = config.content.as_ref().map_or(20, |content| content.timeout);
    Duration::from_secs(2 * u64::from(timeout))
}

fn spam_limit(config: &Config) -> Duration {
    Duration::from_secs(config.spam.as_ref().map_or(60, |spam| spam.timeout))
}

fn virus_limit(config: &Config) -> Duration {
    Duration::from_secs(config.virus.as_ref().map_or(60, |virus| virus.timeout))
}

/// What the checks of one instance work with.
pub struct Tools {
    /// The configuration.
    pub config: Arc<Config>,
    /// The checks that this instance makes.
    pub enabled: Vec<CheckName>,
    /// DNS.
    pub authenticator: MessageAuthenticator,
    /// DNS, for questions of our own.
    pub dns: Dns,
    /// Lists of addresses.
    pub lists: Lists,
    /// Recipients.
    pub verifier: Option<Verifier>,
    /// How long a triplet waits; absent where it does not.
    pub greylist: Option<Duration>,
    /// What is remembered of triplets and clients.
    pub reputation: Arc<Reputation>,
    /// Who may send for his reverse-path.
    pub senders: sender::Senders,
    /// Messages that may be at a scanner at a time; waiting counts as scanning time.
    pub scans: Semaphore,
}

impl Tools {
    /// Runs the checks of `phase`, side by side, and tells what they saw in the order of the table.
    pub async fn run(&self, phase: Phase, facts: Facts<'_>) -> Vec<Finding> {
        self.run_where(|check| check.phase == phase, facts, None).await
    }

    /// Runs the checks that are wanted, side by side, each for so long at most.
    pub async fn run_where(
        &self,
        wanted: impl Fn(&Check) -> bool,
        facts: Facts<'_>,
        deadline: Option<Duration>,
    ) -> Vec<Finding> {
        let mut running = Vec::new();
        for check in CHECKS
            .iter()
            .filter(|check| wanted(check) && self.enabled.contains(&check.name))
        {
            running.push(self.observe(check, facts, deadline));
        }
        let mut findings = Vec::new();
        for found in join(running).await {
            findings.extend(found);
        }
        findings
    }

    /// Runs one check, where the instance makes it.
    pub async fn run_one(&self, name: CheckName, facts: Facts<'_>) -> Vec<Finding> {
        let check = CHECKS
            .iter()
            .find(|check| check.name == name && self.enabled.contains(&name));
        match check {
            Some(check) => self.observe(check, facts, None).await,
            None => Vec::new(),
        }
    }

    async fn observe(&self, check: &Check, facts: Facts<'_>, deadline: Option<Duration>) -> Vec<Finding> {
        let began = Instant::now();
        let limit = (check.limit)(&self.config);
        let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
        let seen = tokio::time::timeout(limit, (check.see)(self, facts))
            .await
            .unwrap_or_else(|_| {
                vec![(
                    check.name,
                    Observation::NoAnswer,
                    format!("no answer in {} s", limit.as_secs()),
                )]
            });
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        seen.into_iter()
            .map(|(check, observation, evidence)| Finding {
                check,
                observation,
                evidence: evidence.chars().take(EVIDENCE).collect(),
                millis,
            })
            .collect()
    }
}

/// Waits for all of `futures` at once, on this task.
async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

fn recipient_exists<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        let Some(verifier) = &tools.verifier else {
            return Vec::new();
        };
        let (observation, evidence) = match verifier.verify(facts.recipient).await {
            Ok(existence) => {
                let evidence = existence.evidence(facts.recipient);
                (Observation::Recipient(existence), evidence)
            }
            Err(error) => (Observation::NoAnswer, error.to_string()),
        };
        vec![(CheckName::Recipient, observation, evidence)]
    })
}

fn greylisted<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        let Some(delay) = tools.greylist.filter(|_| !facts.listed) else {
            return Vec::new();
        };
        let mut client = Client::network(facts.peer);
        let of = |client: &Client| triplet(client, facts.reverse_path, facts.recipient);
        let known = Question::Knows { triplet: of(&client) };
        // SPF is asked only for triplets whose network is not known already.
        if tools.reputation.ask(known).await != Answer::Yes
            && tools
                .senders
                .is_proven(&tools.authenticator, &tools.config.hostname, facts)
                .await
            && let Some(domain) = Client::domain(facts.reverse_path)
        {
            client = domain;
        }
        let question = Question::See {
            triplet: of(&client),
            delay: millis(delay),
        };
        let seen = match tools.reputation.ask(question).await {
            Answer::Wait(left) => Seen::Wait(Duration::from_millis(left)),
            _ => Seen::Known,
        };
        let evidence = match seen {
            Seen::Known => format!("the triplet of {client} is known"),
            Seen::Wait(left) => format!("the triplet of {client} has {} s to wait", left.as_secs()),
        };
        vec![(CheckName::Greylist, Observation::Greylist(seen), evidence)]
    })
}

fn structure<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        match content::ask(&tools.config.scan_socket(), facts.message, facts.memory).await {
            Ok(report) => content::findings(report),
            Err(error) => vec![(CheckName::Content, Observation::NoAnswer, error.to_string())],
        }
    })
}

fn spam<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        let Some(spam) = tools
            .config
            .spam
            .as_ref()
            .filter(|spam| spam.socket != ScannerSocket::Off)
        else {
            return Vec::new();
        };
        let _permit = tools.scans.acquire().await;
        let (observation, evidence) = match spamd::ask(&spam.socket, facts.message).await {
            Ok(scored) => {
                let shown = if facts.message.len() > spamd::SHOWN {
                    " (beginning of a large message)"
                } else {
                    ""
                };
                (
                    Observation::Scored(scored.score),
                    format!("{:.1} {}{shown}", scored.score, scored.symbols),
                )
            }
            Err(error) => (Observation::NoAnswer, error.to_string()),
        };
        vec![(CheckName::Spam, observation, evidence)]
    })
}

fn virus<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        let Some(virus) = tools
            .config
            .virus
            .as_ref()
            .filter(|virus| virus.socket != ScannerSocket::Off)
        else {
            return Vec::new();
        };
        let _permit = tools.scans.acquire().await;
        let (observation, evidence) = match clamd::ask(&virus.socket, facts.message).await {
            Ok(clamd::Scanned::Clean) => (Observation::Clean, "clamd found nothing".to_owned()),
            Ok(clamd::Scanned::Found(name)) => (Observation::Virus(name.clone()), name),
            Ok(clamd::Scanned::Encrypted(name)) => (Observation::Encrypted(name.clone()), name),
            Ok(clamd::Scanned::Unscannable(name)) => (Observation::Unscannable(name.clone()), name),
            Ok(clamd::Scanned::Unfinished(name)) => (Observation::Unfinished, name),
            Err(error) => (Observation::NoAnswer, error.to_string()),
        };
        vec![(CheckName::Virus, observation, evidence)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_of_phase() {
        assert!(CHECKS.is_sorted_by_key(|check| check.phase));
    }

    #[tokio::test(start_paused = true)]
    async fn checks_of_a_phase_run_side_by_side() {
        let began = tokio::time::Instant::now();
        let naps = [3, 1, 2].map(|seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seconds
        });
        assert_eq!(join(naps.into()).await, [3, 1, 2]);
        assert_eq!(began.elapsed().as_secs(), 3);
    }
}
