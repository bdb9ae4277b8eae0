//! Limits and environment of the whole process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: each client may need two descriptors. The
/// usual soft limit of 1,024 exists for programs that use `select(2)`, which this one does not.
/// Fails only if a seccomp filter forbids it; the limit then stays as it was.
pub(crate) fn raise_open_files_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Whether an error means that this process or machine has no file descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether an error means that this process or machine lacks descriptors, ports or memory.
pub(crate) fn is_out_of_resources(error: &io::Error) -> bool {
    is_out_of_descriptors(error)
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL))
}

/// Removes those of the `chosen` environment variables that are empty. Users mean "unset" by
/// `AWS_PROFILE=`, but AWS's libraries take it for a profile without a name.
///
/// Call it while the process has one thread.
pub(crate) fn unset_empty_variables(chosen: impl Fn(&str) -> bool) {
    let is_empty = |value: &std::ffi::OsString| value.to_string_lossy().trim().is_empty();
    let empty: Vec<_> = std::env::vars_os().filter(|(_, value)| is_empty(value)).collect();
    for (name, _) in empty {
        if name.to_str().is_some_and(&chosen) {
            // SAFETY: the caller promises that there is no other thread, which could read the
            // environment at this moment.
            unsafe { std::env::remove_var(name) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_local_resources_is_told_from_errors_of_the_peer() {
        for (errno, descriptors, resources) in [
            (libc::EMFILE, true, true),
            (libc::ENFILE, true, true),
            (libc::ENOBUFS, false, true),
            (libc::ENOMEM, false, true),
            (libc::EADDRNOTAVAIL, false, true),
            (libc::EAGAIN, false, false),
            (libc::ECONNREFUSED, false, false),
            (libc::ETIMEDOUT, false, false),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(is_out_of_descriptors(&error), descriptors, "{error}");
            assert_eq!(is_out_of_resources(&error), resources, "{error}");
        }
        assert!(!is_out_of_descriptors(&io::ErrorKind::Other.into()));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // One less is enough to see the change, and does not disturb the tests beside this one.
        let lowered = maximum.map_or(1 << 20, |maximum| maximum - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lowered), maximum }).expect("lowering");
        raise_open_files_limit();
        let Rlimit { current, .. } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
