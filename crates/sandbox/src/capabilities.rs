//! Capabilities: a relay process needs none, whoever started it.
//!
//! Shrinking the bounding set takes `CAP_SETPCAP`, which an ordinary user has not; there the bounding set stays as
//! it is, and is out of reach: it only matters to an exec, and `no_new_privs` together with the system call filter
//! leave none.

use caps::{CapSet, Capability};

use crate::SandboxError;

/// Empties every set. Returns whether the bounding set is now empty too.
pub(crate) fn drop_all() -> Result<bool, SandboxError> {
    let failed = |set: &'static str| {
        move |e: caps::errors::CapsError| SandboxError::Capabilities {
            set,
            reason: e.to_string(),
        }
    };
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed("effective"))? {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed("bounding"))?;
        }
    }
    for (set, name) in [
        (CapSet::Ambient, "ambient"),
        (CapSet::Inheritable, "inheritable"),
        (CapSet::Effective, "effective"),
        (CapSet::Permitted, "permitted"),
    ] {
        caps::clear(None, set).map_err(failed(name))?;
        if !caps::read(None, set).map_err(failed(name))?.is_empty() {
            return Err(SandboxError::Capabilities {
                set: name,
                reason: "some were left".into(),
            });
        }
    }
    Ok(caps::read(None, CapSet::Bounding)
        .map_err(failed("bounding"))?
        .is_empty())
}
