//! One connection: the I/O around [`postern_smtp::server::Session`].
//!
//! The session says what to do next; here it is done. Replies are gathered until the session needs input, so that a
//! pipelined batch is answered in one write (RFC 2920). Time: a command, and each piece of a message, must make progress
//! within its limit (RFC 5321 section 4.5.3.2); a stranger's message must come at some pace, and a stranger must come to
//! the point, since both hold what others wait for.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use postern_control::EventKind;
use postern_smtp::replies;
use postern_smtp::reply::Reply;
use postern_smtp::server::{Config as SessionConfig, Limits, Session, Step, Submitter, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::body::Body;
use super::client::Looked;
use super::permit::{Because, Denial, Parties};
use super::stress::Times;
use super::submission::Inward;
use super::{Purpose, Server};
use crate::checks::scanner::Stream;
use crate::config::{Authentication, InboundTls, Submission};
use crate::handover::FIELDS;

const COMMAND_BUFFER: usize = 4 * 1024;
const FIRST_BUFFER: usize = 16 * 1024;
const MESSAGE_BUFFER: usize = 64 * 1024;
/// What a wrong password costs.
const AUTH_DELAY: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Octets per second at which a stranger's message must come, measured over each `data-timeout`.
const PACE: u64 = 512;
/// And of what has come the part that must come in that time again: who holds much memory may not hold it for long.
const PART: u64 = 16;
/// How many times `command-timeout` a stranger may talk without a message.
const TALK: u64 = 12;
/// Received fields likewise.
const HOPS_OF_NODES: u32 = 10;

/// A client and what is known of it.
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) peer: IpAddr,
    pub(super) trace: String,
    pub(super) session: Session,
    /// Proved itself by certificate or is a trusted address.
    pub(super) trusted: bool,
    /// Where a submission is passed inward.
    pub(super) inward: Option<Inward>,
    /// Whose submission the gateway passes on.
    pub(super) submitter: Option<Submitter>,
    /// Logged in, by the name Dovecot knows.
    pub(super) user: Option<String>,
    /// Bare reverse-path of the transaction; empty for the null one.
    pub(super) sender: String,
    pub(super) body: Body,
    purpose: Purpose,
    pub(super) looked: Looked,
    out: Vec<u8>,
    receiving: bool,
    /// When the connection, its last message, the message that is coming, or its last stretch at the wanted pace began.
    since: Instant,
    /// Octets of the message that is coming, and of its last stretch.
    received: u64,
    stretch: u64,
    /// The session's next reply is a decision that was told already.
    told: bool,
}

impl Connection {
    pub(super) fn new(server: Arc<Server>, peer: IpAddr, trace: String, purpose: Purpose) -> Self {
        let session = Session::new(session_config(&server, purpose));
        let inward = passes_inward(&server, purpose).then(Inward::default);
        let trusted = server
            .instance
            .trusted_addresses
            .iter()
            .any(|network| network.contains(peer));
        let stranger = server.is_stranger(peer);
        let body = Body::new(if stranger {
            server.memory.of_stranger(peer)
        } else {
            server.memory.of_known()
        });
        Self {
            server,
            peer,
            trace,
            session,
            trusted,
            inward,
            submitter: None,
            user: None,
            sender: String::new(),
            body,
            purpose,
            looked: Looked::default(),
            out: Vec::new(),
            receiving: false,
            since: Instant::now(),
            received: 0,
            stretch: 0,
            told: false,
        }
    }

    /// Serves the client to the end.
    pub(super) async fn run(mut self, stream: TcpStream, stopped: watch::Receiver<bool>) {
        let reason = match self.serve(stream, stopped).await {
            Ok(reason) => reason.to_owned(),
            Err(error) => error.to_string(),
        };
        self.server.events.emit(
            Some(&self.trace),
            None,
            EventKind::Disconnected { reason: Some(reason) },
        );
    }

