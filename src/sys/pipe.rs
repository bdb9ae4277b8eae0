//! Pipes for `splice(2)`, through which bytes pass from one socket to another without being copied.
//!
//! The size that a pipe was asked for means little; only the size that the kernel reports counts.
//! The pages of all pipes of an unprivileged user are bounded together
//! (`fs.pipe-user-pages-soft`), and beyond the bound new pipes get two pages and cannot grow.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use crate::sys::stream::Stream;

/// A pipe and the number of bytes it holds.
pub(crate) struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    capacity: usize,
    held: usize,
}

/// The outcome of one attempt to move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// So many were moved; 0 means end of file.
    Bytes(usize),
    /// The socket has no bytes, or no room for any.
    Blocked,
}

impl Pipe {
    /// A pipe of `size` bytes, or of the size that the kernel grants.
    ///
    /// # Errors
    /// As `pipe2(2)`.
    pub(crate) fn new(size: usize) -> io::Result<Pipe> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused (EPERM) beyond the user's bound; the pipe then keeps its size.
        let _ = fcntl_setpipe_size(&write_end, size);
        let capacity = fcntl_getpipe_size(&write_end)?;
        Ok(Pipe { read_end, write_end, capacity, held: 0 })
    }

    /// The size that the kernel reports, in bytes. The pipe can hold more if segments are large.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether another body may use it.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves up to `limit` bytes from a socket into the pipe, which must be empty: otherwise a
    /// blocked socket could not be told from a full pipe.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub(crate) fn fill(&mut self, source: &Stream, limit: usize) -> io::Result<Moved> {
        debug_assert!(self.is_empty(), "a pipe is filled only when it is empty");
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let limit = limit.min(self.capacity);
        let moved = moved(splice(source.borrow(), None, &self.write_end, None, limit, flags))?;
        if let Moved::Bytes(count) = moved {
            self.held = count;
        }
        Ok(moved)
    }

    /// Moves the pipe's bytes into a socket. `more` tells the kernel that others follow at once, so
    /// that it waits to fill the last segment.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub(crate) fn drain(&mut self, sink: &Stream, more: bool) -> io::Result<Moved> {
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
        // Interrupted by a signal; the caller's wait for the socket ends at once, and it retries.
        Err(Errno::INTR) => Ok(Moved::Blocked),
        Err(error) => Err(error.into()),
    }
}

/// Whether an error of [`Pipe::new`], [`Pipe::fill`] or [`Pipe::drain`] means that the kernel or a
/// seccomp filter does not allow splicing at all.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::NOSYS, Errno::PERM, Errno::INVAL, Errno::ACCESS];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
