//! What a mail gateway must refuse, each tried in a session of its own.
//!
//! A probe judges by what the node answers, never by silence alone: a node that is slow or greylists has not been
//! tested ([`Outcome::NotReached`]), and that is a failure too.

use postern_smtp::reply::Reply;

use super::Correspondents;
use super::session::{EHLO, Ended, Session, Target, offers};

/// What a probe found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The node refused, with these words.
    Held(String),
    /// The node gave way.
    Broken(String),
    /// The question could not be put.
    NotReached(String),
}

type Answer = Result<Outcome, Ended>;
type Ask = dyn Fn(&Target, &Correspondents) -> Answer;
/// Name, what must not happen, and the octets that try it.
type Octets = (&'static str, &'static str, fn(&Correspondents) -> String);

/// One question.
pub(super) struct Probe {
    /// Its name in the report: group and variant.
    pub(super) name: String,
    /// What must not happen.
    pub(super) against: &'static str,
    ask: Box<Ask>,
}

impl Probe {
    fn new(
        name: impl Into<String>,
        against: &'static str,
        ask: impl Fn(&Target, &Correspondents) -> Answer + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            against,
            ask: Box::new(ask),
        }
    }

    pub(super) fn run(&self, target: &Target, who: &Correspondents) -> Outcome {
        (self.ask)(target, who).unwrap_or_else(|ended| Outcome::NotReached(ended.to_string()))
    }
}

/// Forms that some server somewhere has taken for the end of DATA (RFC 5321 section 4.1.1.4 knows only CRLF.CRLF).
const FALSE_ENDS: [(&str, &str); 12] = [
    ("lf-dot-lf", "\n.\n"),
    ("lf-dot-crlf", "\n.\r\n"),
    ("lf-dot-cr", "\n.\r"),
    ("cr-dot-cr", "\r.\r"),
    ("cr-dot-crlf", "\r.\r\n"),
    ("cr-dot-lf", "\r.\n"),
    ("crlf-dot-lf", "\r\n.\n"),
    ("crlf-dot-cr", "\r\n.\r"),
    ("crlf-dot-cr-crlf", "\r\n.\r\r\n"),
    ("crlf-lf-dot-lf", "\r\n\n.\n"),
    ("crlf-nul-dot-crlf", "\r\n\0.\r\n"),
    ("crlf-dot-nul-crlf", "\r\n.\0\r\n"),
];

/// Every probe, in the order of the report.
pub(super) fn all(who: &Correspondents) -> Vec<Probe> {
    let mut probes = vec![
        Probe::new(
            "session/early-talker",
            "commands before the greeting (RFC 5321 section 4.3.1)",
            early_talker,
        ),
        Probe::new(
            "session/starttls-injection",
            "commands sent in clear are carried out inside TLS (RFC 3207 section 4.2)",
            starttls_injection,
        ),
        Probe::new(
            "session/auth-in-clear",
            "a password is asked for without TLS (RFC 4954 section 4)",
            auth_in_clear,
        ),
    ];
    probes.extend(commands());
    probes.extend(relaying(who));
    for (name, end) in FALSE_ENDS {
        probes.push(Probe::new(
            format!("smuggling/{name}"),
            "a false end of DATA lets commands through",
            move |target, who| smuggle(target, who, end),
        ));
    }
    probes.extend(messages());
    probes
}

fn refused(reply: &Reply) -> Outcome {
    if reply.is_permanent() || reply.code.value() == 421 {
        Outcome::Held(reply.to_string())
    } else if reply.is_transient() {
        Outcome::NotReached(reply.to_string())
    } else {
        Outcome::Broken(format!("answered {reply}"))
    }
}

/// The reply, or the refusal that a closed connection is.
fn refused_or_closed(answer: Result<Reply, Ended>) -> Answer {
    match answer {
        Err(Ended::Closed) => Ok(Outcome::Held(Ended::Closed.to_string())),
        answer => answer.map(|reply| refused(&reply)),
    }
}

