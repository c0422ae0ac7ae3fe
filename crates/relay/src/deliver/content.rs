//! The content of a message on its way out: fields of ours in front, the rest read from the spool in parts.

use std::sync::Arc;

use crate::dkim::{DkimError, MAX_HEADER, Signers};
use crate::spool::SpoolError;
use crate::spool::body::Stored;

/// Octets read from the spool at a time.
const PART: usize = 64 << 10;

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

    /// Octets, for SIZE.
    pub fn size(&self) -> u64 {
        self.prefix.len() as u64 + self.stored.size()
    }

    /// The parts in order. Reading blocks, but for what was just written or checked it only copies from memory.
    pub fn parts(&self) -> impl Iterator<Item = Result<Vec<u8>, SpoolError>> {
        let rest = (0..self.stored.size())
            .step_by(PART)
            .map(|offset| self.stored.read(offset, PART));
        std::iter::once(Ok(self.prefix.clone())).chain(rest)
    }
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
