//! The way from smtpd to the back end that gateways share: over the proxy's socket, with so little patience that mail
//! flows on when there is no answer.
//!
//! Enters: one packet, [`Asked`]. Leaves: one packet, [`Reply`]. After a failure nothing is asked for a while but one
//! question, by which its return is noticed. Both are said loudly, once.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use postern_sandbox::packet::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{Answer, Question, Unavailable};
use crate::events::Events;

/// A client waits so long for the answer, at most.
const ANSWER: Duration = Duration::from_millis(300);
/// After a failure the next question.
const AGAIN: Duration = Duration::from_secs(5);
/// Questions under way, and so connections to the proxy.
const AT_A_TIME: usize = 32;
const PACKET: usize = 4096;

/// What the proxy is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// About what is remembered.
    pub remembered: Question,
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The shared back end's answer.
    Answer(Answer),
    /// There is none now, and why.
    Unavailable(String),
}

/// A client of the proxy.
pub struct Shared {
    path: PathBuf,
    events: Events,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
    /// When it may be asked again; absent while it answers.
    lost: Mutex<Option<Instant>>,
}

impl Shared {
    /// Asks at the proxy's socket.
    pub fn new(path: PathBuf, events: Events) -> Self {
        Self {
            path,
            events,
            idle: Mutex::default(),
            places: Semaphore::new(AT_A_TIME),
            lost: Mutex::default(),
        }
    }

    /// The shared answer, soon.
    pub async fn ask(&self, question: &Question) -> Result<Answer, Unavailable> {
        {
            let mut lost = lock(&self.lost);
            match *lost {
                Some(until) if Instant::now() < until => {
                    return Err(Unavailable("it was not there a moment ago".into()));
                }
                // This question tries; the others go on without.
                Some(_) => *lost = Some(Instant::now() + AGAIN),
                None => {}
            }
        }
        let answered = tokio::time::timeout(ANSWER, self.exchange(question)).await;
        let answer = match answered {
            Ok(Ok(Reply::Answer(answer))) => Ok(answer),
            Ok(Ok(Reply::Unavailable(why))) => Err(why),
            Ok(Err(error)) => Err(format!("the proxy at {}: {error}", self.path.display())),
            Err(_) => Err(format!("no answer in {} ms", ANSWER.as_millis())),
        };
        self.tell(answer.as_ref().err().map(String::as_str));
        answer.map_err(Unavailable)
    }

    fn tell(&self, failure: Option<&str>) {
        let mut lost = lock(&self.lost);
        let before = lost.is_some();
        *lost = failure.map(|_| Instant::now() + AGAIN);
        match failure {
            Some(why) if !before => self.events.warn(format!(
                "SHARED STATE LOST: {why}; this gateway goes by its own memory of greylist, limits and wrong passwords until it answers again; see \
                 that the host of [dmz-state] runs and can be reached"
            )),
            None if before => self.events.warn(
                "the shared state answers again; greylist, limits and wrong passwords are shared with the other gateways from here on",
            ),
            _ => {}
        }
    }

    async fn exchange(&self, question: &Question) -> io::Result<Reply> {
        let _place = self.places.acquire().await.map_err(io::Error::other)?;
        let packet = serde_json::to_vec(&Asked {
            remembered: question.clone(),
        })?;
        loop {
            let idle = lock(&self.idle).pop();
            let Some(connection) = idle else { break };
            // A proxy that was restarted has closed it, and counted nothing.
            if let Ok(reply) = self.over(connection, &packet).await {
                return Ok(reply);
            }
        }
        let connection = Connection::connect(&self.path).await?;
        self.over(connection, &packet).await
    }

    async fn over(&self, connection: Connection, packet: &[u8]) -> io::Result<Reply> {
        connection.send(packet, None).await?;
        let mut buffer = vec![0; PACKET];
        let answer = connection.recv(&mut buffer).await?;
        if answer.len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let reply = serde_json::from_slice(&buffer[..answer.len])?;
        lock(&self.idle).push(connection);
        Ok(reply)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
