//! One attempt to deliver one message to the recipients that share a destination.
//!
//! Enters: an envelope, its content in the spool, a next hop. Leaves: an outcome for each recipient. The steps:
//!
//! 1. hosts: the fixed one, or the domain's mail exchangers by preference ([`mx`]; RFC 5321 5.1, RFC 7505);
//! 2. addresses of each host, tried in order until one can be talked to, and how the host must prove itself ([`policy`]:
//!    [`dane`], [`mta_sts`]);
//! 3. connect, greeting, EHLO, STARTTLS ([`tls`]), EHLO ([`session`]; time-outs of RFC 5321 4.5.3.2);
//! 4. MAIL, RCPT, then DATA or BDAT by [`postern_smtp::client`], the content read from the spool in parts ([`content`]).
//!
//! What one host answered to a transaction is final for this attempt. A host that cannot be talked to, for whatever
//! reason, makes room for the next.

pub mod content;
pub mod dane;
pub mod dns;
pub mod hop;
pub mod mta_sts;
pub mod mx;
pub mod observed;
pub mod policy;
pub mod reach;
pub mod session;
pub mod shelf;
pub mod source;
pub mod tls;

use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{setsockopt, sockopt};
use postern_smtp::client::{self, Dialect, Envelope, Outcome};
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::queue::config::LmtpSocket;
use crate::queue::reasons;
use crate::queue::router::Destination;
use content::Content;
use hop::{Door, Encryption, Hop};
use mx::{Host, Mx};
use observed::{Judged, Negotiation, Observer, Peer};
use policy::{Demand, Policies, Proof, Question};
use session::{Exchange, Stream};
use shelf::{Kept, Shelf};
use source::{Source, Sources};

/// Addresses that one attempt tries at most; RFC 5321 5.1 asks for two at least.
const MAX_ADDRESSES: usize = 8;
/// Wait for a TCP connection. RFC 5321 has no figure; the system's own of two minutes would hold a place too long.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(30);

/// What attempts share.
pub struct Courier {
    /// Our name in EHLO.
    pub hostname: String,
    /// Looks up mail exchangers.
    pub mx: Mx,
    /// Know how hosts must prove themselves.
    pub policies: Policies,
    /// Sessions for the next message.
    pub shelf: Shelf,
    /// Addresses that mail by MX leaves from.
    pub sources: Sources,
    /// Takes what came of TLS; absent where no TLS reports are sent.
    pub observer: Option<Observer>,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Attempt {
    /// For each recipient, in the envelope's order.
    pub outcomes: Vec<Outcome>,
    /// Who said so; absent where no host was reached.
    pub host: Option<String>,
    /// Version and cipher; absent in clear.
    pub tls: Option<String>,
    /// How the host proved itself; absent where none was reached.
    pub proof: Option<Proof>,
    /// What it says about the destination.
    pub contact: Contact,
    /// The host knows DSN (RFC 3461), and tells the sender what he asked to be told.
    pub knows_dsn: bool,
    /// The session, where it can take another message.
    pub session: Option<Kept>,
}

/// What an attempt says about its destination, beside the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// Nobody was asked.
    None,
    /// No host could be talked to, or one refused all mail alike: at its greeting, at EHLO, at MAIL, or with 421.
    Failed,
    /// A host looked at the message's recipients, or at MAIL said something of this message alone.
    Made,
}

impl Attempt {
    /// The same outcome for all recipients, and nobody was talked to.
    pub fn all(envelope: &Envelope, outcome: &Outcome) -> Self {
        Self {
            contact: Contact::Failed,
            ..Self::not_made(vec![outcome.clone(); envelope.recipients.len()])
        }
    }

    /// Nobody was asked: what we found ourselves.
    pub fn not_made(outcomes: Vec<Outcome>) -> Self {
        Self {
            outcomes,
            host: None,
            tls: None,
            proof: None,
            contact: Contact::None,
            knows_dsn: false,
            session: None,
        }
    }

