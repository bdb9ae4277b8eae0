//! The current credentials of a login, shared by all workers.
//!
//! One task on the background thread writes and every worker reads: the current credentials are
//! behind an atomic pointer. Each set of them has a generation, so that a signing key derived from
//! one set is not used with the next, without comparing secrets.
//!
//! A request that finds no valid credentials, or whose credentials S3 rejects, asks for newer ones
//! and may wait a moment for them. However many ask, they share one load.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use monoio::time::sleep;
use tokio::sync::Notify;

use crate::limits;
use crate::s3::clock::S3Clock;
use crate::s3::credentials::Credentials;
use crate::s3::credentials::current::{Current, NO_GENERATION};
use crate::s3::credentials::login::Login;
use crate::upstream::proxy::Proxies;

/// How long a request waits for newer credentials. STS and single sign-on take a second or two.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time until a load may begin that a request still waits for.
const MAX_START_DELAY: Duration = Duration::from_secs(2);

/// Least time from a load to one whose need is doubtful, so that requests for objects that S3 always
/// refuses do not delay a needed refresh.
const DOUBTFUL_PAUSE: Duration = Duration::from_secs(10);

/// Time between two looks for newer credentials. Other threads do not wake workers.
const POLL_PERIOD: Duration = Duration::from_millis(10);

/// The credentials of one login, refreshed for as long as the process runs.
pub struct CredentialsHandle {
    login: Login,
    /// The region whose STS is asked, if configured.
    sts_region: Option<String>,
    /// Those in front of the services that issue credentials.
    proxies: Arc<Proxies>,
    current: ArcSwapOption<Current>,
    /// Why the last load failed; `None` if it did not.
    failure: ArcSwapOption<String>,
    /// S3's time, as a response to a request with these credentials told it.
    clock: S3Clock,
    /// The last generation whose signature S3 accepted.
    accepted: AtomicU64,
    loads: Mutex<Loads>,
    wanted: Notify,
    waiting: AtomicUsize,
}

/// How certain it is that newer credentials are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There are none, or S3 rejects them.
    Certain,
    /// S3 refused a request, and the object rather than the credentials may be the reason.
    Doubtful,
}

/// The loads of a handle, counted from 1.
#[derive(Debug)]
struct Loads {
    begun: u64,
    ended: u64,
    /// Another load was asked for since the last one began.
    is_wanted: bool,
    /// And at least once with certainty.
    is_needed: bool,
    ended_at: Option<Instant>,
    /// When the load in progress began or, between two loads, when the next one may begin.
    at: Instant,
}

impl Loads {
    fn new(now: Instant) -> Loads {
        let (begun, ended, is_wanted, is_needed) = (0, 0, false, false);
        Loads { begun, ended, is_wanted, is_needed, ended_at: None, at: now }
    }

    fn is_in_progress(&self) -> bool {
        self.begun > self.ended
    }

    /// Asks for a load: returns its number, and whether to wait for it.
    fn ask(&mut self, need: Need, now: Instant) -> (u64, bool) {
        if self.is_in_progress() {
            return (self.begun, now < self.at + WAIT_TIMEOUT);
        }
        let is_needed = need == Need::Certain;
        if !is_needed && self.ended_at.is_some_and(|at| now < at + DOUBTFUL_PAUSE) {
            return (self.begun + 1, false);
        }
        self.is_wanted = true;
        self.is_needed |= is_needed;
        (self.begun + 1, now + MAX_START_DELAY >= self.at)
    }
}

