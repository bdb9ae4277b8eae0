//! The relay buffers of one core.

use std::cell::RefCell;
use std::rc::Rc;

use crate::limits::{HEADROOM_BYTES, POOLED_RELAY_BUFFERS, RELAY_BUFFER_BYTES};

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
        reused.unwrap_or_else(|| {
            let mut buffer = Vec::with_capacity(RELAY_BUFFER_BYTES);
            buffer.resize(HEADROOM_BYTES, 0);
            buffer
        })
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
