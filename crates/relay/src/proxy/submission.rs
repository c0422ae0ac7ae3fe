//! A submission from outside, carried inward: one authenticated SMTP session at the internal node for each session of a client.
//!
//! Enters: packets of smtpd on one local connection: [`Login`], then MAIL and RCPT as command lines, then the message as a
//! descriptor of sealed memory. Leaves: for each packet the reply of the internal node, or why there is none. The proxy writes
//! every command anew from what it parsed, sends nothing but XSUBMIT, AUTH, MAIL, RCPT, RSET, NOOP and a whole message, and
//! the content is checked again on its way (no bare CR or LF, one end). A message of which smtpd holds a part only never
//! comes here, and one that breaks on the way has no end: the internal node drops it.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_sandbox::memfd;
use postern_sandbox::packet::Connection;
use postern_smtp::client::{Envelope, Extensions, Recipient, mail_line, rcpt_line};
use postern_smtp::command::{self, Command};
use postern_smtp::data::Stuffer;
use postern_smtp::parameters::Body;
use postern_smtp::replies;
use postern_smtp::reply::{Code, EnhancedCode, Reply};
use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::link::{Hop, Link};
use super::traffic::Traffic;
use super::{PACKET, Question};
use crate::handover::ROOM;

/// The internal node waits longer for a command; so a client may take his time over a message.
const IDLE: Duration = Duration::from_secs(100);
/// For one command.
const COMMAND: Duration = Duration::from_mins(1);
/// For a whole message and its answer.
const MESSAGE: Duration = Duration::from_mins(10);
/// Octets read of a message at a time.
const PIECE: usize = 64 * 1024;

/// Who submits, and his password.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// The client's address.
    address: IpAddr,
    /// What it said in EHLO.
    name: String,
    user: String,
    password: String,
}

/// What comes after the login.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// MAIL or RCPT, without CRLF.
    Command(String),
    /// The message beside it, of so many octets.
    Message(u64),
}

/// What came of a packet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Answer {
    Reply(Words),
    /// The connection inward is gone; the proxy hangs up.
    Broken(String),
}

/// A reply on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    code: u16,
    enhanced: Option<String>,
    lines: Vec<String>,
}

impl From<Reply> for Words {
    fn from(reply: Reply) -> Self {
        Self {
            code: reply.code.value(),
            enhanced: reply.enhanced.map(|code| code.to_string()),
            lines: reply.lines,
        }
    }
}

impl Words {
    fn reply(self) -> Option<Reply> {
        let enhanced = match self.enhanced {
            Some(text) => Some(EnhancedCode::parse(&text)?),
            None => None,
        };
        Some(Reply {
            code: Code::new(self.code)?,
            enhanced,
            lines: self.lines,
        })
    }
}

/// The proxy's side: serves one submission to its end. `stream` has given its [`Login`].
pub(super) async fn carry(
    stream: &Connection,
    login: Login,
    hop: &Hop,
    largest: u64,
    figures: &Figures,
) -> io::Result<()> {
    let mut inside = match begin(&login, hop, &figures.submissions).await {
        Ok((inside, reply)) => {
            let granted = reply.is_positive();
            figures.login(if granted { "granted" } else { "refused" });
            send(stream, &Answer::Reply(reply.into())).await?;
            if !granted {
                return Ok(());
            }
            inside
        }
        Err(why) => {
            figures.login("unavailable");
            return send(stream, &Answer::Broken(why)).await;
        }
    };
    drop(login);
    let mut buffer = vec![0; PACKET];
    loop {
        let packet = match tokio::time::timeout(IDLE, stream.recv(&mut buffer)).await {
            Ok(packet) => packet?,
            Err(_) => match inside.command("NOOP").await {
                Ok(_) => continue,
                Err(why) => return send(stream, &Answer::Broken(why)).await,
            },
        };
        if packet.len == 0 {
            return Ok(());
        }
        let answered = match (serde_json::from_slice(&buffer[..packet.len]), packet.fd) {
            (Ok(Request::Command(line)), None) => inside.passed(&line).await,
            (Ok(Request::Message(size)), Some(message)) => inside.message(message, size, largest).await,
            _ => Err("smtpd sent what no submission has".to_owned()),
        };
        match answered {
            Ok(reply) => send(stream, &Answer::Reply(reply.into())).await?,
            Err(why) => return send(stream, &Answer::Broken(why)).await,
        }
    }
}

