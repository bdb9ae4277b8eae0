//! Notifies a task that its peer has stopped taking bytes.
//!
//! A send waits for as long as its deadline allows, but the waiting task may hold a resource that
//! other requests need, such as a connection to S3. The table of deadlines notices the stall and
//! wakes the task once, so that it can give the resource up.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::sys::deadlines::{Deadlines, Wait};

/// Shortest wait for a peer that counts as a stall while other requests wait for a connection. Slow
/// readers make room more often.
const SHORTEST_STALL: Duration = Duration::from_millis(200);

/// The task to notify of a stall.
pub(super) enum Watcher {
    /// No task waits.
    None,
    /// A task.
    Waiting {
        /// Wakes it.
        waker: Waker,
        /// When the table first saw it wait.
        since: Option<Instant>,
    },
    /// It was woken and has not run yet.
    Notified,
}

/// Watches the peer of a stream.
pub(crate) struct Watch {
    deadlines: Rc<Deadlines>,
    slot: usize,
}

impl Watch {
    pub(super) fn new(deadlines: &Rc<Deadlines>, slot: usize) -> Watch {
        Watch { deadlines: Rc::clone(deadlines), slot }
    }

    /// Waits for the stream to take bytes; on a stall calls `stalled` once and keeps waiting.
    pub(crate) async fn during<T>(
        &self,
        wait: impl Future<Output = T>,
        stalled: Option<impl FnOnce()>,
    ) -> T {
        let (mut wait, mut stalled) = (pin!(wait), stalled);
        poll_fn(|context| {
            let polled = wait.as_mut().poll(context);
            if stalled.is_some() {
                let is_notified = match polled {
                    Poll::Ready(_) => self.end(),
                    Poll::Pending => self.is_notified(context.waker()),
                };
                if let Some(stalled) = stalled.take_if(|_| is_notified) {
                    stalled();
                }
            }
            polled
        })
        .await
    }

    /// Whether the table has noticed a stall; if not, registers this task to be woken.
    fn is_notified(&self, task: &Waker) -> bool {
        self.deadlines.with_slot(self.slot, |slot| match &mut slot.watcher {
            Watcher::Notified => {
                slot.watcher = Watcher::None;
                true
            }
            Watcher::Waiting { waker, .. } => {
                waker.clone_from(task);
                false
            }
            Watcher::None => {
                slot.watcher = Watcher::Waiting { waker: task.clone(), since: None };
                false
            }
        })
    }

    /// Ends the watch: the wait is over.
    fn end(&self) -> bool {
        self.deadlines.with_slot(self.slot, |slot| slot.watcher = Watcher::None);
        false
    }
}

