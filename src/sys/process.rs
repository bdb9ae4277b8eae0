//! Limits of the whole process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one. Each client may need two descriptors, and
/// the usual soft limit of 1,024 is there for programs that use `select(2)`, which this one does
/// not. It fails only where a seccomp filter forbids it, and then the limit stays as it was.
pub fn raise_open_files_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Whether an error means that this process or this machine has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether an error means that this process or this machine lacks what a connection takes:
/// descriptors, ports or memory.
pub fn is_out_of_resources(error: &io::Error) -> bool {
    is_out_of_descriptors(error)
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL))
}

/// Removes those of the `chosen` environment variables that are empty. To a user they are unset, to
/// AWS's libraries `AWS_PROFILE=` is a profile without a name.
///
/// To be called before there is a second thread.
pub fn unset_empty_variables(chosen: impl Fn(&str) -> bool) {
    let is_empty = |value: &std::ffi::OsString| value.to_string_lossy().trim().is_empty();
    let empty: Vec<_> = std::env::vars_os().filter(|(_, value)| is_empty(value)).collect();
    for (name, _) in empty {
        if name.to_str().is_some_and(&chosen) {
            // SAFETY: the caller promises that no other thread exists which could read the
            // environment at this moment.
            unsafe { std::env::remove_var(name) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn only_emfile_and_enfile_mean_out_of_descriptors() {
        let is_one = |errno| is_out_of_descriptors(&io::Error::from_raw_os_error(errno));
        assert!(is_one(libc::EMFILE) && is_one(libc::ENFILE));
        assert!(!is_one(libc::EAGAIN) && !is_out_of_descriptors(&io::ErrorKind::Other.into()));
    }
}
