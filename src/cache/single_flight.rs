//! Coalesces concurrent requests of one worker for the same object into one request to S3.
//!
//! The first caller becomes the leader and sends the request; the others wait and get a clone of
//! its result. Failures are shared too, so that an outage of S3 costs one request and not one per
//! caller.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::s3::object_name::{ObjectId, OwnedObjectId};

/// The requests in progress on one worker. `T` is a request's result.
pub(crate) struct SingleFlight<T> {
    in_progress: RefCell<HashMap<OwnedObjectId, Rc<Flight<T>>, RandomState>>,
}

struct Flight<T> {
    state: RefCell<State<T>>,
}

enum State<T> {
    InProgress(Vec<Waker>),
    Done(Option<T>),
}

/// The caller's part in a request.
pub(crate) enum Role<'a, T> {
    /// No request is in progress: send one, and [`complete`](Leader::complete) it.
    Leader(Leader<'a, T>),
    /// The result of a request that was in progress; `None` if its leader was dropped.
    Follower(Option<T>),
}

/// Represents a request in progress. If it is dropped, the followers get `None`.
pub(crate) struct Leader<'a, T> {
    group: &'a SingleFlight<T>,
    id: Option<OwnedObjectId>,
    flight: Rc<Flight<T>>,
}

impl<T: Clone> SingleFlight<T> {
    pub(crate) fn new() -> SingleFlight<T> {
        SingleFlight { in_progress: RefCell::default() }
    }

    /// Waits for the result of the request in progress for an object, or makes the caller the
    /// leader of a new one.
    pub(crate) async fn join(&self, id: ObjectId<'_>) -> Role<'_, T> {
        let in_progress = self.in_progress.borrow().get(&id).cloned();
        let Some(flight) = in_progress else {
            let state = RefCell::new(State::InProgress(Vec::new()));
            let flight = Rc::new(Flight { state });
            let id = OwnedObjectId::from(id);
            self.in_progress.borrow_mut().insert(id.clone(), Rc::clone(&flight));
            return Role::Leader(Leader { group: self, id: Some(id), flight });
        };
        Role::Follower(
            poll_fn(|context| match &mut *flight.state.borrow_mut() {
                State::Done(result) => Poll::Ready(result.clone()),
                State::InProgress(wakers) => {
                    wakers.push(context.waker().clone());
                    Poll::Pending
                }
            })
            .await,
        )
    }
}

impl<T> Leader<'_, T> {
    /// Gives the followers the result.
    pub(crate) fn complete(mut self, result: T) {
        self.end(Some(result));
    }

    fn end(&mut self, result: Option<T>) {
        let Some(id) = self.id.take() else { return };
        self.group.in_progress.borrow_mut().remove(&id);
        let old = self.flight.state.replace(State::Done(result));
        if let State::InProgress(wakers) = old {
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> Drop for Leader<'_, T> {
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

    fn leader<'a>(group: &'a SingleFlight<u32>, key: &str) -> Leader<'a, u32> {
        match poll(pin!(group.join(id(key)))) {
            Poll::Ready(Role::Leader(leader)) => leader,
            _ => panic!("there is another leader"),
        }
    }

    #[test]
    fn followers_wait_for_the_leader_and_get_its_result() {
        let group = SingleFlight::new();
        let first = leader(&group, "a");
        let mut second = pin!(group.join(id("a")));
        assert!(poll(second.as_mut()).is_pending());
        drop(leader(&group, "b"));
        first.complete(7);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Role::Follower(Some(7)))));
        drop(leader(&group, "a"));
    }

    #[test]
    fn followers_of_a_dropped_leader_are_woken_without_a_result() {
        let group: SingleFlight<u32> = SingleFlight::new();
        let first = leader(&group, "a");
        let mut second = pin!(group.join(id("a")));
        assert!(poll(second.as_mut()).is_pending());
        drop(first);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Role::Follower(None))));
    }
}