fn early_talker(target: &Target, _: &Correspondents) -> Answer {
    let mut session = Session::connect(target)?;
    session.send(format!("{EHLO}\r\n").as_bytes())?;
    let answer = refused_or_closed(session.reply())?;
    Ok(match answer {
        Outcome::Broken(said) => Outcome::Broken(format!(
            "{said}; right only if this machine is one of the node's listed peers"
        )),
        held => held,
    })
}

fn starttls_injection(target: &Target, _: &Correspondents) -> Answer {
    let mut session = Session::connect(target)?;
    session.reply()?;
    if !offers(&session.command(EHLO)?, "STARTTLS") {
        return Ok(Outcome::NotReached("the node does not offer STARTTLS".to_owned()));
    }
    session.send(b"STARTTLS\r\nRSET\r\nNOOP\r\n")?;
    let first = match session.reply() {
        Ok(reply) if reply.is_positive() => reply,
        other => return refused_or_closed(other),
    };
    let mut session = session.encrypt(target)?;
    if session.send(format!("{EHLO}\r\n").as_bytes()).is_err() {
        return Ok(Outcome::Held(format!("{first}, and no TLS followed")));
    }
    // The first reply inside TLS must be the one to EHLO, which lists extensions.
    match session.reply() {
        Ok(reply) if reply.lines.len() > 1 => {
            Ok(Outcome::Held("what came in clear was forgotten".to_owned()))
        }
        Ok(reply) => Ok(Outcome::Broken(format!("answered inside TLS: {reply}"))),
        Err(Ended::Closed | Ended::Failed(_)) => Ok(Outcome::Held(format!("{first}, and no TLS followed"))),
        Err(ended) => Err(ended),
    }
}

fn auth_in_clear(target: &Target, _: &Correspondents) -> Answer {
    let mut session = Session::connect(target)?;
    session.reply()?;
    if offers(&session.command(EHLO)?, "AUTH") {
        return Ok(Outcome::Broken("AUTH is offered in clear".to_owned()));
    }
    // The octets mean user "x", password "x".
    refused_or_closed(session.command("AUTH PLAIN AHgAeA=="))
}

/// Octets sent after EHLO in place of a command; one refusal must be all that comes back.
fn commands() -> Vec<Probe> {
    let long = format!("NOOP {}\r\n", "x".repeat(100_000));
    [
        ("bare-lf", "a bare LF ends a command", "NOOP\nNOOP\r\n".to_owned()),
        ("bare-cr", "a bare CR ends a command", "NOOP\rNOOP\r\n".to_owned()),
        ("nul", "a NUL in a command is taken", "NOOP\0\r\n".to_owned()),
        ("long", "a command line has no end", long),
        (
            "http",
            "a web form is taken for mail",
            "POST / HTTP/1.1\r\n".to_owned(),
        ),
        (
            "xclient",
            "a stranger chooses his address",
            "XCLIENT ADDR=127.0.0.1\r\n".to_owned(),
        ),
        (
            "xforward",
            "a stranger chooses his address",
            "XFORWARD ADDR=127.0.0.1\r\n".to_owned(),
        ),
        (
            "control",
            "a stranger opens the control channel",
            "XPOSTERN\r\n".to_owned(),
        ),
        (
            "expn",
            "a list is told (RFC 5321 section 7.3)",
            "EXPN postmaster\r\n".to_owned(),
        ),
        (
            "turn",
            "queued mail is given to a stranger",
            "TURN\r\n".to_owned(),
        ),
        (
            "etrn",
            "the queue is run for a stranger",
            "ETRN example.com\r\n".to_owned(),
        ),
        (
            "order",
            "RCPT without MAIL",
            "RCPT TO:<postmaster>\r\n".to_owned(),
        ),
        ("bdat-order", "BDAT without MAIL", "BDAT 0 LAST\r\n".to_owned()),
    ]
    .into_iter()
    .map(|(name, against, octets)| {
        Probe::new(format!("command/{name}"), against, move |target, _| {
            let (mut session, _) = Session::ready(target)?;
            // A node may close while the rest is on its way.
            if let Err(ended) = session.send(octets.as_bytes()) {
                return refused_or_closed(Err(ended));
            }
            let first = session.reply();
            let again = session.rest(4);
            // The NOOP and the QUIT after it.
            if again.len() > 2 {
                return Ok(Outcome::Broken(format!("answered {} times", again.len() - 1)));
            }
            refused_or_closed(first)
        })
    })
    .collect()
}

