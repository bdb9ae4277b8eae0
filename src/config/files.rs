//! The files that settings name. They are looked at while the configuration is read, so that one
//! that cannot be used is a mistake with its line, like any other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// How files are looked at.
#[derive(Clone, Copy)]
pub(super) struct Files {
    /// Reads a file, up to one byte more than it may have.
    pub(super) read: fn(&Path, usize) -> io::Result<Vec<u8>>,
    /// Finds out whether a file can be appended to, or could be if it existed.
    pub(super) try_append: fn(&Path) -> io::Result<()>,
}

/// Those of this machine.
pub(super) const OF_THIS_MACHINE: Files = Files { read: read_bounded, try_append };

/// None at all, which keeps a configuration that is only text away from the disk.
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
        // A pipe or a device: to open one may mean to wait, or something to whoever has the other
        // end.
        Ok(known) if !known.is_file() && !known.is_dir() => Ok(()),
        Ok(_) => OpenOptions::new().append(true).open(path).map(drop),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            OpenOptions::new().append(true).create_new(true).open(path)?;
            // `--check` may run as another user than the server, who could then not write to it.
            fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_appended_to_is_left_as_it_was() {
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
