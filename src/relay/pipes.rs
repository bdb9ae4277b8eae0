//! The pipes of one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::metrics::Metrics;
use crate::relay::Settings;
use crate::sys::pipe::{Pipe, is_refusal};

/// Idle pipes, and the number of those in use.
pub(crate) struct Pipes {
    settings: Settings,
    idle: RefCell<Vec<Pipe>>,
    metrics: Arc<Metrics>,
    refused: Cell<bool>,
}

/// A pipe in use. When dropped, an empty pipe is kept; one that still holds bytes is closed, since
/// they would be sent to another client.
pub(crate) struct PipeLease {
    pipe: Option<Pipe>,
    pipes: Rc<Pipes>,
}

impl Pipes {
    /// No pipes.
    pub(crate) fn new(settings: Settings, metrics: Arc<Metrics>) -> Rc<Pipes> {
        let refused = Cell::new(!settings.splice);
        Rc::new(Pipes { settings, idle: RefCell::default(), metrics, refused })
    }

    /// Whether a body of `length` bytes is better spliced than copied.
    pub(crate) fn is_worth_splicing(&self, length: u64) -> bool {
        !self.refused.get() && length >= self.settings.splice_threshold
    }

    /// A pipe, or `None` if the worker has too many or the kernel gives none, which is counted.
    pub(crate) fn take(self: &Rc<Self>) -> Option<PipeLease> {
        let metrics = &self.metrics;
        if metrics.pipes_in_use.get() >= self.settings.max_pipes {
            metrics.splice_no_pipe.add(1);
            return None;
        }
        let pipe = match self.idle.borrow_mut().pop().map_or_else(|| self.open(), Ok) {
            Ok(pipe) => pipe,
            Err(error) => {
                metrics.splice_no_pipe.add(1);
                self.note_failure(&error);
                return None;
            }
        };
        metrics.pipes_in_use.increment();
        Some(PipeLease { pipe: Some(pipe), pipes: Rc::clone(self) })
    }

    /// A new pipe, if it is large enough to be worth its system calls.
    fn open(&self) -> io::Result<Pipe> {
        let pipe = Pipe::new(self.settings.pipe_size)?;
        if pipe.capacity() < SMALLEST_PIPE_BYTES.min(self.settings.pipe_size) {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the kernel gives small pipes only (fs.pipe-user-pages-soft)",
            ));
        }
        Ok(pipe)
    }

    /// Remembers that this process may not splice at all, so that it is not tried again.
    pub(crate) fn note_failure(&self, error: &io::Error) {
        if is_refusal(error) && !self.refused.replace(true) {
            log::warn!("the kernel refuses to splice ({error}): bodies are copied instead");
        }
    }
}

/// A pipe below this size moves so little at a time that copying costs less.
const SMALLEST_PIPE_BYTES: usize = 64 * 1024;

impl PipeLease {
    /// The pipe.
    pub(crate) fn pipe(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("a lease holds its pipe until it is dropped")
    }
}

impl Drop for PipeLease {
    fn drop(&mut self) {
        self.pipes.metrics.pipes_in_use.decrement();
        if let Some(pipe) = self.pipe.take().filter(Pipe::is_empty) {
            self.pipes.idle.borrow_mut().push(pipe);
        }
    }
}
