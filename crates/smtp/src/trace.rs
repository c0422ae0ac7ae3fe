//! Trace header fields: Received and Return-Path (RFC 5321 section 4.4; protocol names of RFC 3848 and RFC 6531).
//!
//! Whatever a peer said about itself is quoted here in a form that cannot break the header.

mod date;

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::address::{ForwardPath, ReversePath};
use crate::server::TlsInfo;

pub use date::date;

/// The protocol by which a message came, as the `with` clause names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a letter of its own in the name"
)]
pub struct Protocol {
    /// The client greeted with EHLO.
    pub esmtp: bool,
    /// The session was encrypted.
    pub tls: bool,
    /// The client authenticated by AUTH.
    pub authenticated: bool,
    /// The message came with SMTPUTF8.
    pub utf8: bool,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.esmtp {
            return f.write_str("SMTP");
        }
        f.write_str(if self.utf8 { "UTF8SMTP" } else { "ESMTP" })?;
        if self.tls {
            f.write_str("S")?;
        }
        if self.authenticated {
            f.write_str("A")?;
        }
        Ok(())
    }
}

/// What a Received field tells.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// The name that the client gave with HELO or EHLO.
    pub helo: &'a str,
    /// The client's address.
    pub peer: IpAddr,
    /// The client's name by reverse and forward DNS, if it was found.
    pub peer_name: Option<&'a str>,
    /// Our name.
    pub by: &'a str,
    /// How the message came.
    pub protocol: Protocol,
    /// TLS, if the session was encrypted.
    pub tls: Option<&'a TlsInfo>,
    /// Our identifier for the message.
    pub id: &'a str,
    /// The recipient, where there is exactly one (RFC 5321 section 7.6).
    pub recipient: Option<&'a ForwardPath>,
    /// When it came.
    pub time: SystemTime,
}

impl Received<'_> {
    /// The folded field, with the CRLF that ends it.
    pub fn header(&self) -> String {
        let utf8 = self.protocol.utf8;
        let peer_name = match self.peer_name {
            Some(name) => format!("{} ", clean(name, utf8)),
            None => String::new(),
        };
        let tls = self.tls.map(|tls| {
            let (version, cipher) = (clean(&tls.version, false), clean(&tls.cipher, false));
            format!("\r\n\t({version} {cipher})")
        });
        let recipient = self.recipient.filter(|path| utf8 || path.is_ascii());
        let recipient = recipient.map(|path| format!("\r\n\tfor <{path}>"));
        format!(
            "Received: from {} ({peer_name}{})\r\n\tby {} with {}{}\r\n\tid {}{};\r\n\t{}\r\n",
            extended_domain(self.helo, utf8),
            literal(self.peer),
            clean(self.by, utf8),
            self.protocol,
            tls.unwrap_or_default(),
            clean(self.id, false),
            recipient.unwrap_or_default(),
            date(self.time)
        )
    }
}

/// The Return-Path field that final delivery adds, with the CRLF that ends it.
pub fn return_path(path: &ReversePath) -> String {
    format!("Return-Path: <{path}>\r\n")
}

/// An address literal (RFC 5321 section 4.1.3).
pub fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// The client's own name where it is a domain or literal; anything else would not be the grammar's.
fn extended_domain(name: &str, utf8: bool) -> String {
    match name.parse::<crate::address::Domain>() {
        Ok(domain) if utf8 || name.is_ascii() => domain.to_string(),
        _ => "unknown".to_owned(),
    }
}

/// Replaces what could end a comment, a clause or the header; bounds the length.
fn clean(text: &str, utf8: bool) -> String {
    let safe = |c: char| {
        c.is_ascii_alphanumeric() || "-._:[]+=/".contains(c) || (utf8 && !c.is_ascii() && !c.is_control())
    };
    text.chars()
        .take(255)
        .map(|c| if safe(c) { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests;
