//! The client side of a session, for SMTP (RFC 5321) and LMTP (RFC 2033), with PIPELINING (RFC 2920) and CHUNKING (RFC 3030).
//!
//! Enters: octets, and envelopes to deliver. Leaves: one [`Step`] after the other, and for every recipient an
//! [`Outcome`] that rests on the reply of the server. The steps of a session, in order:
//!
//! 1. greeting, EHLO or LHLO, STARTTLS if the route asks for it, EHLO again, AUTH if we are to log in;
//! 2. [`Step::Ready`]: the caller delivers an envelope, verifies recipients, or quits;
//! 3. MAIL, RCPT and DATA or the first BDAT, in one flight where the server offers PIPELINING;
//! 4. the content, strictly checked, then one reply (SMTP) or one for each recipient (LMTP);
//! 5. [`Step::Done`], and on to 2 again.
//!
//! ```
//! use postern_smtp::client::{Config, Dialect, Envelope, Outcome, Recipient, Session, Step, Tls};
//!
//! /// Goes on with what was read; gives what is to be written, and the outcomes once they are known.
//! fn go_on(session: &mut Session, mut input: &[u8], envelope: &Envelope) -> (Vec<u8>, Option<Vec<Outcome>>) {
//!     let mut out = Vec::new();
//!     loop {
//!         match session.input(&mut input) {
//!             Step::NeedInput => return (out, None),
//!             Step::Send(octets) => out.extend(octets),
//!             Step::Ready => session.deliver(envelope.clone()),
//!             Step::SendBody => {
//!                 let sent = session.body(b"Subject: x\r\n\r\n.\r\n", &mut out);
//!                 sent.and_then(|()| session.end_body(&mut out)).expect("the content is clean");
//!             }
//!             Step::Done(outcomes) => return (out, Some(outcomes)),
//!             Step::StartTls => unreachable!("the configuration says never"),
//!             Step::Failed(failure) => panic!("{failure}"),
//!             Step::Closed => return (out, Some(session.connection_lost())),
//!         }
//!     }
//! }
//!
//! let path = "a@example.org".parse().expect("an address");
//! let envelope = Envelope {
//!     reverse_path: "b@example.net".parse().expect("an address"),
//!     recipients: vec![Recipient { path, notify: None, orcpt: None }],
//!     size: 17, eight_bit: false, smtputf8: false, require_tls: false, ret: None, envid: None,
//! };
//! let config = Config { dialect: Dialect::Smtp, helo: "c.example".into(), tls: Tls::Never, pipelining: true };
//! let mut session = Session::new(config);
//! assert_eq!(go_on(&mut session, b"220 mx\r\n", &envelope).0, b"EHLO c.example\r\n");
//! let (flight, _) = go_on(&mut session, b"250-mx\r\n250 PIPELINING\r\n", &envelope);
//! assert_eq!(flight, b"MAIL FROM:<b@example.net>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n");
//! let (content, _) = go_on(&mut session, b"250 ok\r\n250 ok\r\n354 go\r\n", &envelope);
//! assert_eq!(content, b"Subject: x\r\n\r\n..\r\n.\r\n");
//! let (_, outcomes) = go_on(&mut session, b"250 2.0.0 queued as 7\r\n", &envelope);
//! assert!(matches!(outcomes.as_deref(), Some([Outcome::Delivered(reply)]) if reply.text() == "queued as 7"));
//! ```

mod extensions;
mod login;
mod transaction;
mod types;

use std::collections::VecDeque;

use crate::bdat;
use crate::content::ContentError;
use crate::data::Stuffer;
use crate::replies;
use crate::reply::{Parser, Reply};
use login::Saying;
use transaction::{Bdat, Form, Transaction};

pub use extensions::{Extensions, Limits};
pub use login::{BadLogin, Login};
pub use transaction::{mail_line, rcpt_line};
pub use types::{Config, Dialect, Envelope, Failure, Outcome, Recipient, Tls};

