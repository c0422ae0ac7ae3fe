//! Delivery status notifications (RFC 3461 6, RFC 3464; with addresses beyond ASCII RFC 6533).
//!
//! Enters: what failed, is late or has arrived, and why. Leaves: a whole message, `multipart/report`: a text for people, a
//! part for machines, and the header section or all of the message that it is about. Pure: id, boundary and time are given.
//!
//! Whether a notification may be sent, and to whom, is not decided here but in [`crate::queue::bounce`].

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use postern_smtp::trace::date;

/// A notification to be written.
#[derive(Debug)]
pub struct Report<'a> {
    /// This node.
    pub reporting_mta: &'a str,
    /// Our postmaster, from whom it comes.
    pub postmaster: &'a str,
    /// To whom it goes.
    pub to: &'a str,
    /// Left part of its Message-ID, and of the boundary: must not occur in the returned message.
    pub token: &'a str,
    /// Milliseconds since 1970.
    pub time: u64,
    /// The reverse-path of what failed.
    pub reverse_path: &'a str,
    /// ENVID of what failed, decoded.
    pub envid: Option<&'a str>,
    /// When it arrived, milliseconds since 1970.
    pub arrived: u64,
    /// The id under which it was queued here.
    pub id: &'a str,
    /// Of whom it tells.
    pub reported: &'a [Reported],
    /// What is returned of it.
    pub returned: Returned<'a>,
    /// Why it goes to the postmaster and not to the reverse-path.
    pub withheld: Option<&'a str>,
}

/// A recipient, and what became of the message for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The mailbox.
    pub address: String,
    /// ORCPT as it came, in xtext.
    pub orcpt: Option<String>,
    /// Enhanced status code.
    pub status: String,
    /// The host that said so; absent where we did.
    pub remote: Option<String>,
    /// Its reply, or our reason.
    pub reply: String,
    /// What became of it.
    pub action: Action,
}

/// What became of a recipient (RFC 3464 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed {
        /// Because time ran out.
        expired: bool,
    },
    /// Tried until this time, milliseconds since 1970.
    Delayed {
        /// Then it is given up.
        until: u64,
    },
    /// A host has it that does not know DSN: nobody tells more.
    Relayed,
    /// In the mailbox.
    Delivered,
}