    /// A host of our own that wants a login, or another one, says nothing about the message: the operator mends it, and it waits.
    fn without_refused_logins(mut self) -> Self {
        for outcome in &mut self.outcomes {
            // RFC 4954 section 6.
            if let Outcome::Permanent(reply) = outcome
                && matches!(reply.code.value(), 530 | 534 | 535 | 538)
            {
                *outcome = Outcome::Transient(replies::next_hop_login(&reply.to_string()));
            }
        }
        self
    }

    /// Why the host takes no mail from us until the operator mends our login, where that is so.
    pub fn refused_login(&self) -> Option<&Reply> {
        let replies = self.outcomes.iter().map(Outcome::reply);
        replies.into_iter().find(|reply| {
            reply
                .enhanced
                .is_some_and(|code| (code.subject, code.detail) == (7, 8))
        })
    }

    /// The destination is unreachable for any mail, for now.
    pub fn is_unreachable(&self) -> bool {
        let transient = |outcome: &Outcome| matches!(outcome, Outcome::Transient(_));
        self.contact == Contact::Failed && self.outcomes.iter().all(transient)
    }
}

/// How the hosts of a hop are approached.
struct Way<'a> {
    port: u16,
    encryption: &'a Encryption,
    /// Whether what the recipients' domain publishes counts.
    published: bool,
    door: &'a Door,
    /// Where connections come from; the system chooses where there is none.
    source: Option<&'a Source>,
}

impl Courier {
    /// Tries to deliver, over a session that has just delivered to this destination where there is one. A message that asks for
    /// more encryption than others, or for less, has its own connection: what was good enough for one is not for the other.
    pub async fn attempt(
        &self,
        hop: &Hop,
        destination: &Destination,
        envelope: Envelope,
        content: &Content,
    ) -> Attempt {
        if envelope.require_tls || content.waives_tls() {
            let mut attempt = self.anew(hop, destination, envelope, content).await;
            if let Some(kept) = attempt.session.take() {
                kept.connection.end();
            }
            return attempt;
        }
        let mut again = None;
        while let Some(kept) = self.shelf.take(destination).await {
            again = kept.deliver(envelope.clone(), content).await;
            if again.is_some() {
                break;
            }
        }
        let mut attempt = match again {
            Some(attempt) => attempt,
            None => self.anew(hop, destination, envelope, content).await,
        };
        if let Some(kept) = attempt.session.take() {
            self.shelf.put(destination, kept);
        }
        attempt
    }

