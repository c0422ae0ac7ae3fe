//! What a client session is configured with, and what it reports.

use crate::address::{ForwardPath, ReversePath};
use crate::dsn::{Notify, OriginalRecipient, Ret};
use crate::replies;
use crate::reply::Reply;

/// The protocol to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SMTP.
    Smtp,
    /// LMTP: LHLO, and a reply for each recipient after the content.
    Lmtp,
}

/// Whether to encrypt by STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not even if offered: the connection is local, or encrypted already.
    Never,
    /// If offered and granted.
    IfOffered,
    /// Or nothing is sent.
    Required,
}

/// How a session is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// The protocol.
    pub dialect: Dialect,
    /// Our name for EHLO, HELO or LHLO.
    pub helo: String,
    /// Encryption.
    pub tls: Tls,
    /// Whether to use PIPELINING where it is offered.
    pub pipelining: bool,
}

/// A recipient with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The recipient.
    pub path: ForwardPath,
    /// When notifications are wanted; sent where DSN is offered.
    pub notify: Option<Notify>,
    /// The recipient as first named; sent where DSN is offered.
    pub orcpt: Option<OriginalRecipient>,
}

/// What is to be delivered, but for the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub reverse_path: ReversePath,
    /// The recipients; at least one.
    pub recipients: Vec<Recipient>,
    /// Octets of the content; 0 if not known (and for [`super::Session::verify`]).
    pub size: u64,
    /// Whether the content holds octets over 127.
    pub eight_bit: bool,
    /// Whether the message came with SMTPUTF8.
    pub smtputf8: bool,
    /// Whether the message may go only where REQUIRETLS is offered (RFC 8689); the caller sees to the proof of the host.
    pub require_tls: bool,
    /// What a notification is to return; sent where DSN is offered.
    pub ret: Option<Ret>,
    /// The sender's identifier for the envelope, decoded; sent where DSN is offered.
    pub envid: Option<String>,
}

impl Envelope {
    /// Whether the message can go only where SMTPUTF8 is offered (RFC 6531 section 3.5).
    pub fn needs_utf8(&self) -> bool {
        let recipients = &mut self.recipients.iter();
        self.smtputf8 || !self.reverse_path.is_ascii() || !recipients.all(|r| r.path.is_ascii())
    }
}

/// What became of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server took the responsibility (or, of a verification, takes the recipient).
    Delivered(Reply),
    /// To be tried again.
    Transient(Reply),
    /// Not to be tried again.
    Permanent(Reply),
}

impl Outcome {
    /// The reply that decided.
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Delivered(reply) | Self::Transient(reply) | Self::Permanent(reply) => reply,
        }
    }

    /// The recipient was one too many for the transaction; the next one may have it at once (RFC 5321 section 4.5.3.1.10).
    pub fn is_one_too_many(&self) -> bool {
        matches!(self, Self::Transient(reply) if matches!(reply.code.value(), 452 | 552) && counts_recipients(reply))
    }
}

/// Whether a refusal with the code of full storage is about the number of recipients: the codes have both meanings, and the
/// enhanced one tells them apart.
pub(super) fn counts_recipients(reply: &Reply) -> bool {
    reply
        .enhanced
        .is_none_or(|enhanced| (enhanced.subject, enhanced.detail) == (5, 3))
}

/// By the first digit of the reply; one that has no place there (3xx) is transient.
impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        if reply.is_positive() {
            Self::Delivered(reply)
        } else if reply.is_permanent() {
            Self::Permanent(reply)
        } else {
            Self::Transient(reply)
        }
    }
}

/// Why a session cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server does not greet us.
    #[error("the greeting was: {0}")]
    Greeting(Reply),
    /// The server refuses EHLO, HELO or LHLO.
    #[error("our greeting was refused: {0}")]
    Ehlo(Reply),
    /// STARTTLS is refused, and required.
    #[error("STARTTLS was refused: {0}")]
    StartTls(Reply),
    /// STARTTLS is not offered, and required.
    #[error("STARTTLS is not offered, and this route requires encryption")]
    TlsNotOffered,
    /// The server offers CHUNKING and does not know BDAT; over a new connection, [`super::Session::deliver`] does without.
    #[error("CHUNKING is offered, and BDAT was refused: {0}")]
    Chunking(Reply),
    /// We are to log in, and the connection is not encrypted.
    #[error("it asks for a login, and the connection is not encrypted: a password is never sent in clear")]
    LoginInClear,
    /// We are to log in, and the server offers no way that we know.
    #[error("it offers neither AUTH PLAIN nor AUTH LOGIN; look for the right host and port")]
    NoLogin,
    /// The login is refused.
    #[error("it refuses our login ({0}); mend user and password")]
    Login(Reply),
    /// What the server says is not SMTP.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl Failure {
    /// What it means for a message that was to go this way, if no other host is left.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Greeting(reply) | Self::Ehlo(reply) if !reply.is_positive() => reply.clone().into(),
            // Encryption may be back tomorrow: a message is not lost for it.
            Self::StartTls(reply) => Outcome::Transient(reply.clone()),
            Self::TlsNotOffered => replies::next_hop_without_tls().into(),
            Self::Greeting(reply) | Self::Ehlo(reply) => {
                replies::next_hop_protocol(&reply.to_string()).into()
            }
            // The operator can mend it, and then the message goes: it is not returned, whatever the server calls it.
            failure @ (Self::LoginInClear | Self::NoLogin | Self::Login(_)) => {
                Outcome::Transient(replies::next_hop_login(&failure.to_string()))
            }
            failure @ Self::Chunking(_) => replies::next_hop_protocol(&failure.to_string()).into(),
            Self::Protocol(error) => replies::next_hop_protocol(error).into(),
        }
    }
}