/// What is returned of a message.
#[derive(Debug, Clone, Copy)]
pub enum Returned<'a> {
    /// Its header section (RET=HDRS).
    Header(&'a [u8]),
    /// All of it.
    Message(&'a [u8]),
}

/// Writes the message, with CRLF line ends. It may hold octets above 127.
pub fn write(report: &Report<'_>) -> Vec<u8> {
    let global = !report.reported.iter().all(|one| one.address.is_ascii())
        || ![report.reverse_path, report.to]
            .iter()
            .all(|address| address.is_ascii());
    let boundary = format!("={}=", report.token);
    let mut text = String::new();
    head(&mut text, report, &boundary);
    let _ = write!(
        text,
        "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    );
    text.push_str("Content-Transfer-Encoding: 8bit\r\n\r\n");
    for_people(&mut text, report);
    let kind = if global {
        "message/global-delivery-status"
    } else {
        "message/delivery-status"
    };
    let _ = write!(
        text,
        "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    );
    for_machines(&mut text, report, global);
    let (kind, returned) = match report.returned {
        Returned::Header(header) if global => ("message/global-headers", header),
        Returned::Header(header) => ("text/rfc822-headers", header),
        Returned::Message(message) if global => ("message/global", message),
        Returned::Message(message) => ("message/rfc822", message),
    };
    let _ = write!(
        text,
        "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    );
    let mut message = text.into_bytes();
    message.extend_from_slice(returned);
    if !returned.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    message
}

/// Subject, and what a person is to know first: of the worst.
fn kind(report: &Report<'_>) -> (&'static str, &'static str) {
    let any = |wanted: fn(&Action) -> bool| report.reported.iter().any(|one| wanted(&one.action));
    if any(|action| matches!(action, Action::Failed { .. })) {
        (
            "Undelivered mail returned to sender",
            "A message could not be delivered. Nobody will try again.",
        )
    } else if any(|action| matches!(action, Action::Delayed { .. })) {
        (
            "Mail is late and still being tried",
            "A message could not be delivered yet. It is still being tried; you need not send it again.",
        )
    } else {
        ("Mail was delivered", "A message was delivered.")
    }
}

fn head(text: &mut String, report: &Report<'_>, boundary: &str) {
    let _ = write!(
        text,
        "From: Mail Delivery System <{}>\r\nTo: <{}>\r\nSubject: {}\r\n\
         Date: {}\r\nMessage-ID: <{}@{}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n",
        line(report.postmaster),
        line(report.to),
        kind(report).0,
        date(UNIX_EPOCH + Duration::from_millis(report.time)),
        report.token,
        report.reporting_mta,
    );
}

fn for_people(text: &mut String, report: &Report<'_>) {
    let _ = write!(
        text,
        "This is the mail system at {}.\r\n\r\n{}\r\n",
        report.reporting_mta,
        kind(report).1
    );
    if let Some(reason) = report.withheld {
        let sender = if report.reverse_path.is_empty() {
            "<>"
        } else {
            report.reverse_path
        };
        let _ = write!(
            text,
            "\r\n{}\r\n",
            line(&format!("The sender, {sender}, was not told: {reason}."))
        );
    }
    for one in report.reported {
        let _ = write!(text, "\r\n<{}>\r\n", line(&one.address));
        let said = match one.action {
            Action::Failed { expired: false } | Action::Delivered => String::new(),
            Action::Failed { expired: true } => {
                "was tried until its time ran out; the last answer was".into()
            }
            Action::Delayed { until } => format!("is tried until {}; the last answer was", time(until)),
            Action::Relayed => "was handed to a host that does not report what becomes of it".into(),
        };
        if !said.is_empty() {
            let _ = write!(text, "    {said}\r\n");
        }
        match &one.remote {
            Some(host) => {
                let _ = write!(text, "    {}\r\n", line(&format!("{host} said: {}", one.reply)));
            }
            None => {
                let _ = write!(text, "    {}\r\n", line(&one.reply));
            }
        }
    }
    let _ = write!(
        text,
        "\r\nIt arrived here on {} and had the queue id {}.\r\n",
        time(report.arrived),
        report.id
    );
}

/// RFC 3464 2.2 (the message) and 2.3 (each recipient).
fn for_machines(text: &mut String, report: &Report<'_>, global: bool) {
    let _ = write!(text, "Reporting-MTA: dns; {}\r\n", report.reporting_mta);
    if let Some(envid) = report.envid {
        let _ = write!(text, "Original-Envelope-Id: {}\r\n", line(envid));
    }
    let _ = write!(text, "Arrival-Date: {}\r\n", time(report.arrived));
    for one in report.reported {
        text.push_str("\r\n");
        if let Some((kind, address)) = one.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
            let _ = write!(
                text,
                "Original-Recipient: {}\r\n",
                line(&format!("{kind}; {}", plain_of_xtext(address)))
            );
        }
        let action = match one.action {
            Action::Failed { .. } => "failed",
            Action::Delayed { .. } => "delayed",
            Action::Relayed => "relayed",
            Action::Delivered => "delivered",
        };
        let kind = if global && !one.address.is_ascii() {
            "utf-8"
        } else {
            "rfc822"
        };
        let _ = write!(
            text,
            "Final-Recipient: {kind}; {}\r\nAction: {}\r\n",
            line(&one.address),
            action
        );
        let _ = write!(text, "Status: {}\r\n", line(&one.status));
        if let Some(host) = &one.remote {
            let _ = write!(text, "Remote-MTA: dns; {}\r\n", line(host));
            let _ = write!(text, "Diagnostic-Code: smtp; {}\r\n", line(&one.reply));
        }
        let _ = write!(text, "Last-Attempt-Date: {}\r\n", time(report.time));
        if let Action::Delayed { until } = one.action {
            let _ = write!(text, "Will-Retry-Until: {}\r\n", time(until));
        }
    }
}

fn time(unix_millis: u64) -> String {
    date(UNIX_EPOCH + Duration::from_millis(unix_millis))
}

/// Text of others on one line of ours: it must not begin new lines or fields.
fn line(text: &str) -> String {
    // In octets: a line with its field's name must stay below the 998 of RFC 5322 2.1.1.
    text[..text.floor_char_boundary(900)]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What xtext stands for (RFC 3461 4): `+` and two hexadecimal digits are one octet.
fn plain_of_xtext(xtext: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = xtext.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(octet) if first == b'+' => {
                octets.push(octet);
                rest = &after[2..];
            }
            _ => {
                octets.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
#[path = "dsn/tests.rs"]
mod tests;