/// Mail to strangers, by every trick that relays have fallen for.
fn relaying(who: &Correspondents) -> Vec<Probe> {
    let (local, domain) = ("postern-selftest", who.foreign.as_str());
    let (own_domain, own) = (who.own_domain(), who.recipient.as_str());
    let stranger = format!("{local}@{domain}");
    let unknown = format!("unknown-{local}-{:08x}@{own_domain}", std::process::id());
    let forms = [
        ("plain", who.sender.clone(), stranger.clone()),
        ("null-sender", String::new(), stranger.clone()),
        ("own-sender", own.to_owned(), stranger.clone()),
        (
            "percent",
            who.sender.clone(),
            format!("{local}%{domain}@{own_domain}"),
        ),
        (
            "quoted",
            who.sender.clone(),
            format!("\"{local}@{domain}\"@{own_domain}"),
        ),
        (
            "bang",
            who.sender.clone(),
            format!("{domain}!{local}@{own_domain}"),
        ),
        (
            "source-route",
            who.sender.clone(),
            format!("@{own_domain}:{stranger}"),
        ),
        ("two-ats", who.sender.clone(), format!("{stranger}@{own_domain}")),
        ("literal", who.sender.clone(), format!("{local}@[192.0.2.1]")),
        (
            "literal-6",
            who.sender.clone(),
            format!("{local}@[IPv6:2001:db8::1]"),
        ),
        (
            "suffix",
            who.sender.clone(),
            format!("{local}@{own_domain}.{domain}"),
        ),
    ];
    let mut probes: Vec<Probe> = forms
        .into_iter()
        .map(|(name, from, to)| {
            Probe::new(
                format!("relay/{name}"),
                "mail is relayed for a stranger",
                move |target, _| recipient_refused(target, &from, &to),
            )
        })
        .collect();
    probes.push(Probe::new(
        "relay/unknown-mailbox",
        "mail for nobody is taken and bounced later",
        move |target, who| recipient_refused(target, &who.sender, &unknown),
    ));
    probes
}

fn recipient_refused(target: &Target, from: &str, to: &str) -> Answer {
    let (mut session, _) = Session::ready(target)?;
    let reply = session.command(&format!("MAIL FROM:<{from}>"))?;
    if !reply.is_positive() {
        return Ok(refused(&reply));
    }
    refused_or_closed(session.command(&format!("RCPT TO:<{to}>")))
}

/// A session that is at `354`, or the reply that kept it from there.
fn at_data(target: &Target, who: &Correspondents) -> Result<Result<Session, Reply>, Ended> {
    let (mut session, reply) = addressed(target, who)?;
    if let Some(reply) = reply {
        return Ok(Err(reply));
    }
    let reply = session.command("DATA")?;
    Ok(if reply.is_intermediate() {
        Ok(session)
    } else {
        Err(reply)
    })
}

/// A session with one recipient, or the reply that kept it from there.
fn addressed(target: &Target, who: &Correspondents) -> Result<(Session, Option<Reply>), Ended> {
    let (mut session, _) = Session::ready(target)?;
    for line in [
        format!("MAIL FROM:<{}>", who.sender),
        format!("RCPT TO:<{}>", who.recipient),
    ] {
        let reply = session.command(&line)?;
        if !reply.is_positive() {
            return Ok((session, Some(reply)));
        }
    }
    Ok((session, None))
}