    /// Over a new connection. A fixed hop does not look at the recipients' domain.
    async fn anew(
        &self,
        hop: &Hop,
        destination: &Destination,
        envelope: Envelope,
        content: &Content,
    ) -> Attempt {
        let domain: &str = &destination.domain;
        let fixed = matches!(hop, Hop::Smtp { .. });
        let open = Door::default();
        let (hosts, way) = match hop {
            Hop::Lmtp(socket) => return self.lmtp(socket, envelope, content).await,
            Hop::Smtp {
                host,
                port,
                encryption,
                door,
            } => {
                let way = Way {
                    port: *port,
                    encryption,
                    published: false,
                    door,
                    source: None,
                };
                (Ok(Mx::fixed(host)), way)
            }
            Hop::Mx {
                port,
                encryption,
                exceptions,
                exempt,
            } => {
                let excepted = dns::a_labels(domain).is_some_and(|domain| exceptions.contains(&domain));
                // The author's waiver reaches what the domain publishes, too (RFC 8689 5); REQUIRETLS is above it.
                let waived = !envelope.require_tls && content.waives_tls();
                let way = Way {
                    port: *port,
                    encryption: if excepted || waived { exempt } else { encryption },
                    published: !waived,
                    door: &open,
                    source: destination
                        .source
                        .as_ref()
                        .and_then(|name| self.sources.get(name)),
                };
                (self.mx.hosts(domain, &self.hostname).await, way)
            }
        };
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(reply) => return Attempt::all(&envelope, &reply.into()),
        };
        let mut last = None;
        // Nothing fails for good while one of the hosts may only be out of reach for now.
        let mut note = |outcome| {
            let hope =
                matches!(last, Some(Outcome::Transient(_))) && matches!(outcome, Outcome::Permanent(_));
            if !hope {
                last = Some(outcome);
            }
        };
        let mut left = MAX_ADDRESSES;
        for host in &hosts.list {
            let (addresses, demand) = match self.approach(&way, domain, host, hosts.authentic).await {
                Ok((_, demand)) if envelope.require_tls && demand.proof == Proof::None => {
                    let unproven = Outcome::from(reasons::unproven(host.name()));
                    // A fixed hop is configured so: waiting would not help.
                    if fixed {
                        return Attempt::all(&envelope, &unproven);
                    }
                    note(unproven);
                    continue;
                }
                Ok(approach) => approach,
                Err(reply) => {
                    note(reply.into());
                    continue;
                }
            };
            for address in addresses.into_iter().take(left) {
                left -= 1;
                let to = SocketAddr::new(address, way.port);
                match self.smtp(&way, host, to, &demand, &envelope, content).await {
                    Ok(attempt) if fixed => return attempt.without_refused_logins(),
                    Ok(attempt) => return attempt,
                    Err(outcome) => note(outcome),
                }
            }
        }
        // One of our own hosts that will not talk to us says nothing about the message: it waits.
        let last = match last.unwrap_or_else(|| Outcome::Transient(reasons::no_address(domain))) {
            Outcome::Permanent(reply) if fixed => Outcome::Transient(reply),
            other => other,
        };
        Attempt::all(&envelope, &last)
    }

    /// A host's addresses, and what is demanded of it. `authentic`: the DNS proves that it is the domain's.
    async fn approach(
        &self,
        way: &Way<'_>,
        domain: &str,
        host: &Host,
        authentic: bool,
    ) -> Result<(Vec<IpAddr>, Demand), Reply> {
        let found = self.mx.addresses(host).await?;
        let demand = if way.published {
            let question = Question {
                domain,
                host: host.name(),
                port: way.port,
                tlsa_bases: if authentic { &found.tlsa_bases } else { &[] },
                encryption: way.encryption,
            };
            let mut faults = Vec::new();
            let demand = self.policies.demand(&question, &mut faults).await;
            let peer = Peer::unmet(host.name());
            for fault in &faults {
                self.observe(fault, &peer, &Negotiation::default());
            }
            demand?
        } else {
            way.encryption.demand(host.name())?
        };
        Ok((found.list, demand))
    }

    /// One address of one host; `Err` where it could not be talked to.
    async fn smtp(
        &self,
        way: &Way<'_>,
        host: &Host,
        to: SocketAddr,
        demand: &Demand,
        envelope: &Envelope,
        content: &Content,
    ) -> Result<Attempt, Outcome> {
        let (mut policy, mut chunking) = (demand.tls, true);
        loop {
            let (stream, from) = connect(host, to, way.source).await?;
            let peer = Peer::met(host.name(), to.ip(), from);
            let mut negotiation = Negotiation::default();
            let exchange = Exchange {
                config: self.session(Dialect::Smtp, policy, way.source),
                handshake: demand.handshake.as_ref(),
                host: &demand.describe(host.name()),
                chunking,
                door: way.door,
            };
            let result = exchange
                .run(stream, envelope.clone(), content, &mut negotiation)
                .await;
            if let Some(judged) = demand.judged.as_ref().filter(|_| negotiation.result.is_some()) {
                self.observe(judged, &peer, &negotiation);
            }
            match result {
                // Opportunistic encryption that fails is no encryption, not no mail (RFC 7435 3).
                Err(session::Unusable::Handshake(_)) if policy == client::Tls::IfOffered => {
                    policy = client::Tls::Never;
                }
                // It does not know what it offers: the same once more, by DATA.
                Err(session::Unusable::Refused(client::Failure::Chunking(_))) if chunking => chunking = false,
                Err(unusable) => return Err(unusable.outcome()),
                // Another host may promise what this one does not (RFC 8689 4.2.1).
                Ok(answers) if envelope.require_tls && is_unpromised(&answers.outcomes) => {
                    return Err(Outcome::Permanent(replies::next_hop_without_require_tls()));
                }
                Ok(answers) => {
                    let proof = answers.tls.as_ref().map_or(Proof::None, |_| demand.proof);
                    return Ok(answers.attempt(format!("{} ({})", host.name(), to.ip()), proof, 1));
                }
            }
        }
    }

    async fn lmtp(&self, socket: &LmtpSocket, envelope: Envelope, content: &Content) -> Attempt {
        let (name, stream) = match socket {
            LmtpSocket::Unix(path) => (
                path.display().to_string(),
                UnixStream::connect(path)
                    .await
                    .map(|stream| Box::new(stream) as Stream),
            ),
            LmtpSocket::Tcp(address) => (
                address.to_string(),
                tcp(*address, None).await.map(|stream| Box::new(stream) as Stream),
            ),
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                return Attempt::all(
                    &envelope,
                    &Outcome::Transient(reasons::cannot_connect(&name, error)),
                );
            }
        };
        let config = self.session(Dialect::Lmtp, client::Tls::Never, None);
        let exchange = Exchange {
            config,
            handshake: None,
            host: &name,
            chunking: false,
            door: &Door::default(),
        };
        let mut negotiation = Negotiation::default();
        match exchange
            .run(stream, envelope.clone(), content, &mut negotiation)
            .await
        {
            Ok(answers) => answers.attempt(name, Proof::None, 1),
            Err(unusable) => {
                let outcome = unusable.outcome();
                Attempt::all(&envelope, &Outcome::Transient(outcome.reply().clone()))
            }
        }
    }

    /// Notes for the domain's TLS report what came of one session, or what is wrong with a policy.
    fn observe(&self, judged: &Judged, peer: &Peer<'_>, negotiation: &Negotiation) {
        if let Some(observer) = &self.observer {
            observer.note(judged.seen(peer, negotiation));
        }
    }

    fn session(&self, dialect: Dialect, tls: client::Tls, source: Option<&Source>) -> client::Config {
        client::Config {
            dialect,
            helo: source.map_or(&self.hostname, |source| &source.helo).clone(),
            tls,
            pipelining: true,
        }
    }
}