    async fn serve(
        &mut self,
        stream: TcpStream,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<&'static str> {
        if self.speaks_first(&stream).await {
            let mut wire: Box<dyn Stream> = Box::new(stream);
            return self.farewell(&mut wire, "connect", replies::early_talker()).await;
        }
        let mut wire: Box<dyn Stream> = Box::new(stream);
        if self.purpose == Purpose::Submissions {
            wire = self.encrypt(wire).await?;
        }
        let mut buffer = vec![0; COMMAND_BUFFER];
        self.session.greeting().write_to(&mut self.out);
        let mut deadline = self.deadline();
        let mut stress = self.server.stress.changes();
        let stranger = self.server.is_stranger(self.peer);
        loop {
            self.flush(&mut wire).await?;
            if Instant::now() >= self.patience() {
                return self
                    .farewell(&mut wire, "timeout", replies::session_too_long())
                    .await;
            }
            let idle = self.session.transaction().is_none() && !self.receiving;
            let length = tokio::select! {
                read = timeout_at(deadline, wire.read(&mut buffer)) => match read {
                    Ok(read) => read?,
                    Err(_) if Instant::now() >= self.patience() => {
                        return self.farewell(&mut wire, "timeout", replies::session_too_long()).await;
                    }
                    Err(_) => return self.farewell(&mut wire, "timeout", replies::timeout()).await,
                },
                _ = stress.changed(), if stranger => {
                    // From now on the other limit counts; nobody is too late for it at once.
                    deadline = self.deadline();
                    continue;
                }
                () = asked_to_stop(&mut stopped), if idle => {
                    return self.farewell(&mut wire, "stop", replies::shutting_down()).await;
                }
            };
            if length == 0 {
                return Ok("the client closed the connection");
            }
            let mut input = &buffer[..length];
            loop {
                let errors = self.session.errors();
                let progress = match self.session.input(&mut input) {
                    Step::NeedInput => break,
                    Step::Close(reply) => return self.farewell(&mut wire, "command", reply).await,
                    Step::StartTls(reply) => {
                        reply.write_to(&mut self.out);
                        self.flush(&mut wire).await?;
                        wire = self.encrypt(wire).await?;
                        break;
                    }
                    Step::Chunk(octets) => {
                        self.body.push(octets);
                        self.keep_pace(octets.len() as u64);
                        self.server.note_stress();
                        true
                    }
                    step => {
                        self.flush_before_work(&mut wire, &step).await?;
                        self.decide(step).await;
                        true
                    }
                };
                if progress {
                    deadline = self.deadline();
                }
                if self.session.errors() > errors && self.errs_too_often() {
                    return self
                        .farewell(&mut wire, "command", replies::too_many_errors())
                        .await;
                }
            }
            let wanted = match self.receiving {
                false => COMMAND_BUFFER,
                // Most messages are small, and room costs time: it is made anew for each.
                true if length == buffer.len() => (4 * length).min(MESSAGE_BUFFER),
                true => buffer.len().max(FIRST_BUFFER),
            };
            if buffer.len() != wanted {
                buffer = vec![0; wanted];
            }
        }
    }

    /// Everything that is not I/O.
    async fn decide(&mut self, step: Step<'_>) {
        match step {
            Step::Reply(reply) => {
                if !std::mem::take(&mut self.told) && (reply.is_transient() || reply.is_permanent()) {
                    self.refused("command", &reply, None, Vec::new());
                }
                reply.write_to(&mut self.out);
                if self.receiving && self.session.transaction().is_none() {
                    // RSET between two chunks: the message is over without an end.
                    self.receiving = false;
                    self.body.clear();
                }
            }
            Step::Auth(credentials) => {
                let decision = self.may_log_in(&credentials).await;
                // Outside it is the gateway that lets the client wait.
                if decision.is_err() && self.inward.is_none() && self.submitter.is_none() {
                    tokio::time::sleep(AUTH_DELAY).await;
                }
                let decision = self.tell("auth", Vec::new(), decision);
                self.session.authentication(decision);
            }
            Step::Mail(mail) => {
                let decision = self.may_send(&mail).await;
                let decision = self.tell("mail", Vec::new(), decision);
                self.session.mail(decision);
            }
            Step::VerifyRecipient(recipient) => {
                let decision = self.may_be_sent_to(&recipient).await;
                let decision = self.tell("rcpt", vec![recipient.path.to_string()], decision);
                self.session.recipient(decision);
            }
            Step::Submit(submitter) => {
                self.submits(submitter);
                self.session.submission(Ok(()));
            }
            Step::MessageStarted => {
                self.body.clear();
                self.receiving = true;
                self.since = Instant::now();
                (self.received, self.stretch) = (0, 0);
            }
            Step::MessageComplete(message) => {
                let reply = self.take_message(&message).await;
                self.receiving = false;
                self.since = Instant::now();
                self.body.clear();
                self.server.note_stress();
                self.told = true;
                self.session.verdict(reply);
            }
            Step::MessageRefused(reply) => {
                self.refused("message", &reply, None, Vec::new());
                self.receiving = false;
                self.body.clear();
                reply.write_to(&mut self.out);
            }
            Step::NeedInput | Step::StartTls(_) | Step::Chunk(_) | Step::Close(_) => {}
        }
    }

    /// Tells a refusal and turns it into the session's decision.
    fn tell(&mut self, stage: &str, to: Vec<String>, decision: Result<(), Denial>) -> Result<(), Reply> {
        self.told = true;
        decision.map_err(|denial| {
            self.refused(stage, &denial.reply, denial.because.as_ref(), to);
            denial.reply
        })
    }

