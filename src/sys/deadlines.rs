//! The deadlines of the sockets of one core.
//!
//! Arming a kernel timer for each receive and send would cost as much as the receive itself. A
//! core instead keeps the deadlines of all its sockets in one table and looks at it a few times a
//! second: a socket past its deadline is shut down, which ends the pending operation. Deadlines
//! are therefore kept to within one period of [`Deadlines::sweep`], never early.
//!
//! A peer that is sent something has its deadline counted from the last byte that its kernel
//! acknowledged, and not from the last one that there was room for on this side: a full send queue
//! makes room much later than a slow reader reads. While a send waits, the table asks the kernel once
//! in a while.
//!
//! The same table ends waits for a *large* amount of bytes: a socket that is told to wake its
//! reader only for many bytes (`SO_RCVLOWAT`) is told otherwise when they do not come soon. And it
//! tells those who [watch](super::stalls) a peer when it takes nothing.

use std::cell::RefCell;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::sys::sockopt;
use crate::sys::stalls::Watcher;

/// The deadlines of all sockets of one core.
#[derive(Default)]
pub struct Deadlines {
    slots: RefCell<Slots>,
}

/// How long a reader may be kept waiting for many bytes while there are some.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Time between two questions to the kernel of what a peer has acknowledged.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Slots {
    entries: Vec<Option<Slot>>,
    free: Vec<usize>,
}

pub(super) struct Slot {
    socket: RawFd,
    pub(super) wait: Wait,
    patient_since: Option<Instant>,
    /// What the peer had not acknowledged when the kernel was asked last, and when that was.
    unacknowledged: Option<libc::c_int>,
    looked_at: Option<Instant>,
    pub(super) watcher: Watcher,
}

/// What a socket is waiting for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing that has an end.
    None,
    /// Bytes, until then.
    Until(Instant),
    /// The next request of an idle client.
    Idle {
        /// Until then.
        deadline: Instant,
        /// From then on it may be given up for the sake of others.
        yields_from: Instant,
    },
    /// Room to send, until the peer has taken nothing for so long.
    Sending {
        /// When it was last seen to take something.
        since: Instant,
        timeout: Duration,
    },
    /// Its deadline has passed; it was shut down.
    Expired,
}

impl Slot {
    fn new(socket: RawFd) -> Slot {
        Slot {
            socket,
            wait: Wait::None,
            patient_since: None,
            unacknowledged: None,
            looked_at: None,
            watcher: Watcher::None,
        }
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: there is a slot exactly as long as the `Stream` that owns the socket lives:
        // `Stream::drop` frees it before the socket is closed. So the number still names that
        // socket.
        unsafe { BorrowedFd::borrow_raw(self.socket) }
    }

    fn shut_down(&mut self) {
        // It fails where the peer has already gone, which ends the wait just as well.
        let _ = SockRef::from(&self.borrow()).shutdown(Shutdown::Both);
        self.wait = Wait::Expired;
    }

    /// Ends the wait for a request, unless one has arrived. Only the receiving side is shut down: what
    /// arrives at this very moment, or was received and is not yet known to the reader, can be
    /// answered all the same.
    fn end_idle_wait(&mut self) -> bool {
        if !matches!(self.wait, Wait::Idle { .. }) || sockopt::unread_bytes(self.borrow()) > 0 {
            return false;
        }
        let _ = SockRef::from(&self.borrow()).shutdown(Shutdown::Read);
        self.wait = Wait::None;
        true
    }

    /// Asks the kernel whether the peer has acknowledged bytes since the last time. What an earlier
    /// wait saw is as good: that it differs means that the peer takes bytes.
    pub(super) fn look(&mut self, now: Instant) {
        let unacknowledged = sockopt::unacknowledged_bytes(self.borrow());
        self.looked_at = Some(now);
        if std::mem::replace(&mut self.unacknowledged, unacknowledged) != unacknowledged
            && let Wait::Sending { since, .. } = &mut self.wait
        {
            *since = now;
        }
    }

