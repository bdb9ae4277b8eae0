//! Pipes that bytes pass through on their way from one socket to another without being copied.
//!
//! A pipe is asked for a size and believed only by what the kernel then says it has: the pages of
//! all pipes of an unprivileged user are bounded together (`fs.pipe-user-pages-soft`), and beyond
//! the bound new pipes get two pages and may not grow.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use crate::sys::stream::Stream;

/// A pipe and how many bytes it holds.
pub struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    capacity: usize,
    held: usize,
}

/// What one attempt to move bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This many bytes; 0 is the end of the source.
    Bytes(usize),
    /// The socket has nothing to give, or no room to take.
    Blocked,
}

impl Pipe {
    /// A pipe of `size` bytes, or of what the kernel gives instead.
    ///
    /// # Errors
    /// As `pipe2(2)`.
    pub fn new(size: usize) -> io::Result<Pipe> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused (EPERM) beyond the user's bound; the size it has is then asked for.
        let _ = fcntl_setpipe_size(&write_end, size);
        let capacity = fcntl_getpipe_size(&write_end)?;
        Ok(Pipe { read_end, write_end, capacity, held: 0 })
    }

    /// What the kernel says fits, in bytes. More can be held where segments are large.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether it holds nothing, so that another body may use it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves up to `limit` bytes from a socket into the empty pipe. In a pipe that holds bytes,
    /// "blocked" could not be told from "full".
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn fill(&mut self, source: &Stream, limit: usize) -> io::Result<Moved> {
        debug_assert!(self.is_empty(), "a pipe is filled only when it is empty");
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let limit = limit.min(self.capacity);
        let moved = moved(splice(source.borrow(), None, &self.write_end, None, limit, flags))?;
        if let Moved::Bytes(count) = moved {
            self.held = count;
        }
        Ok(moved)
    }

    /// Moves what the pipe holds into a socket. `more` says that more will follow at once, so
    /// that the kernel need not send a segment that is not full.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn drain(&mut self, sink: &Stream, more: bool) -> io::Result<Moved> {
        let mut flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        flags.set(SpliceFlags::MORE, more);
        let moved = moved(splice(&self.read_end, None, sink.borrow(), None, self.held, flags))?;
        if let Moved::Bytes(count) = moved {
            self.held -= count.min(self.held);
        }
        Ok(moved)
    }
}

fn moved(result: Result<usize, Errno>) -> io::Result<Moved> {
    match result {
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(Errno::AGAIN) => Ok(Moved::Blocked),
        // A signal came first; the caller tries again after a wait that ends at once.
        Err(Errno::INTR) => Ok(Moved::Blocked),
        Err(error) => Err(error.into()),
    }
}

/// Whether an error of [`Pipe::new`], [`Pipe::fill`] or [`Pipe::drain`] means that this kernel, or
/// a seccomp filter, does not let this process splice at all.
pub fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::NOSYS, Errno::PERM, Errno::INVAL, Errno::ACCESS];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
