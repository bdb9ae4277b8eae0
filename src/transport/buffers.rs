//! The buffers of one worker, which bodies are received into and sent from.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::limits::{
    HEADROOM_BYTES, LARGE_RELAY_BUFFER_BYTES, POOLED_LARGE_RELAY_BUFFERS, POOLED_RELAY_BUFFERS,
    RELAY_BUFFER_BYTES, ROOMY_RELAY_BUFFERS, SMALL_RELAY_BUFFER_BYTES,
};
use crate::metrics::Metrics;

/// Idle buffers. Their number is bounded; further ones go back to the allocator, so that a burst
/// does not keep its memory.
#[derive(Default)]
pub(crate) struct Buffers {
    idle: RefCell<Vec<Vec<u8>>>,
    idle_large: RefCell<Vec<Vec<u8>>>,
    metrics: Arc<Metrics>,
}

/// Held as long as a buffer that is not small is in use.
pub(crate) struct BufferPermit {
    buffers: Rc<Buffers>,
}

impl Buffers {
    /// An empty pool.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Rc<Buffers> {
        Rc::new(Buffers { metrics, ..Buffers::default() })
    }

    /// A buffer of [`RELAY_BUFFER_BYTES`] capacity that holds [`HEADROOM_BYTES`] arbitrary bytes,
    /// which are zeroed once and not for every request.
    pub(crate) fn take(&self) -> Vec<u8> {
        let reused = self.idle.borrow_mut().pop();
        reused.unwrap_or_else(|| new(RELAY_BUFFER_BYTES))
    }

    /// The same of [`SMALL_RELAY_BUFFER_BYTES`], for when many responses are in progress.
    pub(crate) fn new_small() -> Vec<u8> {
        new(SMALL_RELAY_BUFFER_BYTES)
    }

    /// An empty buffer of `capacity` bytes, or a small one if [`ROOMY_RELAY_BUFFERS`] larger ones
    /// are in use.
    pub(crate) fn take_empty(self: &Rc<Self>, capacity: usize) -> (Vec<u8>, Option<BufferPermit>) {
        let in_use = &self.metrics.buffers_in_use;
        if capacity <= SMALL_RELAY_BUFFER_BYTES || in_use.get() >= ROOMY_RELAY_BUFFERS {
            return (Vec::with_capacity(SMALL_RELAY_BUFFER_BYTES), None);
        }
        let buffer = match capacity {
            LARGE_RELAY_BUFFER_BYTES => self.idle_large.borrow_mut().pop(),
            _ => self.idle.borrow_mut().pop(),
        };
        let mut buffer = buffer.unwrap_or_else(|| Vec::with_capacity(capacity));
        buffer.clear();
        in_use.increment();
        (buffer, Some(BufferPermit { buffers: Rc::clone(self) }))
    }

    /// Takes a buffer back. One that has another capacity is not kept.
    pub(crate) fn put_back(&self, mut buffer: Vec<u8>) {
        let (idle, most) = match buffer.capacity() {
            RELAY_BUFFER_BYTES => (&self.idle, POOLED_RELAY_BUFFERS),
            LARGE_RELAY_BUFFER_BYTES => (&self.idle_large, POOLED_LARGE_RELAY_BUFFERS),
            _ => return,
        };
        let mut idle = idle.borrow_mut();
        if idle.len() < most {
            match buffer.capacity() {
                RELAY_BUFFER_BYTES => buffer.resize(HEADROOM_BYTES, 0),
                _ => buffer.clear(),
            }
            idle.push(buffer);
        }
    }
}

impl Drop for BufferPermit {
    fn drop(&mut self) {
        self.buffers.metrics.buffers_in_use.decrement();
    }
}

fn new(capacity: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(capacity);
    buffer.resize(HEADROOM_BYTES, 0);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_are_not_small_are_few() {
        let buffers = Buffers::new(Arc::default());
        let take = |capacity| {
            let (buffer, permit) = buffers.take_empty(capacity);
            assert!(buffer.is_empty());
            (buffer.capacity(), permit)
        };
        let sizes = [SMALL_RELAY_BUFFER_BYTES, RELAY_BUFFER_BYTES, LARGE_RELAY_BUFFER_BYTES];
        assert_eq!(sizes.map(|size| take(size).0), sizes);
        let permits: Vec<_> =
            (0..ROOMY_RELAY_BUFFERS).map(|number| take(sizes[1 + number % 2]).1).collect();
        assert_eq!(sizes.map(|size| take(size).0), [SMALL_RELAY_BUFFER_BYTES; 3]);
        drop(permits);
        assert_eq!(sizes.map(|size| take(size).0), sizes);
    }

    #[test]
    fn a_few_buffers_are_kept_and_are_empty_again() {
        let buffers = Buffers::new(Arc::default());
        let (mut buffer, _permit) = buffers.take_empty(LARGE_RELAY_BUFFER_BYTES);
        buffer.extend_from_slice(b"another's");
        let address = buffer.as_ptr();
        buffers.put_back(buffer);
        let (again, _permit) = buffers.take_empty(LARGE_RELAY_BUFFER_BYTES);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        for _ in 0..2 * POOLED_LARGE_RELAY_BUFFERS {
            buffers.put_back(Vec::with_capacity(LARGE_RELAY_BUFFER_BYTES));
        }
        assert_eq!(buffers.idle_large.borrow().len(), POOLED_LARGE_RELAY_BUFFERS);
    }
}
