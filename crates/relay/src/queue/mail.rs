//! From the stored envelope to the client's: the addresses and parameters as [`postern_smtp`] knows them.

use postern_smtp::address::{ForwardPath, ReversePath};
use postern_smtp::client::{Envelope, Recipient};
use postern_smtp::dsn;

use crate::handover::{self, Notify, Ret};

/// An address in an envelope is none.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is not an address: {reason}")]
pub struct BadAddress {
    address: String,
    reason: String,
}

/// The client's envelope with only the recipients of these indexes.
pub fn envelope(stored: &handover::Envelope, indexes: &[u32], size: u64) -> Result<Envelope, BadAddress> {
    let chosen = indexes
        .iter()
        .filter_map(|index| stored.recipients.get(*index as usize));
    Ok(Envelope {
        reverse_path: reverse_path(&stored.reverse_path)?,
        recipients: chosen.map(recipient).collect::<Result<_, _>>()?,
        size,
        eight_bit: stored.eight_bit,
        smtputf8: stored.smtputf8,
        require_tls: stored.require_tls,
        ret: stored.ret.map(|ret| match ret {
            Ret::Full => dsn::Ret::Full,
            Ret::Hdrs => dsn::Ret::Headers,
        }),
        envid: stored.envid.clone(),
    })
}

/// Whether all addresses of an envelope are addresses; the queue takes no other.
pub fn check(stored: &handover::Envelope) -> Result<(), BadAddress> {
    reverse_path(&stored.reverse_path)?;
    stored
        .recipients
        .iter()
        .try_for_each(|one| recipient(one).map(|_| ()))
}

fn reverse_path(address: &str) -> Result<ReversePath, BadAddress> {
    if address.is_empty() {
        return Ok(ReversePath::Null);
    }
    address.parse().map_err(|reason| bad(address, reason))
}

fn recipient(stored: &handover::Recipient) -> Result<Recipient, BadAddress> {
    let path: ForwardPath = stored
        .address
        .parse()
        .map_err(|reason| bad(&stored.address, reason))?;
    let wants = |flags: &Vec<Notify>| dsn::Notify {
        success: flags.contains(&Notify::Success),
        failure: flags.contains(&Notify::Failure),
        delay: flags.contains(&Notify::Delay),
    };
    Ok(Recipient {
        path,
        notify: stored.notify.as_ref().map(wants),
        // A parameter that does not read back is left out: it must not keep the mail.
        orcpt: stored.orcpt.as_deref().and_then(|orcpt| orcpt.parse().ok()),
    })
}

fn bad(address: &str, reason: impl std::fmt::Display) -> BadAddress {
    BadAddress {
        address: address.into(),
        reason: reason.to_string(),
    }
}
