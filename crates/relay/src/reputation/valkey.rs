//! The back end that several gateways share: a Valkey server (or Redis 6 and later) behind TLS, a user and a password.
//!
//! Each question is one run of `ask.lua`, so that two gateways never count past each
//! other. The connection is made and made again in the background; a question never waits for it. Only the proxy process
//! speaks to the server: smtpd connects nowhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, Script};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;

use super::{
    Accepted, Answer, Attempt, Backend, CLOCKS_DIFFER, FORGIVEN, HOUR, How, Key, LOGIN_WINDOW, Limit, Millis,
    PASS_WINDOW, PROOFS, Question, RETRY_WINDOW, Triplet, Unavailable, Weigh, millis,
};
use crate::proxy::traffic::{Counted, Traffic};

/// From connecting to the login's answer.
const CONNECT: Duration = Duration::from_secs(2);
/// For the answer to a question; a client waits in the meantime.
pub const ANSWER: Duration = Duration::from_millis(200);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// What all our keys begin with, so that the server's access list can name them.
const PREFIX: &str = "postern:";

/// Where the server is and how each side proves itself.
#[derive(Clone)]
pub struct Settings {
    /// Its address; no name is looked up.
    pub address: SocketAddr,
    /// The authority that is believed, and our own certificate.
    pub tls: Arc<ClientConfig>,
    /// The name that its certificate must carry.
    pub server_name: ServerName<'static>,
    /// The user of the server's access list.
    pub user: String,
    /// Its password.
    pub password: String,
    /// How long an answer may take.
    pub answer: Duration,
    /// What goes there and back.
    pub traffic: Arc<Traffic>,
}

type Connected = Result<MultiplexedConnection, String>;

/// The server, as far as it is there.
pub struct Valkey {
    connection: watch::Receiver<Connected>,
    broken: Arc<Notify>,
    script: Script,
}

impl Valkey {
    /// Begins to connect. Within the runtime; ends when it is dropped.
    pub fn start(settings: Settings) -> Self {
        let (found, connection) = watch::channel(Err("not yet connected".to_owned()));
        let broken = Arc::new(Notify::new());
        tokio::spawn(stay_connected(settings, found, broken.clone()));
        Self {
            connection,
            broken,
            script: Script::new(include_str!("ask.lua")),
        }
    }

    /// Waits until the server can be asked.
    pub async fn connected(&self) {
        // An error means that the task has ended, which it does not before this is dropped.
        let _ = self.connection.clone().wait_for(Result::is_ok).await.map(|_| ());
    }

    async fn run(
        &self,
        mut connection: MultiplexedConnection,
        question: &Question,
        now: Millis,
    ) -> redis::RedisResult<Vec<u64>> {
        let mut run = self.script.prepare_invoke();
        match question {
            Question::Weigh(weigh) => weigh_with(&mut run, weigh, now),
            Question::Accepted(accepted) => accepted_with(&mut run, accepted, now),
            Question::Attempt(attempt) => attempt_with(&mut run, "attempt", attempt, now),
            Question::Right(attempt) => attempt_with(&mut run, "right", attempt, now),
            Question::Unjudged(attempt) => attempt_with(&mut run, "unjudged", attempt, now),
            Question::Knows { triplet } => triplet_with(&mut run, "knows", triplet, now),
            Question::See { triplet, delay } => {
                triplet_with(&mut run, "see", triplet, now);
                run.arg(*delay);
            }
            Question::Learn { triplet } => triplet_with(&mut run, "learn", triplet, now),
            Question::Prove { client } => {
                let triplet = Triplet {
                    whole: *client,
                    client: *client,
                };
                triplet_with(&mut run, "prove", &triplet, now);
            }
        }
        run.invoke_async(&mut connection).await
    }
}

type Run<'a> = redis::ScriptInvocation<'a>;

/// What every question begins with.
fn begin(run: &mut Run<'_>, word: &str, now: Millis) {
    run.arg(word).arg(now).arg(millis(CLOCKS_DIFFER));
}

fn triplet_with(run: &mut Run<'_>, word: &str, triplet: &Triplet, now: Millis) {
    run.key(name("waiting", triplet.whole))
        .key(name("passed", triplet.whole))
        .key(name("client", triplet.client));
    begin(run, word, now);
    run.arg(millis(PASS_WINDOW)).arg(millis(RETRY_WINDOW)).arg(PROOFS);
}

fn weigh_with(run: &mut Run<'_>, weigh: &Weigh, now: Millis) {
    begin(run, "weigh", now);
    run.arg(millis(HOUR))
        .arg(weigh.factor)
        .arg(u8::from(weigh.proven))
        .arg(weigh.counts.len());
    for count in &weigh.counts {
        let how = match count.how {
            How::Look => "look",
            How::Take => "take",
            How::Taken => "taken",
        };
        run.key(name(kind(count.limit), count.key))
            .arg(count.per_hour)
            .arg(how);
    }
    for key in &weigh.histories {
        run.key(name("history", *key));
    }
}

