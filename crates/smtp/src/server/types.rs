//! What a session is configured with, and what it tells of its client.

use std::net::IpAddr;

use crate::address::{ForwardPath, ReversePath};
use crate::content::{ContentLimits, Summary};
use crate::dsn::{Notify, OriginalRecipient, Ret};
use crate::parameters::Body;

/// Octets that the parameters of the extensions add to the line of MAIL or RCPT
/// (RFC 1870, 3461, 6152 and 6531; the largest is ORCPT with 500).
pub(super) const PARAMETERS: usize = 1024;

/// Whether the session is to be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS is not offered.
    Off,
    /// STARTTLS is offered.
    Offered,
    /// STARTTLS must come before mail.
    Required,
}

/// Bounds of a session. Sizes are in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A command line with its CRLF, without what extensions add (RFC 5321 section 4.5.3.1.4).
    pub command_line: usize,
    /// A line of content without its CRLF (RFC 5321 section 4.5.3.1.6).
    pub text_line: usize,
    /// The header section.
    pub header_size: u64,
    /// A message.
    pub message_size: u64,
    /// Octets of a refused message that are read beyond `message_size` in search of its end, before the connection is closed.
    pub discard: u64,
    /// Recipients of a message.
    pub recipients: usize,
    /// Errors before the connection is closed.
    pub errors: u32,
    /// Received fields.
    pub hops: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_line: 512,
            text_line: 998,
            header_size: 1024 * 1024,
            message_size: 50 * 1024 * 1024,
            discard: 50 * 1024 * 1024,
            recipients: 100,
            errors: 10,
            hops: 50,
        }
    }
}

impl Limits {
    pub(super) fn content(&self) -> ContentLimits {
        ContentLimits {
            size: self.message_size,
            header_size: self.header_size,
            line: self.text_line,
            hops: self.hops,
        }
    }
}

/// How a session is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name, in the greeting and elsewhere.
    pub hostname: String,
    /// Encryption.
    pub tls: Tls,
    /// Whether AUTH is offered, which it is inside TLS only.
    pub offer_auth: bool,
    /// Whether MAIL needs AUTH before it.
    pub require_auth: bool,
    /// Whether XSUBMIT is offered: to a gateway that proved itself, and nobody else.
    pub offer_submission: bool,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// TLS required, no AUTH, default limits.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            tls: Tls::Required,
            offer_auth: false,
            require_auth: false,
            offer_submission: false,
            limits: Limits::default(),
        }
    }
}

/// How a session is encrypted, in the words of the TLS library (`TLSv1.3`, `TLS_AES_256_GCM_SHA384`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// Protocol version.
    pub version: String,
    /// Cipher suite.
    pub cipher: String,
}

/// How the client greeted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helo {
    /// The name that it gave; anything printable without white space, at most 255 octets.
    pub name: String,
    /// EHLO rather than HELO.
    pub esmtp: bool,
}

/// XSUBMIT: whose submission a gateway passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitter {
    /// The client's address.
    pub address: IpAddr,
    /// What it said in EHLO; anything printable without white space, at most 255 octets.
    pub name: String,
}

/// MAIL with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailCommand {
    /// The sender.
    pub path: ReversePath,
    /// Declared size.
    pub size: Option<u64>,
    /// Declared body type.
    pub body: Body,
    /// Whether the message is internationalised.
    pub smtputf8: bool,
    /// Whether it may go only where the way is proved and encrypted (RFC 8689).
    pub require_tls: bool,
    /// What a notification is to return.
    pub ret: Option<Ret>,
    /// The sender's identifier for the envelope, decoded.
    pub envid: Option<String>,
}

/// RCPT with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The recipient.
    pub path: ForwardPath,
    /// When notifications are wanted.
    pub notify: Option<Notify>,
    /// The recipient as first named.
    pub orcpt: Option<OriginalRecipient>,
}

/// The envelope so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The sender.
    pub mail: MailCommand,
    /// The recipients that were taken.
    pub recipients: Vec<Recipient>,
}

/// A message that came whole; its content was given in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The envelope.
    pub transaction: Transaction,
    /// What was seen of the content.
    pub summary: Summary,
}
