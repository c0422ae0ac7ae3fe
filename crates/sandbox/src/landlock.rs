//! Landlock: which paths and which TCP ports a process may reach.
//!
//! Everything of ABI 4 (Linux 6.7: files, and TCP ports) is required; the kernel's newer walls (ABI 5: ioctl on
//! devices; ABI 6: no signals to, and no abstract unix sockets of, anybody outside) are taken where it has them. Newer
//! ABIs are left alone until they were seen to work: ABI 9 would also judge each pathname socket, whose
//! directories need not exist yet when a process starts.
//!
//! What Landlock does not see is closed in [`crate::syscalls`]: listening on an unbound socket, TCP fast open,
//! protocols other than TCP and UDP. Addresses are the packet filter's.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::SandboxError;

/// The oldest Landlock that will do: the first with network rules.
pub(crate) const MINIMUM_ABI: i32 = 4;

/// What stays reachable. Empty means nothing does.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Directories whose files may be made, read, written, renamed and removed.
    pub(crate) directories: Vec<PathBuf>,
    /// TCP ports that may be connected to.
    pub(crate) connect_tcp: Vec<u16>,
    /// TCP sockets may be bound to addresses, with a port that the system chooses.
    pub(crate) bind_addresses: bool,
}

/// Restricts this thread for ever. Returns the ABI in force.
pub(crate) fn restrict(reach: &Reach) -> Result<i32, SandboxError> {
    let refused = |e: RulesetError| SandboxError::Landlock {
        reason: e.to_string(),
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V4))
        .map_err(refused)?
        .handle_access(AccessNet::from_all(ABI::V4))
        .map_err(refused)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .map_err(refused)?
        .scope(Scope::from_all(ABI::V6))
        .map_err(refused)?
        .create()
        .map_err(refused)?
        .set_compatibility(CompatLevel::HardRequirement);
    for path in &reach.directories {
        rules = rules
            .add_rule(PathBeneath::new(open(path)?, spool_access()))
            .map_err(refused)?;
    }
    for port in &reach.connect_tcp {
        rules = rules
            .add_rule(NetPort::new(*port, AccessNet::ConnectTcp))
            .map_err(refused)?;
    }
    if reach.bind_addresses {
        // Port 0 stands for the ports that the system chooses.
        rules = rules
            .add_rule(NetPort::new(0, AccessNet::BindTcp))
            .map_err(refused)?;
    }
    let status = rules.restrict_self().map_err(refused)?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Err(SandboxError::Landlock {
            reason: format!("{:?}", status.landlock),
        });
    };
    let abi = effective_abi as i32;
    if abi < MINIMUM_ABI || status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return Err(SandboxError::Landlock {
            reason: format!("ABI {abi}, {:?}", status.ruleset),
        });
    }
    Ok(abi)
}

/// What a spool needs of its directory: files and directories, no devices, sockets, links or programs.
fn spool_access() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::ReadDir
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

fn open(path: &Path) -> Result<PathFd, SandboxError> {
    PathFd::new(path).map_err(|e| SandboxError::Path {
        path: path.to_owned(),
        reason: e.to_string(),
    })
}
