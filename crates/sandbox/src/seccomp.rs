//! The system call filters: compiled from the tables in [`crate::syscalls`], installed in three layers.
//!
//! The kernel runs all layers and takes the strictest answer: `clone3` answers ENOSYS (its flags lie in memory where
//! a filter cannot look, and libc then falls back to `clone`, whose flags can be checked), the tripwire kills, and the
//! allow-list refuses with EPERM what no group names. The allow-list goes on last, as it forbids installing more.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::{
    SandboxError,
    syscalls::{Arg, Call, Group, TRIPWIRE, Test},
};

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Installs the layers for this thread and all it will start. Returns how many system calls the allow-list names.
pub(crate) fn install(groups: &[&'static Group], pid: u32) -> Result<usize, SandboxError> {
    let mut allowed = rules("allow-list", groups, pid)?;
    let count = allowed.len();
    // Left to its own layer, whose ENOSYS would lose against a newer EPERM.
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    allowed.extend(clone3.clone());
    let tripwire = rules("tripwire", &[&TRIPWIRE], pid)?;
    layer(
        "clone3",
        clone3,
        SeccompAction::Allow,
        SeccompAction::Errno(errno(libc::ENOSYS)),
    )?;
    layer(
        "tripwire",
        tripwire,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )?;
    layer(
        "allow-list",
        allowed,
        SeccompAction::Errno(errno(libc::EPERM)),
        SeccompAction::Allow,
    )?;
    Ok(count)
}

/// Installs a further, narrower allow-list over the layers of [`install`]. Returns how many system calls it names.
pub(crate) fn narrow(groups: &[&'static Group], pid: u32) -> Result<usize, SandboxError> {
    let allowed = rules("worker", groups, pid)?;
    let count = allowed.len();
    layer(
        "worker",
        allowed,
        SeccompAction::Errno(errno(libc::EPERM)),
        SeccompAction::Allow,
    )?;
    Ok(count)
}

fn layer(
    name: &'static str,
    rules: Rules,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<(), SandboxError> {
    let failed = |reason: String| SandboxError::Seccomp { filter: name, reason };
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| failed(e.to_string()))?;
    let filter = SeccompFilter::new(rules, otherwise, on_match, arch).map_err(|e| failed(e.to_string()))?;
    let program = BpfProgram::try_from(filter).map_err(|e| failed(e.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|e| failed(e.to_string()))
}

/// Merges groups: a call without conditions in any group is free; otherwise its conditions are alternatives.
fn rules(name: &'static str, groups: &[&'static Group], pid: u32) -> Result<Rules, SandboxError> {
    let mut merged: BTreeMap<c_long, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for Call(number, args) in groups.iter().flat_map(|g| g.calls) {
        let entry = merged.entry(*number).or_insert_with(|| Some(Vec::new()));
        if args.is_empty() {
            *entry = None;
        } else if let Some(alternatives) = entry {
            let rule = args
                .iter()
                .map(|a| condition(*a, pid))
                .collect::<Result<Vec<_>, _>>()
                .and_then(SeccompRule::new);
            alternatives.push(rule.map_err(|e| SandboxError::Seccomp {
                filter: name,
                reason: e.to_string(),
            })?);
        }
    }
    Ok(merged
        .into_iter()
        .map(|(number, alternatives)| (number, alternatives.unwrap_or_default()))
        .collect())
}

fn condition(arg: Arg, pid: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (operator, value) = match arg.test {
        Test::Is(value) => (SeccompCmpOp::Eq, word(value)),
        Test::Bits(mask, value) => (SeccompCmpOp::MaskedEq(word(mask)), word(value)),
        Test::OwnPid => (SeccompCmpOp::Eq, u64::from(pid)),
    };
    SeccompCondition::new(arg.index, SeccompCmpArgLen::Dword, operator, value)
}

/// The 32 bits of a C int, as the kernel hands them to a filter.
fn word(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

fn errno(value: libc::c_int) -> u32 {
    value.cast_unsigned()
}