async fn send(stream: &Connection, answer: &Answer) -> io::Result<()> {
    stream.send(&serde_json::to_vec(answer)?, None).await
}

/// A session at the internal node that is the client's, and the answer to his password.
async fn begin(login: &Login, hop: &Hop, traffic: &Arc<Traffic>) -> Result<(Inside, Reply), String> {
    let link = Link::open(hop, traffic).await?;
    if !link.offers().submission {
        return Err("the internal node takes no submissions from this gateway".into());
    }
    let mut inside = Inside { link, open: false };
    let submit = format!("XSUBMIT {} {}", login.address, login.name);
    if !matches!(command::parse(submit.as_bytes()), Ok(Command::Submit { .. })) {
        return Err("smtpd told of a client that has no such name".into());
    }
    let reply = inside.command(&submit).await?;
    if !reply.is_positive() {
        return Err(format!("the internal node said {reply} to XSUBMIT"));
    }
    let response = STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
    let reply = inside.command(&format!("AUTH PLAIN {response}")).await?;
    Ok((inside, reply))
}

/// The session at the internal node.
struct Inside {
    link: Link,
    /// MAIL was taken, and its message not answered.
    open: bool,
}

impl Inside {
    async fn command(&mut self, line: &str) -> Result<Reply, String> {
        let asked = self.link.command(line);
        match tokio::time::timeout(COMMAND, asked).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer in {} s", COMMAND.as_secs())),
        }
    }

    /// MAIL or RCPT, written anew.
    async fn passed(&mut self, line: &str) -> Result<Reply, String> {
        let everything = everything();
        match command::parse(line.as_bytes()) {
            Ok(Command::Mail(path, parameters)) => {
                // The client said RSET, or EHLO again; its smtpd answered that.
                if self.open {
                    self.command("RSET").await?;
                }
                let mail = Envelope {
                    reverse_path: path,
                    recipients: Vec::new(),
                    size: parameters.size.unwrap_or(0),
                    eight_bit: parameters.body == Body::EightBitMime,
                    smtputf8: parameters.smtputf8,
                    require_tls: parameters.require_tls,
                    ret: parameters.ret,
                    envid: parameters.envid,
                };
                let reply = self.command(&mail_line(&mail, &everything)).await?;
                self.open = reply.is_positive();
                Ok(reply)
            }
            Ok(Command::Rcpt(path, parameters)) => {
                let recipient = Recipient {
                    path,
                    notify: parameters.notify,
                    orcpt: parameters.orcpt,
                };
                self.command(&rcpt_line(&recipient, &everything)).await
            }
            _ => Err("smtpd sent a command that no submission has".into()),
        }
    }

    async fn message(&mut self, message: OwnedFd, size: u64, largest: u64) -> Result<Reply, String> {
        // As in the handover to the queue, the message ends with the memory.
        let end = memfd::verify(&message, largest.saturating_add(ROOM as u64))
            .map_err(|error| error.to_string())?;
        let Some(begin) = end.checked_sub(size).filter(|_| size <= largest) else {
            return Err("the message is not of the size that smtpd says".into());
        };
        self.open = false;
        match tokio::time::timeout(MESSAGE, self.content(&File::from(message), begin..end)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer to a message in {} s", MESSAGE.as_secs())),
        }
    }

    async fn content(&mut self, message: &File, octets: Range<u64>) -> Result<Reply, String> {
        let reply = self.command("DATA").await?;
        if reply.is_positive() {
            return Err(format!("DATA was answered with {reply}"));
        }
        if !reply.is_intermediate() {
            return Ok(reply);
        }
        let mut stuffer = Stuffer::default();
        let mut piece = vec![0; PIECE];
        let mut at = octets.start;
        while at < octets.end {
            let wanted = usize::try_from(octets.end - at).unwrap_or(PIECE).min(PIECE);
            message
                .read_exact_at(&mut piece[..wanted], at)
                .map_err(|error| error.to_string())?;
            let mut out = Vec::new();
            stuffer
                .push(&piece[..wanted], &mut out)
                .map_err(|error| error.to_string())?;
            self.link.send(&out).await?;
            at += wanted as u64;
        }
        let mut out = Vec::new();
        stuffer.finish(&mut out).map_err(|error| error.to_string())?;
        self.link.send(&out).await?;
        self.link.reply().await
    }
}

