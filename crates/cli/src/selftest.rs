//! `postern selftest`: tries the known ways of smuggling through and relaying by an installed node, from outside.
//! Enters: the node's address and two mailboxes. Leaves: a line for each attempt, and exit status 1 unless every one
//! was refused. One ordinary message is delivered first: a node that refuses everything proves nothing.

mod probes;
mod session;

use std::net::ToSocketAddrs as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use postern_smtp::reply::Reply;
use rustls::pki_types::ServerName;
use serde::Serialize;

use probes::Outcome;
use session::Target;

/// Between two attempts at a node that greylists.
const PAUSE: Duration = Duration::from_secs(15);

/// Which node, and from whom to whom.
#[derive(Args)]
pub(crate) struct Request {
    /// The node: HOST or HOST:PORT, an IPv6 address in brackets.
    #[arg(long)]
    node: String,
    /// A mailbox of the node's domains; it gets one message that says what it is.
    #[arg(long, value_parser = mailbox)]
    recipient: String,
    /// An address whose domain lets this machine send (SPF, DMARC).
    #[arg(long, value_parser = mailbox)]
    sender: String,
    /// A domain that the node has nothing to do with; nothing is ever sent there.
    #[arg(long, default_value = "example.com")]
    foreign: String,
    /// Seconds to wait for a node that greylists this machine.
    #[arg(long, default_value_t = 600)]
    wait: u64,
    /// Seconds that the node may take for one answer.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// A line of JSON for each attempt instead of text.
    #[arg(long)]
    json: bool,
}

/// Who writes to whom.
struct Correspondents {
    sender: String,
    recipient: String,
    foreign: String,
}

impl Correspondents {
    fn own_domain(&self) -> &str {
        self.recipient.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    fn header(&self, subject: &str) -> String {
        format!(
            "From: <{}>\r\nTo: <{}>\r\nSubject: postern selftest: {subject}\r\n\r\n",
            self.sender, self.recipient
        )
    }
}

/// What goes into a command line as it is must not be able to end it.
fn mailbox(text: &str) -> Result<String, String> {
    match text.rsplit_once('@') {
        Some((local, domain))
            if !local.is_empty()
                && !domain.is_empty()
                && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "<>".contains(c)) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("write an address as name@domain, without brackets or spaces".to_owned()),
    }
}

pub(crate) fn run(request: &Request) -> Result<()> {
    let target = target(request)?;
    let who = Correspondents {
        sender: request.sender.clone(),
        recipient: request.recipient.clone(),
        foreign: request.foreign.clone(),
    };
    let taken = wait_for_ordinary_mail(&target, &who, Duration::from_secs(request.wait))?;
    let mut report = Report::new(request.json);
    report.add(
        "control",
        "ordinary mail is refused",
        &Outcome::Held(taken.to_string()),
    )?;
    for probe in probes::all(&who) {
        report.add(&probe.name, probe.against, &probe.run(&target, &who))?;
    }
    report.end()
}

fn target(request: &Request) -> Result<Target> {
    let (host, port) = split(&request.node)
        .with_context(|| format!("--node {}: write HOST, HOST:PORT or [IPV6]:PORT", request.node))?;
    let address = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("--node {}: the name cannot be looked up", request.node))?
        .next()
        .with_context(|| format!("--node {}: the name has no address", request.node))?;
    let name = ServerName::try_from(host.to_owned())
        .with_context(|| format!("--node {}: this is neither a name nor an address", request.node))?;
    Ok(Target::new(address, name, Duration::from_secs(request.timeout))?)
}

fn split(node: &str) -> Option<(&str, u16)> {
    if let Some(rest) = node.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = port
            .strip_prefix(':')
            .map_or(Some(25), |port| port.parse().ok())?;
        return Some((host, port));
    }
    match node.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((node, 25)),
    }
}

/// Sends the ordinary message, again and again while the node says "later".
fn wait_for_ordinary_mail(target: &Target, who: &Correspondents, wait: Duration) -> Result<Reply> {
    let until = Instant::now() + wait;
    loop {
        let reply = probes::control(target, who).map_err(|ended| {
            anyhow::anyhow!(
                "{}: {ended}; is this the node, and may this machine reach it?",
                target.address
            )
        })?;
        if reply.is_positive() {
            return Ok(reply);
        }
        if !reply.is_transient() {
            bail!(
                "an ordinary message from {} to {} was refused: {reply}; choose a mailbox that exists and a sender whose \
                 domain lets this machine send",
                who.sender,
                who.recipient
            );
        }
        if Instant::now() + PAUSE > until {
            bail!(
                "an ordinary message was deferred for {} s, last with: {reply}; wait longer with --wait, or list this \
                 machine among the node's peers",
                wait.as_secs()
            );
        }
        eprintln!("not yet: {reply}; again in {} s", PAUSE.as_secs());
        sleep(PAUSE);
    }
}

/// One line for each attempt, then a sum.
struct Report {
    json: bool,
    held: usize,
    wrong: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    probe: &'a str,
    against: &'a str,
    outcome: &'static str,
    evidence: &'a str,
}

impl Report {
    fn new(json: bool) -> Self {
        Self {
            json,
            held: 0,
            wrong: 0,
        }
    }

    fn add(&mut self, probe: &str, against: &str, outcome: &Outcome) -> Result<()> {
        let (word, evidence) = match outcome {
            Outcome::Held(evidence) => ("held", evidence),
            Outcome::Broken(evidence) => ("BROKEN", evidence),
            Outcome::NotReached(evidence) => ("not reached", evidence),
        };
        match outcome {
            Outcome::Held(_) => self.held += 1,
            _ => self.wrong += 1,
        }
        if self.json {
            let outcome = match outcome {
                Outcome::Held(_) => "held",
                Outcome::Broken(_) => "broken",
                Outcome::NotReached(_) => "not-reached",
            };
            println!(
                "{}",
                serde_json::to_string(&Line {
                    probe,
                    against,
                    outcome,
                    evidence,
                })?
            );
            return Ok(());
        }
        println!("{word:<12} {probe:<28} {evidence}");
        if !matches!(outcome, Outcome::Held(_)) {
            println!("{:<12} {:<28} it must not be that {against}", "", "");
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        let Self { json, held, wrong } = self;
        if wrong > 0 {
            bail!("{wrong} of {} attempts were not refused", held + wrong);
        }
        if !json {
            println!("{held} of {held} as it should be");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_host_and_perhaps_a_port() {
        assert_eq!(split("mx.example"), Some(("mx.example", 25)));
        assert_eq!(split("192.0.2.1:2525"), Some(("192.0.2.1", 2525)));
        assert_eq!(split("[2001:db8::1]:26"), Some(("2001:db8::1", 26)));
        assert_eq!(split("[2001:db8::1]"), Some(("2001:db8::1", 25)));
        for wrong in ["2001:db8::1", "mx.example:", "mx.example:smtp", "[::1"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_cannot_end_a_command() {
        assert!(mailbox("a@example.org").is_ok());
        for wrong in ["a", "@b", "a@", "a@b>\r\nRCPT", "<a@b>", "a b@c"] {
            assert!(mailbox(wrong).is_err(), "{wrong:?}");
        }
    }
}
