//! Seccomp filters like those of container runtimes: some system calls fail, all others pass.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// "Operation not permitted", the same on every architecture that `io_uring` runs on.
pub(crate) const EPERM: u32 = 1;
/// "Cannot assign requested address".
pub(crate) const EADDRNOTAVAIL: u32 = 99;
/// "Function not implemented".
pub(crate) const ENOSYS: u32 = 38;

/// A filter that makes the system calls with these numbers fail with `errno`.
pub(crate) fn refuse(calls: impl IntoIterator<Item = i64>, errno: u32) -> BpfProgram {
    refuse_where(calls.into_iter().map(|call| (call, Vec::new())), errno)
}

/// The same, where the call's first argument is this one.
pub(crate) fn refuse_argument(call: i64, argument: u64, errno: u32) -> BpfProgram {
    let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, argument);
    let rule = is_it.and_then(|condition| SeccompRule::new(vec![condition]));
    refuse_where([(call, vec![rule.expect("a rule of one condition")])], errno)
}

fn refuse_where(
    rules: impl IntoIterator<Item = (i64, Vec<SeccompRule>)>,
    errno: u32,
) -> BpfProgram {
    let rules = rules.into_iter().collect();
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture)
        .and_then(BpfProgram::try_from)
        .expect("a filter of a few system calls")
}
