//! clamd client: one message by INSTREAM, through the `clamav-client` crate.
//!
//! Enters: a message. Leaves: clean, or the signature's name. Anything else clamd says is an error, never "clean".
//!
//! clamd guesses from the first octets, and from some farther in, what a file is. A message whose first field is named
//! `PK\x03\x04` or `GIF89a` would be taken for an archive or a picture, and its attachments would not be decoded. What
//! it reads first is therefore ours: [`preface`], which no octet of the message can come before.

use std::io;

use bytes::Bytes;
use clamav_client::tokio::{TransportProtocol, scan_stream};
use tokio::io::{AsyncReadExt, Join, ReadHalf, Take, WriteHalf};

use super::scanner::{Stream, connect};
use crate::config::ScannerSocket;

/// Octets of an answer that are read.
const ANSWER: u64 = 4096;
/// Octets given to clamd at a time.
const CHUNK: usize = 64 * 1024;
/// Octets of header in front of the message. The farthest place at which clamd looks for the mark of a file type is in
/// the third volume descriptor of ISO 9660, below 38 KiB.
const PREFACE: usize = 40 * 1024;

/// What clamd found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanned {
    /// No signature matched.
    Clean,
    /// This one did.
    Found(String),
    /// A part is encrypted; no signature matched the rest.
    Encrypted(String),
    /// A part is beyond clamd's limits; no signature matched the rest.
    Unscannable(String),
    /// Its time was up before it had seen all.
    Unfinished(String),
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
    let chunks = std::iter::once(preface())
        .chain(message.chunks(CHUNK).map(Bytes::copy_from_slice))
        .map(Ok);
    let answer = scan_stream(tokio_stream::iter(chunks), Bounded(socket), Some(CHUNK))
        .await
        .map_err(|source| ClamdError::Io {
            socket: socket.to_string(),
            source,
        })?;
    parse(&answer)
}

/// Header fields that make clamd read what follows as mail.
fn preface() -> Bytes {
    const FIRST: &str = "Received: from client by postern\r\n";
    const FILLER: &str = "X-Postern-Filler: ----------------------------------------------------------\r\n";
    let fillers = (PREFACE - FIRST.len()).div_ceil(FILLER.len());
    Bytes::from([FIRST, &FILLER.repeat(fillers)].concat())
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

/// What clamd finds when its time (`MaxScanTime`) is up. The message was not scanned to its end, and nothing was found in it:
/// that is as good as no answer, which defers, and not a virus, which would refuse for good.
const OUT_OF_TIME: &str = "Heuristics.Limits.Exceeded.MaxScanTime";

/// What it finds, with `AlertEncryptedArchive`, in an archive with a password.
const ENCRYPTED: &str = "Heuristics.Encrypted.";
/// What it finds, with `AlertExceedsMax`, where one of its other limits ended the scan.
const LIMITS: &str = "Heuristics.Limits.Exceeded.";

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
        Some(name) if !name.is_empty() => {
            let name: String = name.chars().filter(char::is_ascii_graphic).take(200).collect();
            Ok(match () {
                () if name.starts_with(OUT_OF_TIME) => Scanned::Unfinished(name),
                () if name.starts_with(ENCRYPTED) => Scanned::Encrypted(name),
                () if name.starts_with(LIMITS) => Scanned::Unscannable(name),
                () => Scanned::Found(name),
            })
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_header_fields_alone() {
        let preface = preface();
        assert!(preface.len() >= PREFACE && preface.len() <= CHUNK);
        assert!(preface.starts_with(b"Received: ") && preface.ends_with(b"\r\n"));
        assert!(!preface.windows(4).any(|octets| octets == b"\r\n\r\n"));
    }

    #[test]
    fn only_ok_is_clean() {
        assert_eq!(parse(b"stream: OK\0").unwrap(), Scanned::Clean);
        assert_eq!(
            parse(b"stream: Eicar-Test FOUND\0").unwrap(),
            Scanned::Found("Eicar-Test".into())
        );
        assert_eq!(
            parse(b"stream: Heuristics.Encrypted.Zip FOUND\0").unwrap(),
            Scanned::Encrypted("Heuristics.Encrypted.Zip".into())
        );
        assert_eq!(
            parse(b"stream: Heuristics.Limits.Exceeded.MaxFiles FOUND\0").unwrap(),
            Scanned::Unscannable("Heuristics.Limits.Exceeded.MaxFiles".into())
        );
        assert_eq!(
            parse(b"stream: Heuristics.Limits.Exceeded.MaxScanTime FOUND\0").unwrap(),
            Scanned::Unfinished("Heuristics.Limits.Exceeded.MaxScanTime".into())
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