impl CredentialsHandle {
    /// A handle that has the login's fixed keys, if any, and otherwise no credentials yet.
    pub fn new(login: Login, sts_region: Option<String>) -> CredentialsHandle {
        let written = login.keys().map(|keys| Arc::new(Current::new(keys.clone())));
        CredentialsHandle {
            login,
            sts_region,
            proxies: Arc::default(),
            current: ArcSwapOption::new(written),
            failure: ArcSwapOption::empty(),
            clock: S3Clock::default(),
            accepted: AtomicU64::new(NO_GENERATION),
            loads: Mutex::new(Loads::new(Instant::now())),
            wanted: Notify::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Uses proxies for requests to the services that issue credentials.
    pub fn with_proxies(mut self, proxies: Arc<Proxies>) -> CredentialsHandle {
        self.proxies = proxies;
        self
    }

    /// A handle of credentials that never change.
    pub fn fixed(credentials: Credentials) -> CredentialsHandle {
        CredentialsHandle::new(Login::Keys(credentials), None)
    }

    /// Where the credentials come from.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Whether a refresher has to load and refresh them.
    pub fn needs_refreshing(&self) -> bool {
        self.login.keys().is_none()
    }

    /// The current credentials. They may have expired: see [`Current::is_usable`].
    pub fn load(&self) -> Guard<Option<Arc<Current>>> {
        self.current.load()
    }

    /// Why the last load failed, for an operator.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// The current generation.
    pub fn generation(&self) -> u64 {
        self.load().as_ref().map_or(NO_GENERATION, |current| current.generation)
    }

    /// Notes that S3 accepted a signature of a generation; almost free if it did so before.
    pub fn note_accepted(&self, generation: u64) {
        if self.accepted.load(Ordering::Relaxed) < generation {
            self.accepted.fetch_max(generation, Ordering::Relaxed);
        }
    }

    /// Whether S3 accepted a signature of this generation or a later one.
    pub(super) fn has_accepted(&self, generation: u64) -> bool {
        generation <= self.accepted.load(Ordering::Relaxed)
    }

    /// S3's time, by which credentials expire.
    pub fn clock(&self) -> &S3Clock {
        &self.clock
    }

    /// Asks for credentials newer than `generation`, which were rejected or have expired, and waits
    /// a moment for them; `false` if there are none. The refresher decides how often it really loads:
    /// a load that will not begin soon is not waited for. Runs on workers only.
    pub async fn newer_than(&self, generation: u64, need: Need) -> bool {
        if !self.needs_refreshing() || self.generation() > generation {
            return self.generation() > generation;
        }
        let (load, is_worth_waiting) = self.loads().ask(need, Instant::now());
        self.wanted.notify_one();
        let place = Waiting::new(&self.waiting);
        if !is_worth_waiting || place.is_none() {
            return false;
        }
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while self.generation() <= generation {
            if self.loads().ended >= load || Instant::now() >= deadline {
                // Credentials are published before their load ends.
                return self.generation() > generation;
            }
            sleep(POLL_PERIOD).await;
        }
        true
    }

    pub(super) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    pub(super) fn sts_region(&self) -> Option<&str> {
        self.sts_region.as_deref()
    }

    /// Waits until a load is asked for.
    pub(super) async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// When a load may begin, if one was asked for.
    pub(super) fn wanted_at(&self) -> Option<Instant> {
        let loads = self.loads();
        loads.is_wanted.then_some(loads.at)
    }

    /// A load begins, for all who have asked so far; returns whether one of them was certain to need
    /// it.
    pub(super) fn begin_load(&self) -> bool {
        let mut loads = self.loads();
        loads.begun += 1;
        loads.is_wanted = false;
        let is_needed = std::mem::take(&mut loads.is_needed);
        loads.at = Instant::now();
        is_needed
    }

    /// A load has ended and its result is published. The next one that is asked for begins `pause`
    /// from now at the earliest.
    pub(super) fn end_load(&self, pause: Duration) {
        let mut loads = self.loads();
        loads.ended = loads.begun;
        loads.ended_at = Some(Instant::now());
        loads.at = Instant::now() + pause;
    }

    fn loads(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::s3) fn publish(&self, current: Current) {
        self.current.store(Some(Arc::new(current)));
        self.failure.store(None);
    }

    pub(super) fn fail(&self, reason: String) {
        self.failure.store(Some(Arc::new(reason)));
    }
}

/// A place among the requests that wait for a handle.
struct Waiting<'s>(&'s AtomicUsize);

impl Waiting<'_> {
    /// `None` if too many wait already.
    fn new(waiting: &AtomicUsize) -> Option<Waiting<'_>> {
        let place = Waiting(waiting);
        let earlier = waiting.fetch_add(1, Ordering::Relaxed);
        (earlier < limits::WAITING_FOR_CREDENTIALS).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for CredentialsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsHandle").field("login", &self.login).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::s3::credentials;

    fn until(seconds: u64) -> Current {
        let expiry = UNIX_EPOCH + Duration::from_secs(seconds);
        Current::new(Credentials::new("A", "SECRET", None, Some(expiry), "test"))
    }

    #[test]
    fn fixed_keys_are_there_at_once_and_never_expire() {
        let handle = CredentialsHandle::fixed(credentials::fixed("A", "SECRET", None));
        let current = handle.load();
        assert!(current.as_ref().is_some_and(|current| current.is_valid_at(u64::MAX)));
        assert!(!handle.needs_refreshing());
        // It never waits, so it is ready when polled once.
        let mut newer = std::pin::pin!(handle.newer_than(handle.generation(), Need::Certain));
        let polled = newer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(false));
        assert!(handle.wanted_at().is_none(), "there is no refresher");
    }

    #[test]
    fn all_who_ask_share_a_load_and_only_one_that_is_near_is_waited_for() {
        let handle = CredentialsHandle::new(Login::Instance, None);
        let now = Instant::now();
        let ask = |now| handle.loads().ask(Need::Certain, now);
        assert_eq!((ask(now), ask(now)), ((1, true), (1, true)));
        handle.begin_load();
        assert!(handle.wanted_at().is_none());
        let began = Instant::now();
        assert_eq!(ask(began), (1, true));
        assert_eq!(
            ask(began + WAIT_TIMEOUT * 2),
            (1, false),
            "it has been in progress for too long"
        );
        assert!(handle.wanted_at().is_none(), "the load in progress is for them");
        handle.end_load(Duration::from_secs(60));
        assert_eq!(ask(Instant::now()), (2, false));
        assert!(handle.wanted_at().is_some(), "it will be done nevertheless");
        assert_eq!(ask(Instant::now() + Duration::from_secs(59)), (2, true));
    }

    #[test]
    fn a_doubtful_need_is_not_asked_for_soon_after_a_load_and_never_counts_as_certain() {
        let handle = CredentialsHandle::new(Login::Instance, None);
        assert!(!handle.begin_load());
        handle.end_load(Duration::ZERO);
        let doubt = |now| handle.loads().ask(Need::Doubtful, now);
        assert_eq!(doubt(Instant::now()), (2, false));
        assert!(handle.wanted_at().is_none());
        assert_eq!(doubt(Instant::now() + DOUBTFUL_PAUSE), (2, true));
        assert!(handle.wanted_at().is_some() && !handle.begin_load());
        handle.end_load(Duration::ZERO);
        handle.loads().ask(Need::Certain, Instant::now());
        assert!(handle.begin_load());
    }

    #[test]
    fn new_credentials_have_a_new_generation_and_expire_in_time() {
        let handle = CredentialsHandle::new(Login::Instance, None);
        assert!(handle.load().is_none());
        handle.fail("no response".to_owned());
        handle.publish(until(100));
        let first = handle.load().as_ref().map(|current| current.generation);
        assert!(handle.failure().is_none());
        handle.publish(until(200));
        let guard = handle.load();
        let second = guard.as_ref().expect("was published");
        assert!(Some(second.generation) > first);
        assert!(second.is_valid_at(199) && !second.is_valid_at(200));
    }
}
