//! clamd client: one message by INSTREAM, through the `clamav-client` crate.
//!
//! Enters: a message. Leaves: clean, or the signature's name. Anything else clamd says is an error, never "clean".

use std::io;

use clamav_client::tokio::{TransportProtocol, scan_buffer};
use tokio::io::{AsyncReadExt, Join, ReadHalf, Take, WriteHalf};

use super::scanner::{Stream, connect};
use crate::config::ScannerSocket;

/// Octets of an answer that are read.
const ANSWER: u64 = 4096;

/// What clamd found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanned {
    /// No signature matched.
    Clean,
    /// This one did.
    Found(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClamdError {
    /// The connection failed.
    #[error("clamd at {socket}: {source}")]
    Io {
        /// Where.
        socket: String,
        /// What happened.
        source: io::Error,
    },
    /// clamd said something else than OK or FOUND.
    #[error("clamd answered {0:?}")]
    Refused(String),
}

/// Asks clamd at `socket` about `message`.
pub async fn ask(socket: &ScannerSocket, message: &[u8]) -> Result<Scanned, ClamdError> {
    let answer = scan_buffer(message, Bounded(socket), Some(64 * 1024))
        .await
        .map_err(|source| ClamdError::Io {
            socket: socket.to_string(),
            source,
        })?;
    parse(&answer)
}

/// A transport whose answers are bounded.
struct Bounded<'a>(&'a ScannerSocket);

impl TransportProtocol for Bounded<'_> {
    type Stream = Join<Take<ReadHalf<Box<dyn Stream>>>, WriteHalf<Box<dyn Stream>>>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        let (reader, writer) = tokio::io::split(connect(self.0).await?);
        Ok(tokio::io::join(reader.take(ANSWER), writer))
    }
}

/// Reads `stream: OK` and `stream: NAME FOUND`.
pub fn parse(answer: &[u8]) -> Result<Scanned, ClamdError> {
    let text = String::from_utf8_lossy(answer);
    let text = text.trim_end_matches(['\0', '\n']);
    let refused = || ClamdError::Refused(text.chars().filter(|c| !c.is_control()).take(200).collect());
    let result = text.strip_prefix("stream: ").ok_or_else(refused)?;
    if result == "OK" {
        return Ok(Scanned::Clean);
    }
    match result.strip_suffix(" FOUND") {
        Some(name) if !name.is_empty() => Ok(Scanned::Found(
            name.chars().filter(char::is_ascii_graphic).take(200).collect(),
        )),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_clean() {
        assert_eq!(parse(b"stream: OK\0").unwrap(), Scanned::Clean);
        assert_eq!(
            parse(b"stream: Eicar-Test FOUND\0").unwrap(),
            Scanned::Found("Eicar-Test".into())
        );
        for answer in [
            &b""[..],
            b"OK\0",
            b"stream: \0",
            b"stream:  FOUND\0",
            b"stream: OK OK\0",
            b"INSTREAM size limit exceeded. ERROR\0",
            b"stream: Can't allocate memory ERROR\0",
        ] {
            assert!(
                matches!(parse(answer), Err(ClamdError::Refused(_))),
                "{}",
                String::from_utf8_lossy(answer)
            );
        }
    }
}
