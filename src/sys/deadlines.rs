//! The deadlines of the sockets of one worker.
//!
//! Arming a kernel timer for each receive and send would cost as much as the receive itself.
//! Instead, a worker keeps the deadlines of all its sockets in one table and sweeps it a few times
//! a second: a socket past its deadline is shut down, which ends the pending operation. So a wait
//! ends up to one period of [`Deadlines::sweep`] late, never early.
//!
//! The deadline of a send counts from the last byte that the peer's kernel acknowledged, not from
//! the last one that fit into the send queue here: a full queue makes room much later than a slow
//! reader reads. While a send waits, the sweep asks the kernel once a second.
//!
//! The sweep also ends waits for *many* bytes: a socket that wakes its reader only for many bytes
//! (`SO_RCVLOWAT`) is reset to one byte if they do not arrive soon. And it notifies those who
//! [watch](super::stalls) a peer that takes nothing.

use std::cell::RefCell;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::sys::sockopt;
use crate::sys::stalls::Watcher;

/// The deadlines of all sockets of one worker.
#[derive(Default)]
pub(crate) struct Deadlines {
    slots: RefCell<Slots>,
}

/// How long a reader waits for many bytes while a few are there.
pub(super) const LOW_WATER_TIMEOUT: Duration = Duration::from_millis(100);

/// How often a waiting send checks the bytes that the peer has acknowledged.
const POLL_PERIOD: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Slots {
    entries: Vec<Option<Slot>>,
    free: Vec<usize>,
}

pub(super) struct Slot {
    socket: RawFd,
    pub(super) wait: Wait,
    low_water_since: Option<Instant>,
    /// Bytes that the peer had not acknowledged at `checked_at`.
    unacknowledged: Option<libc::c_int>,
    checked_at: Option<Instant>,
    pub(super) watcher: Watcher,
}

/// The wait of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing, or without a deadline.
    None,
    /// Bytes, until this deadline.
    Until(Instant),
    /// The next request of an idle client.
    Idle {
        deadline: Instant,
        /// It may be closed from then on, to make room for others.
        closable_from: Instant,
    },
    /// Room to send, until the peer has taken nothing for `timeout`.
    Sending {
        /// When the peer was last seen to take something.
        since: Instant,
        timeout: Duration,
    },
    /// The deadline has passed and the socket was shut down.
    Expired,
}

impl Slot {
    fn new(socket: RawFd) -> Slot {
        Slot {
            socket,
            wait: Wait::None,
            low_water_since: None,
            unacknowledged: None,
            checked_at: None,
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
        // Fails if the peer has already gone, which ends the wait just as well.
        let _ = SockRef::from(&self.borrow()).shutdown(Shutdown::Both);
        self.wait = Wait::Expired;
    }

    /// Ends the wait for a request, unless one has arrived. Only the receiving side is shut down,
    /// so that a request that arrives at this moment, or that the reader has not seen yet, can
    /// still be responded to.
    fn end_idle_wait(&mut self) -> bool {
        if !matches!(self.wait, Wait::Idle { .. }) || sockopt::unread_bytes(self.borrow()) > 0 {
            return false;
        }
        let _ = SockRef::from(&self.borrow()).shutdown(Shutdown::Read);
        self.wait = Wait::None;
        true
    }

    /// Asks the kernel whether the peer has acknowledged bytes since the last look, which may have
    /// been during an earlier wait: any difference means that the peer takes bytes.
    pub(super) fn check_acknowledged(&mut self, now: Instant) {
        let unacknowledged = sockopt::unacknowledged_bytes(self.borrow());
        self.checked_at = Some(now);
        if std::mem::replace(&mut self.unacknowledged, unacknowledged) != unacknowledged
            && let Wait::Sending { since, .. } = &mut self.wait
        {
            *since = now;
        }
    }

    fn is_check_due(&self, now: Instant) -> bool {
        self.checked_at.is_none_or(|checked_at| now.duration_since(checked_at) >= POLL_PERIOD)
    }

    /// Ends the wait if it has lasted too long.
    fn sweep(&mut self, now: Instant) {
        let over = |since: Instant, timeout| now.saturating_duration_since(since) >= timeout;
        match self.wait {
            Wait::Until(deadline) | Wait::Idle { deadline, .. } if deadline <= now => {
                self.shut_down();
            }
            Wait::Sending { since, timeout } if over(since, timeout) || self.is_check_due(now) => {
                self.check_acknowledged(now);
                if matches!(self.wait, Wait::Sending { since, timeout } if over(since, timeout)) {
                    self.shut_down();
                }
            }
            _ => {}
        }
        if self.low_water_since.is_some_and(|since| over(since, LOW_WATER_TIMEOUT)) {
            sockopt::set_receive_low_water(self.borrow(), 1);
            self.low_water_since = None;
        }
    }
}

impl Deadlines {
    /// Shuts down every socket past its deadline, and wakes readers that have waited for many bytes
    /// too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.slots.borrow_mut().entries.iter_mut().flatten().for_each(|slot| slot.sweep(now));
    }

    /// Ends the waits of all idle connections on which no request has arrived.
    pub(crate) fn close_idle(&self) {
        self.each_slot(|slot| {
            slot.end_idle_wait();
        });
    }

    /// Ends the wait of the connection that has been idle longest and on which nothing has arrived;
    /// `false` if none may be closed. Looks at every socket, so it is for rare needs.
    pub(crate) fn close_longest_idle(&self, now: Instant) -> bool {
        let mut slots = self.slots.borrow_mut();
        let mut longest: Option<(Instant, &mut Slot)> = None;
        for slot in slots.entries.iter_mut().flatten() {
            // All have the same timeout, so the first to end began first.
            if let Wait::Idle { deadline, closable_from } = slot.wait
                && closable_from <= now
                && longest.as_ref().is_none_or(|(first, _)| deadline < *first)
                && sockopt::unread_bytes(slot.borrow()) == 0
            {
                longest = Some((deadline, slot));
            }
        }
        longest.is_some_and(|(_, slot)| slot.end_idle_wait())
    }

    /// Calls `change` with every slot.
    pub(super) fn each_slot(&self, change: impl FnMut(&mut Slot)) {
        self.slots.borrow_mut().entries.iter_mut().flatten().for_each(change);
    }

    /// Calls `change` with one slot.
    pub(super) fn with_slot<T>(&self, index: usize, change: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.slots.borrow_mut();
        change(slots.entries[index].as_mut().expect("a stream has its slot until it is dropped"))
    }

    pub(super) fn has_low_water(&self, index: usize) -> bool {
        self.with_slot(index, |slot| slot.low_water_since.is_some())
    }

    pub(super) fn set_low_water_since(&self, index: usize, since: Option<Instant>) {
        self.with_slot(index, |slot| slot.low_water_since = since);
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
}
