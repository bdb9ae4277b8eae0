//! The relay buffers of one core.

use std::cell::RefCell;
use std::rc::Rc;

use crate::limits::{
    HEADROOM_BYTES, POOLED_RELAY_BUFFERS, RELAY_BUFFER_BYTES, SMALL_RELAY_BUFFER_BYTES,
};

/// Buffers that wait for their next body. Bounded; beyond the bound they go back to the
/// allocator, so that a burst does not hold its memory for ever.
#[derive(Default)]
pub struct Buffers {
    idle: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty pool.
    pub fn new() -> Rc<Buffers> {
        Rc::default()
    }

    /// A buffer of [`RELAY_BUFFER_BYTES`] capacity that holds [`HEADROOM_BYTES`] of no meaning.
    /// They are cleared once, not for every request.
    pub fn take(&self) -> Vec<u8> {
        let reused = self.idle.borrow_mut().pop();
        reused.unwrap_or_else(|| new(RELAY_BUFFER_BYTES))
    }

    /// The same of [`SMALL_RELAY_BUFFER_BYTES`], for when there are many bodies under way.
    pub fn take_small(&self) -> Vec<u8> {
        new(SMALL_RELAY_BUFFER_BYTES)
    }

    /// Takes a buffer back. One that has another capacity is not kept.
    pub fn put_back(&self, mut buffer: Vec<u8>) {
        let mut idle = self.idle.borrow_mut();
        if buffer.capacity() == RELAY_BUFFER_BYTES && idle.len() < POOLED_RELAY_BUFFERS {
            buffer.resize(HEADROOM_BYTES, 0);
            idle.push(buffer);
        }
    }
}

fn new(capacity: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(capacity);
    buffer.resize(HEADROOM_BYTES, 0);
    buffer
}
