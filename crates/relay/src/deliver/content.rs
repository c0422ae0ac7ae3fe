//! The content of a message on its way out: fields of ours in front, the rest read from the spool in parts.

use std::sync::Arc;

use crate::dkim::{DkimError, MAX_HEADER, Signers};
use crate::spool::SpoolError;
use crate::spool::body::Stored;

/// Octets read from the spool at a time.
pub const PART: usize = 64 << 10;
/// Octets in which the first line ends, if it is one.
const FIRST_LINE: usize = 1000;

/// What is sent.
pub struct Content {
    prefix: Vec<u8>,
    stored: Arc<Stored>,
}

/// Who has signed.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// `d=`
    pub domain: String,
    /// `s=`
    pub selectors: Vec<String>,
}

impl Content {
    /// The message as it is.
    pub fn plain(stored: Arc<Stored>) -> Self {
        Self {
            prefix: Vec::new(),
            stored,
        }
    }

    /// The message with DKIM signatures, where its author's domain has keys. Reads all of it once, so it belongs on a
    /// thread that may block.
    pub fn signed(stored: Arc<Stored>, signers: &Signers) -> Result<(Self, Option<Signed>), ContentError> {
        let Some(mut signing) = signers.begin(&stored.header(MAX_HEADER)?) else {
            return Ok((Self::plain(stored), None));
        };
        let mut offset = 0;
        while offset < stored.size() {
            let part = stored.read(offset, PART)?;
            signing.write(&part);
            offset += part.len() as u64;
        }
        let signed = Signed {
            domain: signing.domain.clone(),
            selectors: signing.selectors.clone(),
        };
        Ok((
            Self {
                prefix: signing.finish()?,
                stored,
            },
            Some(signed),
        ))
    }

    /// Whether the author waives encryption, by `TLS-Required: No` (RFC 8689 5). What cannot be read waives nothing.
    pub fn waives_tls(&self) -> bool {
        let header = self.stored.header(MAX_HEADER).unwrap_or_default();
        waives_tls(&String::from_utf8_lossy(&header))
    }

    /// Octets, for SIZE.
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.stored.size()
    }

    /// The first octets: a line at least, where there is one.
    pub fn beginning(&self) -> Result<Vec<u8>, SpoolError> {
        if self.prefix.is_empty() {
            return self.stored.read(0, FIRST_LINE);
        }
        Ok(self.prefix.iter().copied().take(FIRST_LINE).collect())
    }

    /// The parts in order. Reading blocks, but for what was just written or checked it only copies from memory.
    pub fn parts(&self) -> impl Iterator<Item = Result<Vec<u8>, SpoolError>> {
        let rest = (0..self.stored.size())
            .step_by(PART)
            .map(|offset| self.stored.read(offset, PART));
        std::iter::once(Ok(self.prefix.clone())).chain(rest)
    }
}

/// A field that stands twice waives nothing: RFC 8689 allows it once.
fn waives_tls(header: &str) -> bool {
    let unfolded = header.replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut values = unfolded
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim_end().eq_ignore_ascii_case("TLS-Required"))
        .map(|(_, value)| value.trim());
    values
        .next()
        .is_some_and(|value| value.eq_ignore_ascii_case("no"))
        && values.next().is_none()
}

/// Why content cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// It cannot be signed.
    #[error(transparent)]
    Dkim(#[from] DkimError),
}

#[cfg(test)]
mod tests {
    use super::waives_tls;

    #[test]
    fn only_one_plain_no_waives_encryption() {
        assert!(waives_tls("From: <a@b>\r\nTLS-Required: No\r\n\r\n"));
        assert!(waives_tls("tls-required:\r\n no \r\n\r\n"));
        for kept in [
            "Subject: TLS-Required: No\r\n\r\n",
            "Subject: x\r\n TLS-Required: No\r\n\r\n",
            "TLS-Required: Nothing\r\n\r\n",
            "TLS-Required: No\r\nTLS-Required: Yes\r\n\r\n",
        ] {
            assert!(!waives_tls(kept), "{kept:?}");
        }
    }
}