    /// Tells of a refusal, and whose mail it was.
    pub(super) fn refused(&self, stage: &str, reply: &Reply, because: Option<&Because>, to: Vec<String>) {
        let told = matches!(stage, "mail" | "rcpt" | "message");
        let from = told.then(|| self.sender.clone());
        self.server
            .refused(&self.trace, stage, reply, because, Parties { from, to });
    }

    /// Whether a stranger sends before the greeting (RFC 5321 section 4.3.1): what bulk senders do that do not read replies.
    async fn speaks_first(&self, stream: &TcpStream) -> bool {
        let open = self.server.instance.authentication == Authentication::None;
        let delay = Duration::from_millis(self.server.config.limits.greeting_delay);
        if !open || self.purpose != Purpose::Mx || delay.is_zero() || self.server.config.is_listed(self.peer)
        {
            return false;
        }
        matches!(
            tokio::time::timeout(delay, stream.peek(&mut [0])).await,
            Ok(Ok(1))
        )
    }

    async fn encrypt(&mut self, plain: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        let Some(tls) = self.server.tls.clone() else {
            return Err(io::Error::other("STARTTLS without TLS"));
        };
        let accepted = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(plain)).await;
        let stream = accepted
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .and_then(|result| result)
            .map_err(|error| io::Error::other(format!("the TLS handshake failed: {error}")))?;
        let connection = stream.get_ref().1;
        let info = crate::tls::info(connection);
        let peer_name = crate::tls::proven_name(connection, &self.server.instance.trusted_names);
        self.trusted |= peer_name.is_some();
        let is_gateway = self.server.outside.is_some() && peer_name.is_some();
        let event = EventKind::Tls {
            version: info.version.clone(),
            cipher: info.cipher.clone(),
            peer_name,
        };
        self.server.events.emit(Some(&self.trace), None, event);
        self.session.tls_established(info);
        if is_gateway {
            self.session.offer_submission();
        }
        Ok(Box::new(stream))
    }

    /// Slow work is coming: what was gathered goes out first.
    async fn flush_before_work(&mut self, wire: &mut Box<dyn Stream>, step: &Step<'_>) -> io::Result<()> {
        match step {
            Step::Auth(_) | Step::Mail(_) | Step::VerifyRecipient(_) | Step::MessageComplete(_) => {
                self.flush(wire).await
            }
            _ => Ok(()),
        }
    }

    async fn flush(&mut self, wire: &mut Box<dyn Stream>) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = async {
            wire.write_all(&self.out).await?;
            wire.flush().await
        };
        let limit = Duration::from_secs(self.server.config.limits.command_timeout);
        tokio::time::timeout(limit, written)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.out.clear();
        Ok(())
    }

    /// Sends the last reply and closes.
    async fn farewell(
        &mut self,
        wire: &mut Box<dyn Stream>,
        stage: &str,
        reply: Reply,
    ) -> io::Result<&'static str> {
        let refused = reply.is_transient() || reply.is_permanent();
        if refused {
            self.refused(stage, &reply, None, Vec::new());
        }
        reply.write_to(&mut self.out);
        self.flush(wire).await?;
        if !refused {
            // The client has said QUIT and waits for nothing but this.
            let _ = tokio::time::timeout(Duration::from_secs(2), wire.shutdown()).await;
            return Ok("closed by us");
        }
        // What the client still sends is read for a moment: a reset because of unread octets would destroy the reply.
        let _ = tokio::time::timeout(Duration::from_secs(2), async {
            wire.shutdown().await?;
            let mut rest = [0; 1024];
            for _ in 0..64 {
                if wire.read(&mut rest).await? == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        })
        .await;
        Ok("closed by us")
    }

    fn deadline(&self) -> Instant {
        let times = self.times();
        let seconds = if self.receiving { times.data } else { times.command };
        (Instant::now() + Duration::from_secs(seconds)).min(self.patience())
    }

    /// Octets have come; a stretch that is whole buys time for the next.
    fn keep_pace(&mut self, octets: u64) {
        self.received += octets;
        self.stretch += octets;
        if self.stretch >= stretch(self.times(), self.received) {
            (self.since, self.stretch) = (Instant::now(), 0);
        }
    }

    /// How long a stranger is borne with, whatever progress he makes.
    fn patience(&self) -> Instant {
        if self.server.instance.authentication != Authentication::None {
            // Our own nodes keep connections for hours.
            return Instant::now() + Duration::from_hours(24);
        }
        // What went before the stress is not held against him.
        let since = self.stress().map_or(self.since, |began| self.since.max(began));
        since + borne_with(self.times(), self.receiving)
    }

    /// Since when there is stress, for whom that matters.
    fn stress(&self) -> Option<Instant> {
        self.server
            .stress
            .since()
            .filter(|_| self.server.is_stranger(self.peer))
    }

    fn times(&self) -> Times {
        let config = &self.server.config;
        match self.stress() {
            Some(_) => Times::short(&config.limits, &config.stress),
            None => Times::usual(&config.limits),
        }
    }

    /// Whether he makes more errors than there is room for now.
    fn errs_too_often(&self) -> bool {
        let errors = usize::try_from(self.session.errors()).unwrap_or(usize::MAX);
        self.stress().is_some() && !self.receiving && errors >= self.server.config.stress.max_errors
    }
}

