//! The server side of a session (RFC 5321; STARTTLS by RFC 3207, AUTH by RFC 4954, CHUNKING by RFC 3030).
//!
//! Enters: octets, and the caller's decisions. Leaves: one [`Step`] after the other. The session owns the grammar,
//! the order of commands and the limits; who may send what to whom is decided by the caller, and what the caller
//! does not decide is answered with 451. Content is never taken for commands, whatever becomes of the message.
//!
//! ```
//! use postern_smtp::replies;
//! use postern_smtp::server::{Config, Session, Step, Tls};
//!
//! /// Serves what was read; gives what is to be written, and whether the connection stays open.
//! fn serve(session: &mut Session, mut input: &[u8], content: &mut Vec<u8>) -> (Vec<u8>, bool) {
//!     let mut out = Vec::new();
//!     loop {
//!         match session.input(&mut input) {
//!             Step::NeedInput => return (out, true),
//!             Step::Reply(reply) => reply.write_to(&mut out),
//!             Step::Mail(_) => session.mail(Ok(())),
//!             Step::VerifyRecipient(recipient) => session.recipient(match recipient.path.domain() {
//!                 Some(domain) if *domain != "example.org" => Err(replies::relay_denied(domain.as_str())),
//!                 _ => Ok(()),
//!             }),
//!             Step::MessageStarted => content.clear(),
//!             Step::Chunk(octets) => content.extend_from_slice(octets),
//!             Step::MessageComplete(_) => session.verdict(replies::queued("1")),
//!             Step::MessageRefused(reply) => reply.write_to(&mut out),
//!             Step::StartTls(_) | Step::Auth(_) | Step::Submit(_) => unreachable!("none is offered"),
//!             Step::Close(reply) => {
//!                 reply.write_to(&mut out);
//!                 return (out, false);
//!             }
//!         }
//!     }
//! }
//!
//! let mut session = Session::new(Config { tls: Tls::Off, ..Config::new("mx.example.org") });
//! let mut content = Vec::new();
//! let commands = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.net>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n";
//! let (replies, _) = serve(&mut session, commands, &mut content);
//! assert!(replies.ends_with(b"354 Send the message; end it with a line that holds a single dot\r\n"));
//! let (replies, open) = serve(&mut session, b"..\r\n.\r\nQUIT\r\n", &mut content);
//! assert!(replies.starts_with(b"250 2.0.0 queued as 1\r\n221 2.0.0 ") && !open);
//! assert_eq!(content, b".\r\n");
//! ```

mod auth;
mod line;
mod message;
mod types;
mod verbs;

use std::collections::VecDeque;

use crate::content::Summary;
use crate::data;
use crate::replies;
use crate::reply::Reply;
use crate::trace::Protocol;
use crate::{bdat, command};
use line::{Line, LineReader};

pub use auth::{Credentials, Mechanism};
pub use types::{
    Config, Helo, Limits, MailCommand, Message, Recipient, Submitter, Tls, TlsInfo, Transaction,
};

/// What the caller is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// All input is taken: send the replies gathered so far, and read more.
    NeedInput,
    /// Send the reply; it may wait for others until [`Step::NeedInput`] (RFC 2920).
    Reply(Reply),
    /// Send the reply, do the handshake, then call [`Session::tls_established`]; if it fails, close.
    StartTls(Reply),
    /// Check the credentials, then call [`Session::authentication`].
    Auth(Credentials),
    /// The client passes on what this one submits. Call [`Session::submission`].
    Submit(Submitter),
    /// May this sender send? Then call [`Session::mail`].
    Mail(MailCommand),
    /// May this recipient be sent to? Then call [`Session::recipient`].
    VerifyRecipient(Recipient),
    /// Content follows. [`Session::refuse_message`] may be called to have none of it.
    MessageStarted,
    /// Content.
    Chunk(&'a [u8]),
    /// The content is whole and well-formed: call [`Session::verdict`].
    MessageComplete(Message),
    /// Drop the content and send the reply: the session refused the message, and the transaction is over.
    MessageRefused(Reply),
    /// Send the reply and close the connection.
    Close(Reply),
}

#[derive(Debug)]
enum State {
    Command,
    Credentials(auth::Dialogue),
    Deciding(Decision),
    Handshake,
    /// Content was announced to the caller, who may have refused it.
    Starting(Framing, Option<Reply>),
    Data(Box<data::Receiver>),
    /// Inside a chunk of the message in [`Session::chunks`].
    Chunk,
    /// Inside a chunk that is not wanted; the reply comes after it.
    Swallow(u64, Reply),
    Closed(Reply),
}