impl Deadlines {
    /// Wakes the tasks whose peer has taken nothing for `after`, and as many as are `wanted` of
    /// those that wait for their peer at all, the longest waiting first.
    pub(crate) fn notify_stalled(&self, now: Instant, after: Duration, wanted: usize) {
        let mut told = Vec::new();
        let mut blocked = Vec::new();
        self.each_slot(|slot| {
            let Watcher::Waiting { since: first_seen, .. } = &mut slot.watcher else { return };
            let waits = now.saturating_duration_since(*first_seen.get_or_insert(now));
            let is_stalled = |wait| match wait {
                Wait::Sending { since, .. } => now.saturating_duration_since(since) >= after,
                _ => false,
            };
            if is_stalled(slot.wait) {
                slot.check_acknowledged(now);
                if is_stalled(slot.wait)
                    && let Watcher::Waiting { waker, .. } =
                        std::mem::replace(&mut slot.watcher, Watcher::Notified)
                {
                    told.push(waker);
                    return;
                }
            }
            if wanted > 0 && waits >= SHORTEST_STALL {
                blocked.push(waits);
            }
        });
        let more = wanted.saturating_sub(told.len()).min(blocked.len());
        if more > 0 {
            blocked.sort_unstable_by(|one, other| other.cmp(one));
            let (shortest, mut left) = (blocked[more - 1], more);
            self.each_slot(|slot| {
                if let Watcher::Waiting { since: Some(since), .. } = slot.watcher
                    && now.saturating_duration_since(since) >= shortest
                    && left > 0
                    && let Watcher::Waiting { waker, .. } =
                        std::mem::replace(&mut slot.watcher, Watcher::Notified)
                {
                    left -= 1;
                    told.push(waker);
                }
            });
        }
        // Not while the table is borrowed.
        told.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::task::Context;

    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    /// A stream whose send queue is full, and which has waited since `start`.
    fn full(deadlines: &Rc<Deadlines>, start: Instant) -> (Watch, [UnixStream; 2]) {
        let (mut sender, peer) = UnixStream::pair().expect("a pair of sockets");
        sender.set_nonblocking(true).expect("an open socket");
        while sender.write(&[0; 4096]).is_ok() {}
        let slot = deadlines.insert(sender.as_raw_fd());
        let wait = Wait::Sending { since: start, timeout: Duration::from_secs(600) };
        deadlines.set_wait(slot, wait);
        (Watch::new(deadlines, slot), [sender, peer])
    }

    /// Whether the waiting task is notified when it is polled now.
    fn is_notified_when_polled(watch: &Watch) -> bool {
        let is_notified = Cell::new(false);
        let told = Some(|| is_notified.set(true));
        let mut waiting = Box::pin(watch.during(std::future::pending::<()>(), told));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        is_notified.get()
    }

    #[test]
    fn a_stall_is_notified_once_and_a_reading_peer_never() {
        let (deadlines, start) = (Rc::new(Deadlines::default()), Instant::now());
        let (watch, [_sender, mut peer]) = full(&deadlines, start);
        assert!(!is_notified_when_polled(&watch));
        deadlines.sweep(start);
        deadlines.notify_stalled(start + AFTER / 2, AFTER, 0);
        assert!(!is_notified_when_polled(&watch), "it has not lasted");
        // It reads just before its time is over.
        peer.read_exact(&mut vec![0; 100_000]).expect("bytes that were sent");
        deadlines.notify_stalled(start + AFTER, AFTER, 0);
        assert!(!is_notified_when_polled(&watch), "it takes bytes");
        deadlines.notify_stalled(start + 2 * AFTER, AFTER, 0);
        assert!(is_notified_when_polled(&watch));
        assert!(!is_notified_when_polled(&watch), "only once");
    }

    #[test]
    fn as_many_as_wanted_are_notified_the_longest_waiting_first() {
        let (deadlines, start) = (Rc::new(Deadlines::default()), Instant::now());
        let all: Vec<_> = (0..3).map(|_| full(&deadlines, start)).collect();
        for (number, (watch, _)) in all.iter().enumerate() {
            assert!(!is_notified_when_polled(watch));
            deadlines.notify_stalled(start + SHORTEST_STALL * number as u32, AFTER, 0);
        }
        let told =
            || all.iter().map(|(watch, _)| is_notified_when_polled(watch)).collect::<Vec<_>>();
        deadlines.notify_stalled(start + SHORTEST_STALL * 2, AFTER, 1);
        assert_eq!(told(), [true, false, false]);
        deadlines.notify_stalled(start + SHORTEST_STALL * 4, AFTER, 2);
        assert_eq!(told(), [false, true, true]);
    }

    #[test]
    fn a_deadline_counts_from_the_last_byte_that_was_acknowledged() {
        let (deadlines, start) = (Rc::new(Deadlines::default()), Instant::now());
        let (watch, [_sender, mut peer]) = full(&deadlines, start);
        let time = Duration::from_secs(600);
        deadlines.sweep(start);
        peer.read_exact(&mut vec![0; 100_000]).expect("bytes that were sent");
        deadlines.sweep(start + time);
        assert!(deadlines.wait(watch.slot) != Wait::Expired);
        deadlines.sweep(start + 2 * time);
        assert!(deadlines.wait(watch.slot) == Wait::Expired);
    }
}