/// How long a stranger may take: for a stretch of a message, or, without one, to come to the point.
fn borne_with(times: Times, receiving: bool) -> Duration {
    if receiving {
        Duration::from_secs(times.data)
    } else {
        Duration::from_secs(times.command.saturating_mul(TALK))
    }
}

/// Octets that make a stretch of a message of which so many have come.
fn stretch(times: Times, received: u64) -> u64 {
    // The same pace, whatever time it is measured over.
    let part = (received / PART).saturating_mul(times.data) / times.usual_data.max(1);
    PACE.saturating_mul(times.data).max(part)
}

/// Returns when the process is asked to stop.
async fn asked_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the accept loop is gone, which is the same.
    let _ = stopped.wait_for(|stopped| *stopped).await.map(|_| ());
}

/// AUTH on the submission ports of the gateway is the inside's affair.
fn passes_inward(server: &Server, purpose: Purpose) -> bool {
    server.instance.submission == Submission::PassInward && purpose != Purpose::Mx
}

fn session_config(server: &Server, purpose: Purpose) -> SessionConfig {
    let submission = purpose != Purpose::Mx;
    let limits = &server.config.limits;
    let mut config = SessionConfig::new(server.config.hostname.clone());
    config.tls = match server.instance.tls {
        InboundTls::Offered if submission => Tls::Required,
        InboundTls::Required => Tls::Required,
        InboundTls::Offered => Tls::Offered,
        InboundTls::Off => Tls::Off,
    };
    config.offer_auth = server.logins.is_some() || passes_inward(server, purpose);
    config.require_auth = server.logins.is_some() || submission;
    config.limits = Limits {
        message_size: limits.max_message_size,
        recipients: limits.max_recipients,
        errors: u32::try_from(limits.max_errors).unwrap_or(u32::MAX),
        hops: u32::try_from(limits.max_hops).unwrap_or(u32::MAX),
        ..Limits::default()
    };
    if server.instance.authentication == Authentication::ClientCertificate {
        allow_for_nodes(&mut config.limits);
    }
    config
}

/// What one of our nodes has taken, the next one takes too, with the fields that were put in front on the way: a refusal
/// now would come after the 250.
fn allow_for_nodes(limits: &mut Limits) {
    limits.message_size = limits.message_size.saturating_add(FIELDS);
    limits.header_size = limits.header_size.saturating_add(FIELDS);
    limits.hops = limits.hops.saturating_add(HOPS_OF_NODES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_who_drips_is_not_borne_with_for_ever() {
        let limits = Times::usual(&crate::config::Limits::default());
        assert_eq!(borne_with(limits, false), Duration::from_hours(1));
        assert_eq!(borne_with(limits, true), Duration::from_mins(10));
        // One octet every ten minutes does not keep a place for years, nor 300 KiB in ten minutes 50 MiB of memory.
        assert_eq!(stretch(limits, 1), 512 * 600);
        assert_eq!(stretch(limits, 48 << 20), 3 << 20);
        // 50 MiB at 64 kbit/s still arrive.
        assert!(stretch(limits, 50 << 20) < 8000 * 600);
        // Near capacity the pace is the same.
        let short = Times { data: 60, ..limits };
        assert_eq!(stretch(short, 1) * 10, stretch(limits, 1));
        assert_eq!(stretch(short, 50 << 20) * 10, stretch(limits, 50 << 20));
    }

    #[test]
    fn the_next_node_takes_what_the_last_one_took() {
        let mut limits = Limits::default();
        let taken = limits;
        allow_for_nodes(&mut limits);
        // Received, Authentication-Results at its longest, the marks.
        let fields = 32 * 1024;
        assert!(limits.message_size >= taken.message_size + fields);
        assert!(limits.header_size >= taken.header_size + fields);
        assert!(limits.hops > taken.hops);
        // The queue takes a mebibyte more than `max-message-size`.
        assert!(limits.message_size + fields <= taken.message_size + (1 << 20));
    }
}
