//! The proxy process: the only one in the DMZ that asks the inside whether a mailbox exists, that carries a user's submission
//! inward, and that asks the host of the shared state, where there is one (`remembered`).
//!
//! Enters: one packet `{"recipient":"…"}` on a `SOCK_SEQPACKET` socket, from smtpd. Leaves: one packet, `"exists"`,
//! `"unknown"`, `"full"`, or `{"unavailable":"why"}`. In between: MAIL FROM:<>, RCPT TO, RSET at the next hop over mutual
//! TLS, on connections that are kept for a while. A packet `{"login":…}` makes the connection a submission
//! ([`submission`]) to its end; a packet `"figures"` is answered with the counts ([`figures`]). The process listens to no network.

pub mod figures;
mod link;
mod remembered;
pub mod submission;
pub mod traffic;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use postern_control::EventKind;
use postern_sandbox::packet::{Connection, Listener};
use postern_sandbox::{Inherited, Policy};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::checks::recipient::{Existence, VerifyError};
use crate::config::Config;
use crate::events::Events;
use crate::handover::FIELDS;
use crate::reputation::shared::Reply;
use crate::reputation::valkey::Valkey;
use figures::Figures;
pub use link::ask_lmtp;
use link::{Hop, Link};

/// Name of the descriptor in the socket unit.
pub const DESCRIPTOR: &str = "proxy";
const PACKET: usize = 4096;
/// A reply of many lines.
const ANSWER: usize = 128 * 1024;
/// Questions answered at a time, and so connections to the next hop.
const AT_A_TIME: usize = 32;
/// Local connections from smtpd processes.
const CLIENTS: usize = 512;
/// Of them submissions, each with a connection of its own to the next hop.
pub const SUBMISSIONS: usize = 256;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Question {
    Recipient(String),
    Login(Box<submission::Login>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Known(Existence),
    Unavailable(String),
}

/// The process: configuration, credentials, sockets, sandbox, runtime, serve.
pub fn main(config: &Config, passed: Vec<Inherited>) -> anyhow::Result<()> {
    let events = Events::stdout("proxy");
    let hop = Hop::new(config)?;
    let figures = Figures::new(&events);
    let remembered = remembered::settings(config, &figures.state)?;
    let socket = passed
        .into_iter()
        .find(|inherited| inherited.name == DESCRIPTOR)
        .with_context(|| format!("no socket named {DESCRIPTOR:?} was passed; start the process by its socket unit, or use `run`"))?;
    let policy = Policy::proxy().connect_tcp(hop.port());
    let report = match &remembered {
        Some(settings) => policy.connect_tcp(settings.address.port()),
        None => policy,
    }
    .enforce()
    .context("the sandbox does not stand")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let remembered = remembered::start(remembered).await;
        events.started();
        crate::service::ready(&report.to_string());
        // What the gateway puts in front of a message comes on top.
        let largest = config.limits.max_message_size.saturating_add(FIELDS);
        let pool = Pool {
            hop: Arc::new(hop),
            idle: Mutex::new(Vec::new()),
            asking: Semaphore::new(AT_A_TIME),
            submissions: Semaphore::new(SUBMISSIONS),
            largest,
            remembered,
            figures,
        };
        serve(socket.fd, Arc::new(pool), &events).await
    })
}

async fn serve(socket: OwnedFd, pool: Arc<Pool>, events: &Events) -> anyhow::Result<()> {
    let listener = Listener::new(socket).context("the passed socket cannot be served")?;
    let clients = Arc::new(Semaphore::new(CLIENTS));
    let mut stop = crate::service::stop_signal()?;
    loop {
        let permit = Arc::clone(&clients).acquire_owned().await?;
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => {
                events.emit(None, None, EventKind::Stopping { reason: "asked to".into() });
                return Ok(());
            }
        };
        match stream {
            Ok(stream) => {
                let pool = Arc::clone(&pool);
                let events = events.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = answer_all(&stream, &pool).await {
                        events.warn(format!("a connection from smtpd broke: {error}"));
                    }
                });
            }
            Err(error) => {
                events.warn(format!("a connection from smtpd could not be taken: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer_all(stream: &Connection, pool: &Pool) -> io::Result<()> {
    let mut buffer = vec![0; PACKET];
    loop {
        let packet = stream.recv(&mut buffer).await?;
        if packet.len == 0 {
            return Ok(());
        }
        if let Ok(figures::Asked::Figures) = serde_json::from_slice(&buffer[..packet.len]) {
            stream
                .send(&serde_json::to_vec(&pool.figures.series())?, None)
                .await?;
            continue;
        }
        if let Some(reply) = remembered::answer(pool.remembered.as_ref(), &buffer[..packet.len]).await {
            pool.figures.remembered(matches!(reply, Reply::Answer(_)));
            stream.send(&serde_json::to_vec(&reply)?, None).await?;
            continue;
        }
        let answer = match serde_json::from_slice::<Question>(&buffer[..packet.len]) {
            Ok(Question::Login(login)) => {
                let Ok(_place) = pool.submissions.try_acquire() else {
                    pool.figures.login("busy");
                    return submission::turn_away(stream).await;
                };
                return submission::carry(stream, *login, &pool.hop, pool.largest, &pool.figures).await;
            }
            Ok(Question::Recipient(recipient)) => {
                let asked = pool.ask(&recipient).await;
                pool.figures.recipient(asked.as_ref().map_err(drop));
                match asked {
                    Ok(existence) => Answer::Known(existence),
                    Err(why) => Answer::Unavailable(why),
                }
            }
            Err(error) => Answer::Unavailable(format!("the question cannot be read: {error}")),
        };
        stream.send(&serde_json::to_vec(&answer)?, None).await?;
    }
}

/// Kept connections to the next hop.
struct Pool {
    hop: Arc<Hop>,
    idle: Mutex<Vec<Link>>,
    asking: Semaphore,
    submissions: Semaphore,
    /// Octets of the largest submission.
    largest: u64,
    /// What gateways remember together.
    remembered: Option<Valkey>,
    figures: Figures,
}

impl Pool {
    async fn ask(&self, recipient: &str) -> Result<Existence, String> {
        let _permit = self.asking.acquire().await;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut link) = idle.filter(Link::is_fresh) else {
                break;
            };
            if let Ok(existence) = link.verify(recipient).await {
                self.keep(link);
                return Ok(existence);
            }
            // The next hop closed it meanwhile, or will not go on with it: a new one decides.
        }
        let mut link = Link::open(&self.hop, &self.figures.recipients).await?;
        let existence = link.verify(recipient).await?;
        self.keep(link);
        Ok(existence)
    }

    fn keep(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Link::is_fresh);
        idle.push(link);
    }
}

/// The smtpd side: asks the proxy at `path`.
pub async fn ask(path: &Path, recipient: &str) -> Result<Existence, VerifyError> {
    let broken = |source| VerifyError::Io {
        path: path.to_owned(),
        source,
    };
    let exchange = async {
        let stream = Connection::connect(path).await?;
        stream
            .send(
                &serde_json::to_vec(&Question::Recipient(recipient.to_owned()))?,
                None,
            )
            .await?;
        let mut buffer = vec![0; PACKET];
        let packet = stream.recv(&mut buffer).await?;
        if packet.len == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok::<Answer, io::Error>(serde_json::from_slice(&buffer[..packet.len])?)
    };
    match exchange.await.map_err(broken)? {
        Answer::Known(existence) => Ok(existence),
        Answer::Unavailable(why) => Err(VerifyError::Temporary(why)),
    }
}
