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
    Answer, Backend, Key, Millis, PASS_WINDOW, PROOFS, Question, RETRY_WINDOW, Triplet, Unavailable, millis,
};

/// From connecting to the login's answer.
const CONNECT: Duration = Duration::from_secs(2);
/// For the answer to a question; a client waits in the meantime.
const ANSWER: Duration = Duration::from_millis(200);
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
    ) -> redis::RedisResult<i64> {
        let mut run = self.script.prepare_invoke();
        let triplet = |run: &mut redis::ScriptInvocation<'_>, triplet: &Triplet| {
            run.key(name("waiting", triplet.whole))
                .key(name("passed", triplet.whole))
                .key(name("client", triplet.client));
        };
        let word = match question {
            Question::Allows { key, .. } | Question::Take { key, .. } => {
                run.key(name("count", *key));
                if matches!(question, Question::Take { .. }) {
                    "take"
                } else {
                    "allows"
                }
            }
            Question::Knows { triplet: of } => {
                triplet(&mut run, of);
                "knows"
            }
            Question::See { triplet: of, .. } => {
                triplet(&mut run, of);
                "see"
            }
            Question::Learn { triplet: of } => {
                triplet(&mut run, of);
                "learn"
            }
            Question::Prove { client } => {
                triplet(
                    &mut run,
                    &Triplet {
                        whole: *client,
                        client: *client,
                    },
                );
                "prove"
            }
        };
        run.arg(word).arg(now);
        match question {
            Question::Allows { limit, window, .. } | Question::Take { limit, window, .. } => {
                run.arg(*limit).arg(*window);
            }
            _ => {
                run.arg(millis(PASS_WINDOW)).arg(millis(RETRY_WINDOW)).arg(PROOFS);
            }
        }
        if let Question::See { delay, .. } = question {
            run.arg(*delay);
        }
        run.invoke_async(&mut connection).await
    }
}

impl Backend for Valkey {
    async fn ask(&self, question: &Question, now: Millis) -> Result<Answer, Unavailable> {
        let connection = self.connection.borrow().clone().map_err(Unavailable)?;
        match self.run(connection, question, now).await {
            Ok(-1) => Ok(Answer::Yes),
            Ok(-2) => Ok(Answer::No),
            Ok(left) => u64::try_from(left)
                .map(Answer::Wait)
                .map_err(|_| Unavailable(format!("the server answered {left}"))),
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
        let why = match connecting.await {
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
        .connect(settings.server_name.clone(), stream)
        .await?;
    let limits = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
    MultiplexedConnection::new_with_config(login, stream, limits)
        .await
        .map_err(io::Error::other)
}