/// What our own node offers, whatever its version: what smtpd took of the client is not left out on the way.
fn everything() -> Extensions {
    Extensions {
        size: Some(0),
        eight_bit_mime: true,
        smtp_utf8: true,
        require_tls: true,
        dsn: true,
        ..Extensions::default()
    }
}

/// Why the inside has not answered.
#[derive(Debug, thiserror::Error)]
pub enum InwardError {
    /// The proxy's socket.
    #[error("the proxy at {path}: {source}")]
    Proxy {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The connection to the internal node.
    #[error("the internal node: {0}")]
    Broken(String),
}

/// smtpd's side of one submission.
pub struct Inward {
    stream: Connection,
    path: String,
}

impl Inward {
    /// Asks the inside, through the proxy at `path`, about a password; the session is there if the reply is positive.
    pub async fn log_in(
        path: &Path,
        (address, name): (IpAddr, &str),
        user: &str,
        password: &str,
    ) -> Result<(Self, Reply), InwardError> {
        let broken = |source| InwardError::Proxy {
            path: path.display().to_string(),
            source,
        };
        let login = Login {
            address,
            name: name.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
        };
        let question =
            serde_json::to_vec(&Question::Login(Box::new(login))).map_err(|error| broken(error.into()))?;
        let inward = Self {
            stream: Connection::connect(path).await.map_err(broken)?,
            path: path.display().to_string(),
        };
        let reply = inward.exchange(&question, None).await?;
        Ok((inward, reply))
    }

    /// MAIL.
    pub async fn mail(&self, mail: &Envelope) -> Result<Reply, InwardError> {
        self.command(mail_line(mail, &everything())).await
    }

    /// RCPT.
    pub async fn rcpt(&self, recipient: &Recipient) -> Result<Reply, InwardError> {
        self.command(rcpt_line(recipient, &everything())).await
    }

    /// The message: sealed memory of `size` octets.
    pub async fn message(&self, message: &OwnedFd, size: u64) -> Result<Reply, InwardError> {
        self.ask(&Request::Message(size), Some(message)).await
    }

    async fn command(&self, line: String) -> Result<Reply, InwardError> {
        self.ask(&Request::Command(line), None).await
    }

    async fn ask(&self, request: &Request, message: Option<&OwnedFd>) -> Result<Reply, InwardError> {
        let packet = serde_json::to_vec(request).map_err(|error| self.broken(error.into()))?;
        self.exchange(&packet, message).await
    }

    async fn exchange(&self, packet: &[u8], message: Option<&OwnedFd>) -> Result<Reply, InwardError> {
        use std::os::fd::AsFd as _;
        let exchanged = async {
            self.stream.send(packet, message.map(OwnedFd::as_fd)).await?;
            let mut buffer = vec![0; super::ANSWER];
            let packet = self.stream.recv(&mut buffer).await?;
            if packet.len == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            Ok::<Answer, io::Error>(serde_json::from_slice(&buffer[..packet.len])?)
        };
        // The proxy keeps its own time; a little more than that, and it hangs.
        let answer = tokio::time::timeout(MESSAGE + COMMAND, exchanged)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.broken(error))?;
        match answer {
            Answer::Reply(words) => words
                .reply()
                .ok_or_else(|| InwardError::Broken("its reply is none".into())),
            Answer::Broken(why) => Err(InwardError::Broken(why)),
        }
    }

    fn broken(&self, source: io::Error) -> InwardError {
        InwardError::Proxy {
            path: self.path.clone(),
            source,
        }
    }
}

/// The reply while all places are taken.
pub(super) async fn turn_away(stream: &Connection) -> io::Result<()> {
    send(stream, &Answer::Reply(replies::submissions_busy().into())).await
}