/// What the caller is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All input is taken: read more.
    NeedInput,
    /// Write the octets.
    Send(Vec<u8>),
    /// Do the handshake, then call [`Session::tls_established`]; if it fails, close.
    StartTls,
    /// Call [`Session::deliver`], [`Session::verify`] or [`Session::quit`].
    Ready,
    /// Give the content to [`Session::body`], then call [`Session::end_body`], writing what they append.
    SendBody,
    /// The transaction is over: an outcome for every recipient, in the order of the envelope.
    Done(Vec<Outcome>),
    /// The session cannot be used; close the connection. No envelope was under way, or none that was answered.
    Failed(Failure),
    /// QUIT was answered, or the server closes: close the connection.
    Closed,
}

#[derive(Debug)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Login(Saying),
    Ready,
    Transaction,
    /// The transaction is over, but for RSET.
    Reset,
    Quit,
    Failed(Failure),
    Closed,
}

/// A session with a server.
#[derive(Debug)]
pub struct Session {
    config: Config,
    state: State,
    parser: Parser,
    outgoing: VecDeque<Step>,
    extensions: Extensions,
    /// The first word of the greeting.
    peer_name: Option<String>,
    encrypted: bool,
    transaction: Option<Transaction>,
    mail_accepted: bool,
    /// The server has taken a chunk.
    knows_chunks: bool,
    login: Option<Login>,
}