/// What the caller was asked last.
#[derive(Debug)]
enum Decision {
    Auth(Credentials),
    Submit,
    Mail(MailCommand),
    Recipient(Recipient),
    Verdict,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Data,
    Bdat { size: u64, last: bool },
}

/// A session with a client.
#[derive(Debug)]
pub struct Session {
    config: Config,
    state: State,
    lines: LineReader,
    outgoing: VecDeque<Reply>,
    helo: Option<Helo>,
    tls: Option<TlsInfo>,
    user: Option<String>,
    transaction: Option<Transaction>,
    chunks: Option<Box<bdat::Receiver>>,
    /// The transaction is over; it is kept until the next call so that the caller can still name it.
    finished: bool,
    errors: u32,
}

impl Session {
    /// A session whose client was just connected; send [`Session::greeting`] first.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Command,
            lines: LineReader::default(),
            outgoing: VecDeque::new(),
            helo: None,
            tls: None,
            user: None,
            transaction: None,
            chunks: None,
            finished: false,
            errors: 0,
        }
    }

    /// The greeting.
    pub fn greeting(&self) -> Reply {
        replies::greeting(&self.config.hostname)
    }

    /// How the client greeted, if it did.
    pub fn helo(&self) -> Option<&Helo> {
        self.helo.as_ref()
    }

    /// TLS, if the session is encrypted.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// The user, if the client authenticated by AUTH.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The transaction that is open, or that ended with the last step.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Errors of the client so far.
    pub fn errors(&self) -> u32 {
        self.errors
    }

    /// The protocol of the session and its transaction, for the Received field.
    pub fn protocol(&self) -> Protocol {
        Protocol {
            esmtp: self.is_esmtp(),
            tls: self.tls.is_some(),
            authenticated: self.user.is_some(),
            utf8: self.transaction.as_ref().is_some_and(|t| t.mail.smtputf8),
        }
    }

    /// Takes octets from the front of `input` until there is something to do.
    pub fn input<'a>(&mut self, input: &mut &'a [u8]) -> Step<'a> {
        loop {
            if std::mem::take(&mut self.finished) {
                self.forget_transaction();
            }
            if let Some(reply) = self.outgoing.pop_front() {
                return Step::Reply(reply);
            }
            if self.errors >= self.config.limits.errors && matches!(self.state, State::Command) {
                return self.close(replies::too_many_errors());
            }
            if let Some(step) = self.advance(input) {
                return step;
            }
        }
    }

    /// TLS stands: the client must begin anew, and nothing it said before counts (RFC 3207 section 4.2).
    pub fn tls_established(&mut self, tls: TlsInfo) {
        self.tls = Some(tls);
        self.helo = None;
        self.user = None;
        self.lines = LineReader::default();
        self.outgoing.clear();
        self.forget_transaction();
        self.state = State::Command;
    }

    /// Answers [`Step::Auth`].
    pub fn authentication(&mut self, decision: Result<(), Reply>) {
        let Some(Decision::Auth(credentials)) = self.decided() else {
            return;
        };
        match decision {
            Ok(()) => {
                self.user = Some(credentials.user);
                self.answer(replies::authenticated());
            }
            Err(reply) => self.answer(reply),
        }
    }

    /// From now on the client may pass on what others submit: to be called for a gateway that proved itself.
    pub fn offer_submission(&mut self) {
        self.config.offer_submission = true;
    }

    /// Answers [`Step::Submit`]. A session that is granted carries one user's mail, and needs AUTH before it.
    pub fn submission(&mut self, decision: Result<(), Reply>) {
        let Some(Decision::Submit) = self.decided() else {
            return;
        };
        match decision {
            Ok(()) => {
                self.config.offer_submission = false;
                self.config.offer_auth = true;
                self.config.require_auth = true;
                self.answer(replies::submission_ok());
            }
            Err(reply) => self.answer(reply),
        }
    }

    /// Answers [`Step::Mail`].
    pub fn mail(&mut self, decision: Result<(), Reply>) {
        let Some(Decision::Mail(mail)) = self.decided() else {
            return;
        };
        match decision {
            Ok(()) => {
                self.transaction = Some(Transaction {
                    mail,
                    recipients: Vec::new(),
                });
                self.answer(replies::sender_ok());
            }
            Err(reply) => self.answer(reply),
        }
    }

    /// Answers [`Step::VerifyRecipient`].
    pub fn recipient(&mut self, decision: Result<(), Reply>) {
        let Some(Decision::Recipient(recipient)) = self.decided() else {
            return;
        };
        match (decision, &mut self.transaction) {
            (Ok(()), Some(transaction)) => {
                transaction.recipients.push(recipient);
                self.answer(replies::recipient_ok());
            }
            (Ok(()), None) => self.answer(replies::undecided()),
            (Err(reply), _) => self.answer(reply),
        }
    }

    /// Refuses the message after [`Step::MessageStarted`], before any of its content.
    pub fn refuse_message(&mut self, reply: Reply) {
        if let State::Starting(_, refusal) = &mut self.state {
            *refusal = Some(reply);
        }
    }

    /// Answers [`Step::MessageComplete`].
    pub fn verdict(&mut self, reply: Reply) {
        if let Some(Decision::Verdict) = self.decided() {
            self.finished = true;
            self.answer(reply);
        }
    }

    /// Takes the decision that was waited for, and goes back to commands; `None` if none was.
    fn decided(&mut self) -> Option<Decision> {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Deciding(decision) => Some(decision),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn undecided(&mut self) {
        match self.state {
            State::Deciding(Decision::Auth(_)) => self.authentication(Err(replies::undecided())),
            State::Deciding(Decision::Submit) => self.submission(Err(replies::undecided())),
            State::Deciding(Decision::Mail(_)) => self.mail(Err(replies::undecided())),
            State::Deciding(Decision::Recipient(_)) => self.recipient(Err(replies::undecided())),
            _ => self.verdict(replies::undecided()),
        }
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Option<Step<'a>> {
        match &mut self.state {
            State::Command | State::Credentials(_) => self.line(input),
            State::Deciding(_) => {
                self.undecided();
                None
            }
            State::Handshake => Some(self.close(replies::tls_unavailable())),
            State::Starting(..) => self.begin_content(input),
            State::Data(_) => Some(self.data_content(input)),
            State::Chunk => Some(self.chunk_content(input)),
            State::Swallow(..) => self.swallow(input),
            State::Closed(reply) => Some(Step::Close(reply.clone())),
        }
    }

    fn line(&mut self, input: &mut &[u8]) -> Option<Step<'static>> {
        let line = match self.lines.read(input) {
            Line::NeedInput => return Some(Step::NeedInput),
            Line::Complete(line) => line,
            Line::TooLong => {
                // Of AUTH too: a response that is too long ends its dialogue.
                self.state = State::Command;
                return self.say(self.line_too_long());
            }
            Line::BareLineFeed => return Some(self.close(replies::bare_line_feed())),
            Line::Endless => return Some(self.close(replies::line_endless())),
        };
        if let State::Credentials(_) = self.state {
            return self.credentials(&line);
        }
        if line.len() + 2 > self.line_limit(&line) {
            return self.say(self.line_too_long());
        }
        match command::parse(&line) {
            Ok(command) => self.command(command, input),
            Err(error) => {
                let reply = replies::command_error(&error);
                match error {
                    command::CommandError::OtherProtocol | command::CommandError::ChunkSize => {
                        Some(self.close(reply))
                    }
                    _ => self.say(reply),
                }
            }
        }
    }

    /// The bound of a command line with its CRLF: RFC 5321 section 4.5.3.1.4, and what the extensions add to it.
    fn line_limit(&self, line: &[u8]) -> usize {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_slice() {
            b"MAIL" | b"RCPT" => self.config.limits.command_line + types::PARAMETERS,
            b"AUTH" => line::MAX_LINE,
            _ => self.config.limits.command_line,
        }
    }

    fn line_too_long(&self) -> Reply {
        replies::line_too_long(self.config.limits.command_line)
    }

    fn is_esmtp(&self) -> bool {
        self.helo.as_ref().is_some_and(|helo| helo.esmtp)
    }

    fn forget_transaction(&mut self) {
        self.transaction = None;
        self.chunks = None;
    }

    /// Sends a reply; one that is permanent counts as an error of the client, and 421 ends the session (RFC 5321 section 3.8).
    fn answer(&mut self, reply: Reply) {
        if reply.code.value() == 421 {
            self.state = State::Closed(reply);
            return;
        }
        self.errors += u32::from(reply.is_permanent());
        self.outgoing.push_back(reply);
    }

    fn say<'a>(&mut self, reply: Reply) -> Option<Step<'a>> {
        self.answer(reply);
        None
    }

    fn close<'a>(&mut self, reply: Reply) -> Step<'a> {
        self.state = State::Closed(reply.clone());
        Step::Close(reply)
    }

    fn ask<'a>(&mut self, decision: Decision, step: Step<'a>) -> Step<'a> {
        self.state = State::Deciding(decision);
        step
    }

    fn complete(&mut self, summary: Summary) -> Step<'static> {
        self.state = State::Deciding(Decision::Verdict);
        match &self.transaction {
            Some(transaction) => Step::MessageComplete(Message {
                transaction: transaction.clone(),
                summary,
            }),
            None => self.close(replies::undecided()),
        }
    }
}

#[cfg(test)]
mod tests;
