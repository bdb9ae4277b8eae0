//! Filters like those of container runtimes: some system calls fail, all others pass.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule};

/// "Operation not permitted", the same on every architecture that `io_uring` runs on.
pub(crate) const EPERM: u32 = 1;
/// "Function not implemented".
pub(crate) const ENOSYS: u32 = 38;

/// A filter that has the system calls of these numbers fail with `errno`.
pub(crate) fn refuse(calls: impl IntoIterator<Item = i64>, errno: u32) -> BpfProgram {
    let rules = calls.into_iter().map(|call| (call, Vec::<SeccompRule>::new())).collect();
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture)
        .and_then(BpfProgram::try_from)
        .expect("a filter of a few system calls")
}