fn accepted_with(run: &mut Run<'_>, accepted: &Accepted, now: Millis) {
    begin(run, "accepted", now);
    run.arg(millis(HOUR))
        .arg(millis(PASS_WINDOW))
        .arg(accepted.recipients.len());
    for key in &accepted.recipients {
        run.key(name(kind(Limit::Recipient), *key));
    }
    if let Some(history) = &accepted.history {
        run.arg(history.messages).arg(history.age);
        run.key(name("history", history.domain));
        for key in &history.proofs {
            run.key(name("beginning", *key)).key(name("history", *key));
            run.arg(u8::from(history.proven.contains(key)));
        }
    }
}

fn attempt_with(run: &mut Run<'_>, word: &str, attempt: &Attempt, now: Millis) {
    begin(run, word, now);
    run.key(name("login", attempt.login));
    run.arg(millis(FORGIVEN))
        .arg(millis(LOGIN_WINDOW))
        .arg(u8::from(attempt.known))
        .arg(attempt.of_known.len());
    for bucket in attempt.of_known.iter().chain(&attempt.of_unknown) {
        run.key(name("guess", bucket.key)).arg(bucket.most);
    }
    run.key(name("attempt", attempt.id));
}

fn kind(limit: Limit) -> &'static str {
    match limit {
        Limit::Address => "address",
        Limit::Network => "network",
        Limit::Sender => "sender",
        Limit::Recipient => "recipient",
    }
}

/// The answer that the script's words are.
fn answer(question: &Question, words: &[u64]) -> Option<Answer> {
    let count = |number: u64| u32::try_from(number).ok();
    Some(match (words, question) {
        ([1], _) => Answer::Yes,
        ([2], _) => Answer::No,
        ([3, left], _) => Answer::Wait(*left),
        ([4, which, per_hour, wait], Question::Weigh(weigh)) => Answer::Over {
            limit: weigh.counts.get(usize::try_from(*which).ok()?)?.limit,
            per_hour: count(*per_hour)?,
            wait: *wait,
        },
        ([5, wrong], _) => Answer::Attempted(count(*wrong)?),
        ([6, left], _) => Answer::Throttled(*left),
        _ => return None,
    })
}

impl Backend for Valkey {
    async fn ask(&self, question: &Question, now: Millis) -> Result<Answer, Unavailable> {
        let connection = self.connection.borrow().clone().map_err(Unavailable)?;
        match self.run(connection, question, now).await {
            Ok(words) => {
                answer(question, &words).ok_or_else(|| Unavailable(format!("the server answered {words:?}")))
            }
            Err(error) => {
                // One that refuses, or is silent, is asked anew from the login on.
                self.broken.notify_one();
                Err(Unavailable(error.to_string()))
            }
        }
    }
}

fn name(kind: &str, key: Key) -> String {
    format!("{PREFIX}{kind}:{}", String::from(key))
}

async fn stay_connected(settings: Settings, found: watch::Sender<Connected>, broken: Arc<Notify>) {
    let login = RedisConnectionInfo::default()
        .set_username(&settings.user)
        .set_password(&settings.password)
        .set_protocol(ProtocolVersion::RESP2)
        .set_skip_set_lib_name();
    while !found.is_closed() {
        let connecting = tokio::time::timeout(CONNECT, connect(&settings, &login));
        let connected = connecting.await;
        if !matches!(connected, Ok(Ok(_))) {
            settings.traffic.failed();
        }
        let why = match connected {
            Ok(Ok((connection, driver))) => {
                found.send_modify(|state| *state = Ok(connection));
                tokio::select! {
                    () = driver => "the connection has ended",
                    () = broken.notified() => "a question was not answered",
                    () = found.closed() => return,
                }
                .to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no login in {} s", CONNECT.as_secs()),
        };
        found.send_modify(|state| *state = Err(format!("{}: {why}", settings.address)));
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(
    settings: &Settings,
    login: &RedisConnectionInfo,
) -> io::Result<(MultiplexedConnection, impl Future<Output = ()>)> {
    let stream = TcpStream::connect(settings.address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(settings.tls.clone())
        .connect(
            settings.server_name.clone(),
            Counted::new(stream, &settings.traffic),
        )
        .await?;
    let limits = AsyncConnectionConfig::new().set_response_timeout(Some(settings.answer));
    MultiplexedConnection::new_with_config(login, stream, limits)
        .await
        .map_err(io::Error::other)
}
