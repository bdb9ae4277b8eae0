//! The log's destination: standard error or a file, written in whole lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::logging::LINE_BYTES;

/// How long one call waits for a pipe to become writable, in nanoseconds. Between two calls the
/// writer checks for other work.
const WAIT_NS: i64 = 100_000_000;

pub(super) struct Output {
    file: File,
    /// `None` for standard error, which cannot be reopened.
    path: Option<PathBuf>,
    /// Only a regular file can end in a partial line, if the disk is full.
    is_regular: bool,
    /// The file's length when writing the rest of a line failed.
    full_at: Option<u64>,
}

impl Output {
    /// Opens a file to append to.
    pub(super) fn open(path: &Path) -> io::Result<Output> {
        // Opening a named pipe without a reader then fails instead of blocking.
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Output::new(file, Some(path.to_owned())))
    }

    /// Standard error; if that is closed, lines are discarded.
    pub(super) fn stderr() -> io::Result<Output> {
        let owned = io::stderr().as_fd().try_clone_to_owned();
        let file = owned.map(File::from).or_else(|_| File::create("/dev/null"))?;
        Ok(Output::new(file, None))
    }

    fn new(file: File, path: Option<PathBuf>) -> Output {
        let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        Output { file, path, is_regular, full_at: None }
    }

    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or("standard error".to_owned(), |path| path.display().to_string())
    }

    /// Whether it can be reopened.
    pub(super) fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// Reopens the path after log rotation. `at` moves back to the start of its line, so that the
    /// new file gets the whole line.
    ///
    /// # Errors
    /// As `open(2)`; the old file then stays in use.
    pub(super) fn reopen(&mut self, lines: &[u8], at: &mut usize) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let new = Output::open(path)?;
        self.remove_partial_line(lines, at);
        *at = start_of_line(lines, *at);
        *self = new;
        Ok(())
    }

    /// Writes some of `lines` from `at` on, and advances `at`. Returns after a tenth of a second if
    /// nothing can be written.
    ///
    /// # Errors
    /// As `write(2)`.
    pub(super) fn write_some(&mut self, lines: &[u8], at: &mut usize) -> io::Result<()> {
        if self.is_regular {
            self.resume_line(lines, at);
        } else if !self.wait_for_room()? {
            return Ok(());
        }
        // A write of up to PIPE_BUF bytes to a pipe is atomic, and a pipe that polls as writable
        // has room for them (pipe(7)). So this neither blocks nor splits a line.
        let rest = &lines[*at..];
        let end = if self.is_regular { rest.len() } else { whole_lines(rest, LINE_BYTES) };
        match self.file.write(&rest[..end]) {
            Ok(written) => {
                *at += written;
                Ok(())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                _ => {
                    let is_partial = start_of_line(lines, *at) < *at;
                    self.full_at = self.length().filter(|_| is_partial && self.is_regular);
                    Err(error)
                }
            },
        }
    }

    /// Removes the partial line that a full disk caused, if it is still at the end of the file,
    /// since its rest will not follow. `at` moves back to the start of that line.
    pub(super) fn remove_partial_line(&mut self, lines: &[u8], at: &mut usize) {
        let start = start_of_line(lines, *at);
        if let Some(length) = self.full_at.take()
            && self.length() == Some(length)
            && self.file.set_len(length - (*at - start) as u64).is_ok()
            // Standard error may be a file that was not opened for appending.
            && self.file.seek(SeekFrom::End(0)).is_ok()
        {
            *at = start;
        }
    }

    /// After a full disk: continues with the rest of the line, or with all of it if the file was
    /// truncated.
    fn resume_line(&mut self, lines: &[u8], at: &mut usize) {
        if let Some(length) = self.full_at.take()
            && self.length().is_some_and(|now| now < length)
        {
            *at = start_of_line(lines, *at);
        }
    }

    fn length(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.len())
    }

    fn wait_for_room(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: WAIT_NS };
        match poll(&mut fds, Some(&timeout)).map_err(io::Error::from) {
            Ok(ready) => Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The length of as many whole lines as fit into `limit` bytes, or of the first one if it is
/// longer.
fn whole_lines(lines: &[u8], limit: usize) -> usize {
    let fitting = &lines[..lines.len().min(limit)];
    let end = memchr::memrchr(b'\n', fitting).or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines.len(), |end| end + 1)
}

/// The start of the line that contains position `at`.
fn start_of_line(lines: &[u8], at: usize) -> usize {
    memchr::memrchr(b'\n', &lines[..at]).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_never_split() {
        assert_eq!(whole_lines(b"ab\ncd\nef\n", 7), 6);
        assert_eq!(whole_lines(b"ab\ncd\n", 100), 6);
        assert_eq!(whole_lines(b"abcdef\ngh\n", 3), 7);
        assert_eq!(start_of_line(b"ab\ncd\n", 4), 3);
        assert_eq!(start_of_line(b"ab\ncd\n", 3), 3);
        assert_eq!(start_of_line(b"ab\ncd\n", 1), 0);
    }

    #[test]
    fn a_partial_line_after_a_full_disk_is_continued_repeated_or_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let lines = b"first\nsecond\n";
        let full = || {
            std::fs::write(&path, b"first\nsec").unwrap();
            let mut output = Output::open(&path).unwrap();
            output.full_at = Some(9);
            (output, 9)
        };
        let written = || std::fs::read(&path).unwrap();

        let (mut output, mut at) = full();
        output.write_some(lines, &mut at).unwrap();
        assert_eq!((written().as_slice(), at), (&lines[..], lines.len()));

        let (mut output, mut at) = full();
        std::fs::write(&path, b"").unwrap();
        output.write_some(lines, &mut at).unwrap();
        assert_eq!(written(), b"second\n");

        let (mut output, mut at) = full();
        let rotated = directory.path().join("log.1");
        std::fs::rename(&path, &rotated).unwrap();
        output.reopen(lines, &mut at).unwrap();
        output.write_some(lines, &mut at).unwrap();
        assert_eq!(std::fs::read(&rotated).unwrap(), b"first\n");
        assert_eq!(written(), b"second\n");

        let (mut output, mut at) = full();
        output.remove_partial_line(lines, &mut at);
        assert_eq!((written().as_slice(), at), (&b"first\n"[..], 6));
    }
}