/// Sends an ordinary message; what the other probes send differs from it in one thing.
pub(super) fn control(target: &Target, who: &Correspondents) -> Result<Reply, Ended> {
    let mut session = match at_data(target, who)? {
        Ok(session) => session,
        Err(reply) => return Ok(reply),
    };
    session.send(
        format!(
            "{}This message shows that ordinary mail is taken.\r\n.\r\n",
            who.header("control")
        )
        .as_bytes(),
    )?;
    session.reply()
}

/// `false_end` inside a message, with a second message behind it.
fn smuggle(target: &Target, who: &Correspondents, false_end: &str) -> Answer {
    let mut session = match at_data(target, who)? {
        Ok(session) => session,
        Err(reply) => return Ok(Outcome::NotReached(reply.to_string())),
    };
    let octets = format!(
        "{}x{false_end}MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n{}smuggled\r\n.\r\n",
        who.header("outer message"),
        who.sender,
        who.recipient,
        who.header("SMUGGLED message: this node is open to it"),
    );
    session.send(octets.as_bytes())?;
    let first = session.reply();
    let again = session.rest(8);
    if again.len() > 2 {
        return Ok(Outcome::Broken(format!(
            "answered {} times: the commands behind the false end were carried out",
            again.len() - 1
        )));
    }
    match first {
        Ok(reply) if reply.is_positive() => Ok(Outcome::Broken(format!(
            "took the message ({reply}): a server behind this node may see its end elsewhere"
        ))),
        first => refused_or_closed(first),
    }
}

/// Messages that are refused for their octets.
fn messages() -> Vec<Probe> {
    let data: [Octets; 4] = [
        ("message/nul", "NUL in a message", |who| {
            format!("{}a\0b\r\n.\r\n", who.header("NUL"))
        }),
        (
            "message/long-line",
            "a line has no end (RFC 5321 section 4.5.3.1.6)",
            |who| format!("{}{}\r\n.\r\n", who.header("long line"), "x".repeat(100_000)),
        ),
        ("message/header-bomb", "a header has no end", |who| {
            let fields = "X-Postern-Selftest: x\r\n".repeat(50_000);
            format!("{fields}{}x\r\n.\r\n", who.header("header bomb"))
        }),
        ("message/hops", "a loop of mail (RFC 5321 section 6.3)", |who| {
            let hops =
                "Received: from a.invalid by b.invalid; Thu, 1 Jan 2026 00:00:00 +0000\r\n".repeat(200);
            format!("{hops}{}x\r\n.\r\n", who.header("hops"))
        }),
    ];
    let mut probes: Vec<Probe> = data
        .into_iter()
        .map(|(name, against, octets)| {
            Probe::new(name, against, move |target, who| {
                let mut session = match at_data(target, who)? {
                    Ok(session) => session,
                    Err(reply) => return Ok(Outcome::NotReached(reply.to_string())),
                };
                if let Err(ended) = session.send(octets(who).as_bytes()) {
                    return refused_or_closed(Err(ended));
                }
                refused_or_closed(session.reply())
            })
        })
        .collect();
    let chunks: [Octets; 3] = [
        (
            "message/bdat-bare-lf",
            "BDAT carries a bare LF inward (RFC 3030 section 2)",
            |who| {
                let message = format!("{}x\n.\nMAIL FROM:<>\r\n", who.header("chunk"));
                format!("BDAT {} LAST\r\n{message}", message.len())
            },
        ),
        ("message/bdat-overflow", "a chunk's size overflows", |_| {
            "BDAT 99999999999999999999999 LAST\r\n".to_owned()
        }),
        ("message/bdat-negative", "a chunk's size is no number", |_| {
            "BDAT -1 LAST\r\n".to_owned()
        }),
    ];
    probes.extend(chunks.into_iter().map(|(name, against, octets)| {
        Probe::new(name, against, move |target, who| {
            let (mut session, reply) = addressed(target, who)?;
            if let Some(reply) = reply {
                return Ok(Outcome::NotReached(reply.to_string()));
            }
            session.send(octets(who).as_bytes())?;
            refused_or_closed(session.reply())
        })
    }));
    probes
}