/// Whether the host was not asked to take the message, as it does not offer REQUIRETLS.
fn is_unpromised(outcomes: &[Outcome]) -> bool {
    let reply = replies::next_hop_without_require_tls();
    !outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome.reply() == reply)
}

/// The connection, and the address that it comes from.
async fn connect(
    host: &Host,
    to: SocketAddr,
    source: Option<&Source>,
) -> Result<(Stream, Option<IpAddr>), Outcome> {
    let name = format!("{} at {to}", host.name());
    let from = match source.map(|source| source.address_towards(&to)) {
        Some(None) => return Err(reasons::no_source(name).into()),
        from => from.flatten(),
    };
    match tokio::time::timeout(CONNECT, tcp(to, from)).await {
        Ok(Ok(stream)) => {
            let from = stream.local_addr().ok().map(|address| address.ip());
            Ok((Box::new(stream), from))
        }
        Ok(Err(error)) => Err(reasons::cannot_connect(name, error).into()),
        Err(_) => Err(reasons::timeout(CONNECT.as_secs()).into()),
    }
}

async fn tcp(to: SocketAddr, from: Option<SocketAddr>) -> std::io::Result<TcpStream> {
    let stream = match from {
        Some(from) => {
            let socket = if from.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.bind(from)?;
            socket.connect(to).await?
        }
        None => TcpStream::connect(to).await?,
    };
    // Commands and replies alternate: waiting to fill a segment would cost a round trip each time.
    stream.set_nodelay(true)?;
    notice_death(&stream)?;
    Ok(stream)
}

/// A host that lost its power says nothing, and the protocol's own time-outs allow ten minutes of that. TCP is made to ask:
/// half a minute of silence, then three questions, and what is sent must be acknowledged within a minute. A host
/// that is merely slow answers both in its kernel.
fn notice_death(stream: &TcpStream) -> std::io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &30)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &60_000)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[tokio::test]
    async fn a_connection_notices_a_dead_host() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!getsockopt(&stream, sockopt::KeepAlive).unwrap());
        notice_death(&stream).unwrap();
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), 30);
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout).unwrap(), 60_000);
    }
}
