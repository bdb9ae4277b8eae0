//! Access to the files that settings name. They are checked while the configuration is read, so
//! that an unusable file is a mistake with its line, like any other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// File access, replaced in tests.
#[derive(Clone, Copy)]
pub(super) struct Files {
    /// Reads at most one byte more than the given size, so that the caller detects a larger file.
    pub(super) read: fn(&Path, usize) -> io::Result<Vec<u8>>,
    /// Checks that a file can be appended to, or created.
    pub(super) try_append: fn(&Path) -> io::Result<()>,
}

pub(super) const OF_THIS_MACHINE: Files = Files { read: read_bounded, try_append };

/// Denies all access, for a configuration that is text only.
pub(super) const NONE: Files = Files {
    read: |_, _| Err(ErrorKind::Unsupported.into()),
    try_append: |_| Err(ErrorKind::Unsupported.into()),
};

pub(super) fn read_bounded(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn try_append(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        // Opening a pipe or a device may block, or may have side effects.
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => Ok(()),
        Ok(_) => OpenOptions::new().append(true).open(path).map(drop),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            OpenOptions::new().append(true).create_new(true).open(path)?;
            // `--check` may run as another user, whose file the server could not write to.
            fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_for_appending_leaves_files_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        try_append(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "old").unwrap();
        try_append(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(try_append(directory.path()).is_err());
        assert!(try_append(&directory.path().join("no/log")).is_err());
        try_append(Path::new("/dev/null")).unwrap();
    }
}
