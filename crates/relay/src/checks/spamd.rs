//! SPAMC/1.5 client: one message to `SpamAssassin`'s spamd, one bounded answer back.
//!
//! Enters: a message with CRLF line ends. Leaves: score and names of the rules that hit. The protocol is the one that
//! spamd documents in its own PROTOCOL file; only `SYMBOLS` is spoken.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::scanner::connect;
use crate::config::ScannerSocket;

/// Octets of a message that are shown to spamd. Larger messages are judged by their beginning: spam is small, and
/// rules over megabytes would hold a worker for minutes.
pub const SHOWN: usize = 512 * 1024;
/// Octets of an answer that are read.
const ANSWER: u64 = 64 * 1024;

/// What spamd found.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The message's score.
    pub score: f64,
    /// Rules that hit, separated by commas.
    pub symbols: String,
}

/// Why there is no score.
#[derive(Debug, thiserror::Error)]
pub enum SpamdError {
    /// The connection failed.
    #[error("spamd at {socket}: {source}")]
    Io {
        /// Where.
        socket: String,
        /// What happened.
        source: io::Error,
    },
    /// spamd said that it failed.
    #[error("spamd answered {0:?}")]
    Refused(String),
    /// The answer is not of the protocol.
    #[error("spamd's answer cannot be read: {0}")]
    Malformed(&'static str),
}

/// Asks spamd at `socket` about `message`.
pub async fn ask(socket: &ScannerSocket, message: &[u8]) -> Result<Scored, SpamdError> {
    let answer = async {
        let mut stream = connect(socket).await?;
        exchange(&mut stream, message).await
    }
    .await
    .map_err(|source| SpamdError::Io {
        socket: socket.to_string(),
        source,
    })?;
    parse(&answer)
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), message: &[u8]) -> io::Result<Vec<u8>> {
    let shown = &message[..message.len().min(SHOWN)];
    let head = format!("SYMBOLS SPAMC/1.5\r\nContent-length: {}\r\n\r\n", shown.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(shown).await?;
    // spamd reads by lines: what does not end with one is known to be whole only at the end of the stream.
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Reads `SPAMD/1.1 0 EX_OK`, its fields, and the symbols.
pub fn parse(answer: &[u8]) -> Result<Scored, SpamdError> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(SpamdError::Malformed("it is cut short"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let mut words = status.split_ascii_whitespace();
    if !words.next().is_some_and(|word| word.starts_with("SPAMD/")) {
        return Err(SpamdError::Malformed("it does not begin with SPAMD/"));
    }
    if words.next() != Some("0") {
        return Err(SpamdError::Refused(status.chars().take(200).collect()));
    }
    let mut score = None;
    let mut length = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("spam") {
            score = score_of(value);
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let score = score.ok_or(SpamdError::Malformed("it has no score"))?;
    if length.is_some_and(|length| body.len() < length) {
        return Err(SpamdError::Malformed("its body is cut short"));
    }
    Ok(Scored {
        score,
        symbols: body
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(2000)
            .collect(),
    })
}

/// The score in ` True ; 15.0 / 5.0`.
fn score_of(value: &str) -> Option<f64> {
    let (_, numbers) = value.split_once(';')?;
    let (score, _) = numbers.split_once('/')?;
    score.trim().parse::<f64>().ok().filter(|score| score.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let answer = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 24\r\nSpam: True ; 999.5 / 5.0\r\n\r\nGTUBE,NO_RECEIVED,MISSING\r\n";
        let scored = parse(answer).unwrap();
        assert_eq!(
            scored,
            Scored {
                score: 999.5,
                symbols: "GTUBE,NO_RECEIVED,MISSING".into()
            }
        );
        let negative = parse(b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.2 / 5.0\r\n\r\n").unwrap();
        assert!((negative.score + 1.2).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_score_is_an_error() {
        for answer in [
            &b""[..],
            b"SPAMD/1.1 0 EX_OK\r\n",
            b"SPAMD/1.1 0 EX_OK\r\n\r\n",
            b"SPAMD/1.1 0 EX_OK\r\nSpam: False\r\n\r\n",
            b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; nan / 5.0\r\n\r\n",
            b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; inf / 5.0\r\n\r\n",
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 30\r\nSpam: False ; 0.1 / 5.0\r\n\r\nGTU",
            b"HTTP/1.1 0 OK\r\nSpam: False ; 0.1 / 5.0\r\n\r\n",
        ] {
            assert!(
                matches!(parse(answer), Err(SpamdError::Malformed(_))),
                "{}",
                String::from_utf8_lossy(answer)
            );
        }
        assert!(matches!(
            parse(b"SPAMD/1.0 79 Timeout: 30\r\n\r\n"),
            Err(SpamdError::Refused(_))
        ));
    }

    #[tokio::test]
    async fn a_large_message_is_shown_in_part_and_the_length_says_so() {
        let (mut ours, mut theirs) = tokio::io::duplex(4 << 20);
        let server = async {
            let mut seen = vec![0; 40 + SHOWN + 100];
            let mut length = 0;
            while length < SHOWN + 40 {
                length += theirs.read(&mut seen[length..]).await.unwrap();
            }
            theirs
                .write_all(b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0.0 / 5.0\r\n\r\n")
                .await
                .unwrap();
            drop(theirs);
            seen.truncate(length);
            seen
        };
        let message = vec![b'x'; SHOWN + 5];
        let (answer, seen) = tokio::join!(exchange(&mut ours, &message), server);
        assert!(parse(&answer.unwrap()).is_ok());
        assert!(seen.starts_with(format!("SYMBOLS SPAMC/1.5\r\nContent-length: {SHOWN}\r\n\r\n").as_bytes()));
        assert!(seen.ends_with(&message[..SHOWN]) && !seen.ends_with(&message[..=SHOWN]));
    }
}
