//! The right to have an upstream connection in use: so many at once, and a bounded queue behind.
//!
//! Who asks while others wait goes to the end of the queue, so that nobody waits for ever.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// The rights of one core.
pub struct Queue {
    max_in_use: usize,
    max_waiting: usize,
    in_use: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Default)]
struct Waiter {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The right to use one connection, until it is dropped.
pub struct Permit {
    queue: Rc<Queue>,
}

/// The core has no right to give and too many wait, or none came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Queue {
    /// A queue for `max_in_use` rights, in which at most `max_waiting` wait.
    pub fn new(max_in_use: usize, max_waiting: usize) -> Rc<Queue> {
        let (in_use, waiting) = (Cell::new(0), RefCell::default());
        Rc::new(Queue { max_in_use, max_waiting, in_use, waiting })
    }

    /// Rights that are given at the moment.
    pub fn in_use(&self) -> usize {
        self.in_use.get()
    }

    /// Those who wait for one.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Waits for a right, for `timeout` at most.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn acquire(self: &Rc<Self>, timeout: Duration) -> Result<Permit, Exhausted> {
        let waiting = self.waiting.borrow().len();
        if self.in_use.get() < self.max_in_use && waiting == 0 {
            self.in_use.update(|count| count + 1);
            return Ok(Permit { queue: Rc::clone(self) });
        }
        if waiting >= self.max_waiting {
            return Err(Exhausted);
        }
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        let place = Place { queue: self, waiter };
        // In a box: the timer would be part of every request's state.
        let granted = Box::pin(monoio::time::timeout(timeout, place.granted())).await;
        granted.map_err(|_| Exhausted)?;
        Ok(place.take())
    }

    /// Gives a right that came back to the first who waits.
    fn release(&self) {
        match self.waiting.borrow_mut().pop_front() {
            Some(waiter) => {
                waiter.granted.set(true);
                if let Some(waker) = waiter.waker.take() {
                    waker.wake();
                }
            }
            None => self.in_use.update(|count| count - 1),
        }
    }
}

/// A place in the queue. Dropped, it is left; a right that was granted meanwhile goes on.
struct Place<'q> {
    queue: &'q Rc<Queue>,
    waiter: Rc<Waiter>,
}

impl Place<'_> {
    async fn granted(&self) {
        poll_fn(|context| {
            if self.waiter.granted.get() {
                return Poll::Ready(());
            }
            self.waiter.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn take(self) -> Permit {
        self.waiter.granted.set(false);
        Permit { queue: Rc::clone(self.queue) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.borrow_mut();
        waiting.retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        drop(waiting);
        if self.waiter.granted.get() {
            self.queue.release();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.release();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::Context;

    use super::*;

    /// Polls once, without an event loop: a queue that must wait needs its timer, so these tests
    /// wait at the place itself.
    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn at_once(queue: &Rc<Queue>) -> Result<Permit, Exhausted> {
        match poll(pin!(queue.acquire(Duration::ZERO))) {
            Poll::Ready(response) => response,
            Poll::Pending => panic!("has to wait"),
        }
    }

    fn wait(queue: &Rc<Queue>) -> Place<'_> {
        let waiter = Rc::new(Waiter::default());
        queue.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        Place { queue, waiter }
    }

    #[test]
    fn rights_are_bounded_and_come_back() {
        let queue = Queue::new(2, 0);
        let (first, second) = (at_once(&queue).unwrap(), at_once(&queue).unwrap());
        assert_eq!((at_once(&queue).err(), queue.in_use()), (Some(Exhausted), 2));
        drop(first);
        drop(at_once(&queue).unwrap());
        drop(second);
        assert_eq!(queue.in_use(), 0);
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_one_who_left_passes_it_on() {
        let queue = Queue::new(1, 3);
        let right = at_once(&queue).unwrap();
        let (first, second, third) = (wait(&queue), wait(&queue), wait(&queue));
        assert!(at_once(&queue).is_err(), "the queue is full");
        drop(first);
        drop(right);
        assert!(poll(pin!(second.granted())).is_ready());
        assert!(poll(pin!(third.granted())).is_pending());
        drop(second);
        assert!(poll(pin!(third.granted())).is_ready());
        let right = third.take();
        assert_eq!(queue.in_use(), 1);
        drop(right);
        assert_eq!(queue.in_use(), 0);
    }
}
