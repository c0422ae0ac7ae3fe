//! Logins are checked by Dovecot: its authentication client protocol on a unix socket.
//!
//! Enters: user and password that came over TLS (RFC 4954, PLAIN of RFC 4616). Leaves: the user as Dovecot names it,
//! or why not. Each question has a connection of its own, since the protocol wants a client number no other
//! connection has.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;

use crate::checks::scanner::unix;

const LIMIT: Duration = Duration::from_secs(30);
const AT_A_TIME: usize = 32;
/// Octets of Dovecot's side of one conversation.
const CONVERSATION: u64 = 64 * 1024;
/// Client numbers start here, above any process id that Dovecot's own login processes use.
const FIRST_CLIENT: u32 = 0x4000_0000;

/// For what a login is; Dovecot's queries tell them apart (`%{protocol}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Submission on the inside, with the user's own password.
    Inside,
    /// Submission from outside: an app password, and nothing else.
    Outside,
}

impl Service {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "smtp",
            Self::Outside => "postern-outside",
        }
    }
}

/// Why a login is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SaslError {
    /// User or password is wrong.
    #[error("wrong user or password")]
    Denied,
    /// Dovecot cannot tell now.
    #[error("Dovecot at {}: {reason}", path.display())]
    Unavailable {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Asks Dovecot.
pub struct Logins {
    socket: PathBuf,
    service: Service,
    client: AtomicU32,
    asking: Semaphore,
}

impl Logins {
    /// Asks at `socket`; `seed` makes client numbers differ between processes.
    pub fn new(socket: PathBuf, service: Service, seed: u32) -> Self {
        let client = AtomicU32::new(FIRST_CLIENT | (seed & 0xff_ffff) << 6);
        Self {
            socket,
            service,
            client,
            asking: Semaphore::new(AT_A_TIME),
        }
    }

    /// The user's name in Dovecot, if `password` is right.
    pub async fn check(&self, user: &str, password: &str, peer: IpAddr) -> Result<String, SaslError> {
        let unavailable = |reason: String| SaslError::Unavailable {
            path: self.socket.clone(),
            reason,
        };
        if user.contains('\0') || password.contains('\0') {
            return Err(SaslError::Denied);
        }
        let _permit = self.asking.acquire().await;
        let client = self.client.fetch_add(1, Ordering::Relaxed) | FIRST_CLIENT;
        let response = STANDARD.encode(format!("\0{user}\0{password}"));
        let hello = format!("VERSION\t1\t2\nCPID\t{client}\n");
        let question = format!(
            "AUTH\t1\tPLAIN\tservice={}\tsecured\tnologin\trip={peer}\tresp={response}\n",
            self.service.as_str()
        );
        match tokio::time::timeout(LIMIT, self.converse(&hello, &question)).await {
            Ok(Ok(line)) => answer(&line).map_err(|denied| denied.map_or(SaslError::Denied, unavailable)),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable(format!("no answer in {} s", LIMIT.as_secs()))),
        }
    }

    /// Says `hello`, sends `question` once the server is ready, and returns the line that answers request 1.
    async fn converse(&self, hello: &str, question: &str) -> io::Result<String> {
        let mut stream = unix(&self.socket).await?;
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader.take(CONVERSATION)).lines();
        // Servers may wait for our half before they end theirs.
        writer.write_all(hello.as_bytes()).await?;
        // The server's greeting ends with DONE; it names its protocol version, of which the major one must be ours.
        loop {
            let line = next(&mut lines).await?;
            let mut fields = line.split('\t');
            match (fields.next(), fields.next()) {
                (Some("VERSION"), Some(major)) if major != "1" => {
                    return Err(io::Error::other(format!(
                        "it speaks protocol version {major}, not 1"
                    )));
                }
                (Some("DONE"), _) => break,
                _ => {}
            }
        }
        writer.write_all(question.as_bytes()).await?;
        loop {
            let line = next(&mut lines).await?;
            let mut fields = line.split('\t');
            if matches!(fields.next(), Some("OK" | "FAIL" | "CONT")) && fields.next() == Some("1") {
                return Ok(line);
            }
        }
    }
}

async fn next<R: AsyncBufReadExt + Unpin>(lines: &mut tokio::io::Lines<R>) -> io::Result<String> {
    lines
        .next_line()
        .await?
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"))
}

/// Reads `OK 1 user=NAME …`; an error holds the reason where the failure is Dovecot's own.
fn answer(line: &str) -> Result<String, Option<String>> {
    let mut fields = line.split('\t');
    match fields.next() {
        Some("OK") => fields
            .find_map(|field| field.strip_prefix("user="))
            .filter(|user| !user.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| Some("it said OK without a user".to_owned())),
        Some("FAIL") if fields.any(|field| field == "temp" || field == "code=temp_fail") => {
            Err(Some("it failed for the moment".to_owned()))
        }
        Some("FAIL") => Err(None),
        _ => Err(Some("it wants a longer conversation than PLAIN has".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(
            answer("OK\t1\tuser=a@example.org\textra"),
            Ok("a@example.org".into())
        );
        assert_eq!(answer("FAIL\t1\tuser=a@example.org"), Err(None));
        assert!(matches!(answer("FAIL\t1\ttemp"), Err(Some(_))));
        assert!(matches!(answer("OK\t1"), Err(Some(_))));
        assert!(matches!(answer("CONT\t1\tabc"), Err(Some(_))));
    }
}