impl Session {
    /// A session over a connection that was just made.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Greeting,
            parser: Parser::default(),
            outgoing: VecDeque::new(),
            extensions: Extensions::default(),
            peer_name: None,
            encrypted: false,
            transaction: None,
            mail_accepted: false,
            knows_chunks: false,
            login: None,
        }
    }

    /// The same, over a connection that is encrypted already.
    pub fn over_tls(config: Config) -> Self {
        Self {
            encrypted: true,
            ..Self::new(config)
        }
    }

    /// Logs in before the first transaction. Without encryption, or where the server refuses, the session is of no use.
    #[must_use]
    pub fn with_login(self, login: Option<Login>) -> Self {
        Self { login, ..self }
    }

    /// What the server offered last.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// What the server calls itself in its greeting (RFC 5321 section 4.2); absent before it has greeted.
    pub fn peer_name(&self) -> Option<&str> {
        self.peer_name.as_deref()
    }

    /// Whether the server took MAIL of the transaction that was begun last.
    pub fn mail_accepted(&self) -> bool {
        self.mail_accepted
    }

    /// Whether another transaction can begin, if need be after RSET.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready | State::Reset)
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the session is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Takes octets from the front of `input` until there is something to do.
    pub fn input(&mut self, input: &mut &[u8]) -> Step {
        loop {
            if let Some(step) = self.outgoing.pop_front() {
                return step;
            }
            if let Some(step) = self.idle() {
                return step;
            }
            match self.parser.input(input) {
                Ok(None) => return Step::NeedInput,
                Ok(Some(reply)) => self.reply(reply, !input.is_empty()),
                Err(error) => self.protocol_error(&error.to_string()),
            }
        }
    }

    /// TLS stands: EHLO is said again, and nothing that was offered before counts (RFC 3207 section 4.2).
    pub fn tls_established(&mut self) {
        self.encrypted = true;
        self.extensions = Extensions::default();
        self.greet();
    }

    /// Delivers a message to the recipients of an envelope; to be called after [`Step::Ready`].
    pub fn deliver(&mut self, envelope: Envelope) {
        self.begin(envelope, Form::Dots(Stuffer::default()));
    }

    /// The same by BDAT where the server offers CHUNKING (RFC 3030). The envelope's size must be that of the content, and
    /// `beginning` its first octets, one line at least.
    ///
    /// BDAT is not granted before its content follows, so a server that offers it and does not know it reads the content as
    /// commands. Until a server has taken a chunk, the first one is therefore a harmless line, and nothing follows before the
    /// reply; one that refuses it is [`Failure::Chunking`], and the message is to be sent by DATA over a new connection. Then a
    /// small message goes in one flight with its envelope (RFC 3030 section 4.2).
    pub fn deliver_chunked(&mut self, envelope: Envelope, beginning: &[u8]) {
        let offered = self.extensions.chunking && self.config.dialect == Dialect::Smtp && envelope.size > 0;
        let form = match bdat::opening(beginning) {
            _ if offered && self.knows_chunks => Form::Chunk(bdat::Writer::new(envelope.size)),
            Some(opening) if offered && (opening.len() as u64) < envelope.size => {
                Form::opened(envelope.size, opening)
            }
            _ => Form::Dots(Stuffer::default()),
        };
        self.begin(envelope, form);
    }

    /// Asks what the server says to the recipients, without a message; to be called after [`Step::Ready`].
    pub fn verify(&mut self, envelope: Envelope) {
        self.begin(envelope, Form::None);
    }

    /// Ends the session; to be called after [`Step::Ready`].
    pub fn quit(&mut self) {
        self.send("QUIT");
        self.state = State::Quit;
    }

    /// Appends a piece of content to `out`, in the form for the wire; to be called after [`Step::SendBody`].
    ///
    /// On an error the connection is to be closed at once: the server has not seen the end, so it must not deliver.
    pub fn body(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), ContentError> {
        match &mut self.transaction {
            Some(transaction) => transaction.body(piece, out),
            None => Ok(()),
        }
    }

    /// Appends the end of the content to `out`. For errors see [`Session::body`].
    pub fn end_body(&mut self, out: &mut Vec<u8>) -> Result<(), ContentError> {
        match &mut self.transaction {
            Some(transaction) => transaction.end_body(out),
            None => Ok(()),
        }
    }

    /// The connection broke: the outcomes of the transaction under way; none if there was none.
    ///
    /// Recipients without a reply of their own may be tried again.
    pub fn connection_lost(&mut self) -> Vec<Outcome> {
        self.state = State::Closed;
        self.abandon(&replies::connection_lost())
    }

    fn abandon(&mut self, reply: &Reply) -> Vec<Outcome> {
        self.transaction
            .take()
            .map(|transaction| transaction.abandon(reply))
            .unwrap_or_default()
    }

    fn begin(&mut self, envelope: Envelope, form: Form) {
        self.mail_accepted = false;
        if !matches!(self.state, State::Ready) {
            let count = envelope.recipients.len();
            let outcome = Outcome::from(replies::connection_lost());
            self.outgoing.push_back(Step::Done(vec![outcome; count]));
            return;
        }
        if envelope.recipients.is_empty() {
            self.outgoing.push_back(Step::Done(Vec::new()));
            return;
        }
        if let Some(reply) = self.extensions.refusal(&envelope, self.config.dialect) {
            let outcome = Outcome::from(reply);
            self.outgoing
                .push_back(Step::Done(vec![outcome; envelope.recipients.len()]));
            return;
        }
        let window = if self.config.pipelining && self.extensions.pipelining {
            transaction::WINDOW
        } else {
            1
        };
        let transaction = Transaction::new(envelope, &self.extensions, self.config.dialect, form, window);
        self.transaction = Some(transaction);
        self.state = State::Transaction;
        self.advance_transaction();
    }

    /// Steps that need no input.
    fn idle(&self) -> Option<Step> {
        match &self.state {
            State::Ready => Some(Step::Ready),
            State::Handshake => Some(Step::StartTls),
            State::Failed(failure) => Some(Step::Failed(failure.clone())),
            State::Closed => Some(Step::Closed),
            State::Transaction if self.transaction.as_ref().is_some_and(Transaction::wants_body) => {
                Some(Step::SendBody)
            }
            _ => None,
        }
    }

    /// `more` tells whether octets follow the reply; where we must speak next, the server could not have sent them yet.
    fn reply(&mut self, reply: Reply, more: bool) {
        match self.state {
            State::Greeting if reply.code.value() == 220 => {
                self.peer_name = reply.text().split_ascii_whitespace().next().map(str::to_owned);
                self.greet();
            }
            State::Greeting => self.fail(Failure::Greeting(reply)),
            State::Ehlo => self.ehlo_reply(reply),
            State::Helo if reply.is_positive() => self.log_in(),
            State::Reset if reply.is_positive() => self.state = State::Ready,
            State::Login(_) => self.login_reply(reply),
            State::Helo => self.fail(Failure::Ehlo(reply)),
            // Octets behind this reply were injected: whoever sent them wants them read as if they came through TLS.
            State::StartTls if reply.is_positive() && more => {
                self.protocol_error("octets follow the reply to STARTTLS");
            }
            State::StartTls if reply.is_positive() => self.state = State::Handshake,
            State::StartTls => self.start_tls_refused(reply),
            State::Transaction => self.transaction_reply(&reply, more),
            State::Reset | State::Quit => self.state = State::Closed,
            State::Handshake | State::Ready | State::Failed(_) | State::Closed => {
                self.protocol_error("a reply came that nothing asked for");
            }
        }
    }

    fn greet(&mut self) {
        let verb = match self.config.dialect {
            Dialect::Smtp => "EHLO",
            Dialect::Lmtp => "LHLO",
        };
        let line = format!("{verb} {}", self.config.helo);
        self.send(&line);
        self.state = State::Ehlo;
    }

    fn ehlo_reply(&mut self, reply: Reply) {
        if reply.is_positive() {
            self.extensions = Extensions::parse(&reply);
            return self.after_ehlo();
        }
        let old_server = self.config.dialect == Dialect::Smtp && reply.is_permanent();
        if old_server && self.config.tls != Tls::Required {
            let line = format!("HELO {}", self.config.helo);
            self.send(&line);
            self.state = State::Helo;
        } else {
            self.fail(Failure::Ehlo(reply));
        }
    }

    fn after_ehlo(&mut self) {
        if self.encrypted || self.config.tls == Tls::Never {
            self.log_in();
        } else if self.extensions.starttls {
            self.send("STARTTLS");
            self.state = State::StartTls;
        } else if self.config.tls == Tls::Required {
            self.fail(Failure::TlsNotOffered);
        } else {
            self.log_in();
        }
    }

    /// A password is never said in clear (RFC 4954 section 4).
    fn log_in(&mut self) {
        let Some(login) = &self.login else {
            self.state = State::Ready;
            return;
        };
        if !self.encrypted {
            return self.fail(Failure::LoginInClear);
        }
        match Saying::begin(login, &self.extensions) {
            Some((line, saying)) => {
                self.send(&line);
                self.state = State::Login(saying);
            }
            None => self.fail(Failure::NoLogin),
        }
    }

    fn login_reply(&mut self, reply: Reply) {
        if reply.is_positive() {
            self.state = State::Ready;
        } else if reply.is_intermediate()
            && let State::Login(saying) = &mut self.state
        {
            let line = saying.next();
            self.send(&line);
        } else {
            self.fail(Failure::Login(reply));
        }
    }

    fn start_tls_refused(&mut self, reply: Reply) {
        if self.config.tls == Tls::Required {
            self.fail(Failure::StartTls(reply));
        } else {
            self.log_in();
        }
    }

    fn transaction_reply(&mut self, reply: &Reply, more: bool) {
        let closes = reply.code.value() == 421;
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        if !transaction.reply(reply) {
            return self.protocol_error("a reply came that nothing asked for");
        }
        self.mail_accepted = transaction.mail_accepted;
        match &transaction.bdat {
            Bdat::Unproved => {}
            Bdat::Known => self.knows_chunks = true,
            Bdat::Unknown(reply) => {
                let failure = Failure::Chunking(reply.clone());
                self.transaction = None;
                return self.fail(failure);
            }
        }
        if closes {
            let outcomes = self.abandon(reply);
            self.outgoing.push_back(Step::Done(outcomes));
            self.state = State::Closed;
            return;
        }
        self.advance_transaction();
        if more && self.transaction.as_ref().is_some_and(Transaction::wants_body) {
            self.protocol_error("the content was answered before it was sent");
        }
    }

    /// Sends what may be sent, and ends the transaction once every reply is in.
    fn advance_transaction(&mut self) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let commands = transaction.commands();
        if !commands.is_empty() {
            self.outgoing.push_back(Step::Send(commands));
        }
        if let Some(outcomes) = transaction.finished() {
            let reset = transaction.needs_reset();
            self.transaction = None;
            self.outgoing.push_back(Step::Done(outcomes));
            if reset {
                self.send("RSET");
                self.state = State::Reset;
            } else {
                self.state = State::Ready;
            }
        }
    }

    fn protocol_error(&mut self, error: &str) {
        let reply = replies::next_hop_protocol(error);
        let outcomes = self.abandon(&reply);
        if !outcomes.is_empty() {
            self.outgoing.push_back(Step::Done(outcomes));
        }
        self.fail(Failure::Protocol(error.to_owned()));
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Failed(failure);
    }

    fn send(&mut self, line: &str) {
        self.outgoing
            .push_back(Step::Send(format!("{line}\r\n").into_bytes()));
    }
}

#[cfg(test)]
mod tests;