    fn is_look_due(&self, now: Instant) -> bool {
        self.looked_at.is_none_or(|looked_at| now.duration_since(looked_at) >= LOOK_PERIOD)
    }

    /// Ends the wait if it has lasted for too long.
    fn sweep(&mut self, now: Instant) {
        let over = |since: Instant, timeout| now.saturating_duration_since(since) >= timeout;
        match self.wait {
            Wait::Until(deadline) | Wait::Idle { deadline, .. } if deadline <= now => {
                self.shut_down();
            }
            Wait::Sending { since, timeout } if over(since, timeout) || self.is_look_due(now) => {
                self.look(now);
                if matches!(self.wait, Wait::Sending { since, timeout } if over(since, timeout)) {
                    self.shut_down();
                }
            }
            _ => {}
        }
        if self.patient_since.is_some_and(|since| over(since, PATIENCE)) {
            sockopt::set_receive_low_water(self.borrow(), 1);
            self.patient_since = None;
        }
    }
}

impl Deadlines {
    /// Shuts down every socket whose deadline is not after `now`, and wakes the readers that have
    /// been waiting for many bytes for too long.
    pub fn sweep(&self, now: Instant) {
        self.slots.borrow_mut().entries.iter_mut().flatten().for_each(|slot| slot.sweep(now));
    }

    /// Ends the waits for idle clients, of whom no request has arrived.
    pub fn close_idle(&self) {
        self.each_slot(|slot| {
            slot.end_idle_wait();
        });
    }

    /// Ends the wait for the client that has been idle for longest and of whom nothing has arrived;
    /// `false` where there is none that may be given up. Looks at every socket: for rare needs.
    pub fn give_up_idle(&self, now: Instant) -> bool {
        let mut slots = self.slots.borrow_mut();
        let mut longest: Option<(Instant, &mut Slot)> = None;
        for slot in slots.entries.iter_mut().flatten() {
            // All wait for the same time, so that the first to end began first.
            if let Wait::Idle { deadline, yields_from } = slot.wait
                && yields_from <= now
                && longest.as_ref().is_none_or(|(first, _)| deadline < *first)
                && sockopt::unread_bytes(slot.borrow()) == 0
            {
                longest = Some((deadline, slot));
            }
        }
        longest.is_some_and(|(_, slot)| slot.end_idle_wait())
    }

    /// Lets `change` see every slot.
    pub(super) fn each_slot(&self, change: impl FnMut(&mut Slot)) {
        self.slots.borrow_mut().entries.iter_mut().flatten().for_each(change);
    }

    /// Lets `change` see one slot.
    pub(super) fn with_slot<T>(&self, index: usize, change: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.slots.borrow_mut();
        change(slots.entries[index].as_mut().expect("a stream has its slot until it is dropped"))
    }

    pub(super) fn is_patient(&self, index: usize) -> bool {
        self.with_slot(index, |slot| slot.patient_since.is_some())
    }

    pub(super) fn set_patient_since(&self, index: usize, since: Option<Instant>) {
        self.with_slot(index, |slot| slot.patient_since = since);
    }

    pub(super) fn insert(&self, socket: RawFd) -> usize {
        let mut slots = self.slots.borrow_mut();
        let slot = Some(Slot::new(socket));
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
        slots.entries[index] = None;
        slots.free.push(index);
    }

    pub(super) fn wait(&self, index: usize) -> Wait {
        self.with_slot(index, |slot| slot.wait)
    }

    pub(super) fn set_wait(&self, index: usize, new: Wait) {
        self.with_slot(index, |slot| {
            if slot.wait != Wait::Expired {
                slot.wait = new;
            }
        });
    }

    /// Sockets that are open on this core.
    pub fn open_sockets(&self) -> usize {
        let slots = self.slots.borrow();
        slots.entries.len() - slots.free.len()
    }
}
