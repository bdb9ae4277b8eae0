//! Concurrent questions about one key become one request.
//!
//! The first to ask leads and asks S3; the others wait on the same core and are given the same
//! answer, failures included, so that an outage is not asked about once per waiter.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::s3::object_name::{ObjectId, OwnedObjectId};

/// The questions that are being asked on this core.
pub(crate) struct Flights<T> {
    running: RefCell<HashMap<OwnedObjectId, Rc<Flight<T>>, RandomState>>,
}

struct Flight<T> {
    state: RefCell<State<T>>,
}

enum State<T> {
    Flying(Vec<Waker>),
    Landed(Option<T>),
}

/// What to do about a question.
pub(crate) enum Turn<'a, T> {
    /// Nobody asks yet: ask, and [`land`](Lead::land) the answer.
    Lead(Lead<'a, T>),
    /// Somebody asked; this is the answer, `None` where the leader went away without one.
    Landed(Option<T>),
}

/// The right to ask, and the duty to say what came of it.
pub(crate) struct Lead<'a, T> {
    flights: &'a Flights<T>,
    id: Option<OwnedObjectId>,
    flight: Rc<Flight<T>>,
}

impl<T: Clone> Flights<T> {
    /// No questions.
    pub(crate) fn new() -> Flights<T> {
        Flights { running: RefCell::default() }
    }

    /// Joins the question about a key, waiting where somebody asks it already.
    pub(crate) async fn join(&self, id: ObjectId<'_>) -> Turn<'_, T> {
        let running = self.running.borrow().get(&id).cloned();
        let Some(flight) = running else {
            let state = RefCell::new(State::Flying(Vec::new()));
            let flight = Rc::new(Flight { state });
            let id = OwnedObjectId::from(id);
            self.running.borrow_mut().insert(id.clone(), Rc::clone(&flight));
            return Turn::Lead(Lead { flights: self, id: Some(id), flight });
        };
        Turn::Landed(
            poll_fn(|context| match &mut *flight.state.borrow_mut() {
                State::Landed(response) => Poll::Ready(response.clone()),
                State::Flying(waiting) => {
                    waiting.push(context.waker().clone());
                    Poll::Pending
                }
            })
            .await,
        )
    }
}

impl<T: Clone> Default for Flights<T> {
    fn default() -> Flights<T> {
        Flights::new()
    }
}

impl<T> Lead<'_, T> {
    /// Gives all who wait the answer.
    pub(crate) fn land(mut self, response: T) {
        self.end(Some(response));
    }

    fn end(&mut self, response: Option<T>) {
        let Some(id) = self.id.take() else { return };
        self.flights.running.borrow_mut().remove(&id);
        let flying = self.flight.state.replace(State::Landed(response));
        if let State::Flying(waiting) = flying {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::s3::bucket::BucketId;

    fn id(key: &str) -> ObjectId<'_> {
        ObjectId { bucket: BucketId::for_test(0), key, version_id: None }
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn lead<'a>(flights: &'a Flights<u32>, key: &str) -> Lead<'a, u32> {
        match poll(pin!(flights.join(id(key)))) {
            Poll::Ready(Turn::Lead(lead)) => lead,
            _ => panic!("somebody else leads"),
        }
    }

    #[test]
    fn the_others_wait_and_get_the_leaders_answer() {
        let flights = Flights::new();
        let leader = lead(&flights, "a");
        let mut second = pin!(flights.join(id("a")));
        assert!(poll(second.as_mut()).is_pending());
        drop(lead(&flights, "b"));
        leader.land(7);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Turn::Landed(Some(7)))));
        drop(lead(&flights, "a"));
    }

    #[test]
    fn a_leader_that_goes_away_wakes_those_who_wait() {
        let flights: Flights<u32> = Flights::new();
        let leader = lead(&flights, "a");
        let mut second = pin!(flights.join(id("a")));
        assert!(poll(second.as_mut()).is_pending());
        drop(leader);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Turn::Landed(None))));
    }
}
