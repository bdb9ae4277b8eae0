//! The deadlines of the sockets of one core.
//!
//! Arming a kernel timer for each receive and send would cost as much as the receive itself. A
//! core instead keeps the deadlines of all its sockets in one table and looks at it a few times a
//! second: a socket past its deadline is shut down, which ends the pending operation. Deadlines
//! are therefore kept to within one period of [`Deadlines::sweep`], never early.
//!
//! The same table ends waits for a *large* amount of bytes: a socket that is told to wake its
//! reader only for many bytes (`SO_RCVLOWAT`) is told otherwise when they do not come soon.

use std::cell::RefCell;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::sys::sockopt;

/// The deadlines of all sockets of one core.
#[derive(Default)]
pub struct Deadlines {
    slots: RefCell<Slots>,
}

/// How long a reader may be kept waiting for many bytes while there are some.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Slots {
    entries: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Slot {
    Free,
    Open { socket: RawFd, wait: Wait, patient_since: Option<Instant> },
}

/// What a socket is waiting for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing that has an end.
    None,
    /// Bytes, or room for bytes, until then.
    Until(Instant),
    /// The next request of an idle client, until then.
    IdleUntil(Instant),
    /// Its deadline has passed; it was shut down.
    Expired,
}

impl Deadlines {
    /// Shuts down every socket whose deadline is not after `now`, and wakes the readers that have
    /// been waiting for many bytes for too long.
    pub fn sweep(&self, now: Instant) {
        self.end_patience(now);
        self.shut_down_where(|wait| match wait {
            Wait::Until(deadline) | Wait::IdleUntil(deadline) => deadline <= now,
            Wait::None | Wait::Expired => false,
        });
    }

    /// Shuts down every socket that waits for an idle client.
    pub fn close_idle(&self) {
        self.shut_down_where(|wait| matches!(wait, Wait::IdleUntil(_)));
    }

    fn shut_down_where(&self, chosen: impl Fn(Wait) -> bool) {
        for slot in &mut self.slots.borrow_mut().entries {
            if let Slot::Open { socket, wait, .. } = slot
                && chosen(*wait)
            {
                // SAFETY: a slot is open exactly as long as the `Stream` that owns the socket
                // lives: `Stream::drop` frees it before the socket is closed. So the number
                // still names that socket.
                let socket = unsafe { BorrowedFd::borrow_raw(*socket) };
                // It fails where the peer has already gone, which ends the wait just as well.
                let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
                *wait = Wait::Expired;
            }
        }
    }

    fn end_patience(&self, now: Instant) {
        for slot in &mut self.slots.borrow_mut().entries {
            if let Slot::Open { socket, patient_since, .. } = slot
                && patient_since.is_some_and(|since| now.duration_since(since) >= PATIENCE)
            {
                // SAFETY: as in `shut_down_where`: the slot is open, so the number still names
                // the stream's socket.
                let socket = unsafe { BorrowedFd::borrow_raw(*socket) };
                sockopt::set_receive_low_water(socket, 1);
                *patient_since = None;
            }
        }
    }

    pub(super) fn is_patient(&self, index: usize) -> bool {
        let slot = self.slots.borrow().entries[index];
        matches!(slot, Slot::Open { patient_since: Some(_), .. })
    }

    pub(super) fn set_patient_since(&self, index: usize, since: Option<Instant>) {
        if let Slot::Open { patient_since, .. } = &mut self.slots.borrow_mut().entries[index] {
            *patient_since = since;
        }
    }

    pub(super) fn insert(&self, socket: RawFd) -> usize {
        let mut slots = self.slots.borrow_mut();
        let slot = Slot::Open { socket, wait: Wait::None, patient_since: None };
        match slots.free.pop() {
            Some(index) => {
                slots.entries[index] = slot;
                index
            }
            None => {
                slots.entries.push(slot);
                slots.entries.len() - 1
            }
        }
    }

    pub(super) fn remove(&self, index: usize) {
        let mut slots = self.slots.borrow_mut();
        slots.entries[index] = Slot::Free;
        slots.free.push(index);
    }

    pub(super) fn wait(&self, index: usize) -> Wait {
        match self.slots.borrow().entries[index] {
            Slot::Open { wait, .. } => wait,
            Slot::Free => Wait::None,
        }
    }

    pub(super) fn set_wait(&self, index: usize, new: Wait) {
        if let Slot::Open { wait, .. } = &mut self.slots.borrow_mut().entries[index]
            && *wait != Wait::Expired
        {
            *wait = new;
        }
    }

    /// Sockets that are open on this core.
    pub fn open_sockets(&self) -> usize {
        let slots = self.slots.borrow();
        slots.entries.len() - slots.free.len()
    }
}
