//! The current credentials of a login, shared by all workers.
//!
//! One task on the background thread writes and every worker reads: the current credentials are
//! behind an atomic pointer.
//!
//! A request that finds no valid credentials, or whose credentials S3 rejects, asks for newer ones
//! and may wait a moment for them. All such requests share one load.

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

/// How long a request waits for newer credentials. STS and SSO take a second or two.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request does not wait for a load that starts later than this.
const MAX_START_DELAY: Duration = Duration::from_secs(2);

/// Least time from a load to one for a [`Need::Doubtful`], so that requests for objects that S3
/// always refuses do not delay a needed refresh.
const DOUBTFUL_PAUSE: Duration = Duration::from_secs(10);

/// How often a waiting request looks for newer credentials: other threads do not wake workers.
const POLL_PERIOD: Duration = Duration::from_millis(10);

/// The credentials of one login, refreshed in the background.
pub struct CredentialsHandle {
    login: Login,
    /// The region of STS, if configured.
    sts_region: Option<String>,
    /// For requests to the services that issue credentials.
    proxies: Arc<Proxies>,
    current: ArcSwapOption<Current>,
    /// The error of the last load; `None` if it succeeded.
    failure: ArcSwapOption<String>,
    /// S3's time, from responses to requests with these credentials.
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
    /// S3 refused a request, perhaps because of the object and not of the credentials.
    Doubtful,
}

/// The loads of a login, counted from 1.
#[derive(Debug)]
struct Loads {
    started: u64,
    ended: u64,
    /// Another load was requested since the last one started.
    is_wanted: bool,
    /// At least one of these requests was [`Need::Certain`].
    is_needed: bool,
    ended_at: Option<Instant>,
    /// When the load in progress started or, between two loads, when the next one may start.
    at: Instant,
}

impl Loads {
    fn new(now: Instant) -> Loads {
        let (started, ended, is_wanted, is_needed) = (0, 0, false, false);
        Loads { started, ended, is_wanted, is_needed, ended_at: None, at: now }
    }

    fn is_in_progress(&self) -> bool {
        self.started > self.ended
    }

    /// Requests a load. Returns its number, and whether to wait for it.
    fn request(&mut self, need: Need, now: Instant) -> (u64, bool) {
        if self.is_in_progress() {
            return (self.started, now < self.at + WAIT_TIMEOUT);
        }
        let is_needed = need == Need::Certain;
        if !is_needed && self.ended_at.is_some_and(|at| now < at + DOUBTFUL_PAUSE) {
            return (self.started + 1, false);
        }
        self.is_wanted = true;
        self.is_needed |= is_needed;
        (self.started + 1, now + MAX_START_DELAY >= self.at)
    }
}

impl CredentialsHandle {
    /// A handle with the login's fixed keys, if any, otherwise without credentials yet.
    pub fn new(login: Login, sts_region: Option<String>) -> CredentialsHandle {
        let fixed = login.keys().map(|keys| Arc::new(Current::new(keys.clone())));
        CredentialsHandle {
            login,
            sts_region,
            proxies: Arc::default(),
            current: ArcSwapOption::new(fixed),
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

    /// The provider of the credentials.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Whether a background task has to load and refresh them.
    pub fn needs_refreshing(&self) -> bool {
        self.login.keys().is_none()
    }

    /// The current credentials, which may have expired: see [`Current::is_usable`].
    pub fn load(&self) -> Guard<Option<Arc<Current>>> {
        self.current.load()
    }

    /// The error of the last load, for an operator; `None` if it succeeded.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// The generation of the current credentials, or [`NO_GENERATION`].
    pub fn generation(&self) -> u64 {
        self.load().as_ref().map_or(NO_GENERATION, |current| current.generation)
    }

    /// Notes that S3 accepted a signature made with this generation. After the first time, it costs
    /// one relaxed load.
    pub fn note_accepted(&self, generation: u64) {
        if self.accepted.load(Ordering::Relaxed) < generation {
            self.accepted.fetch_max(generation, Ordering::Relaxed);
        }
    }

    /// Whether S3 accepted a signature made with this generation or a later one.
    pub(super) fn has_accepted(&self, generation: u64) -> bool {
        generation <= self.accepted.load(Ordering::Relaxed)
    }

    /// S3's time, by which credentials expire.
    pub fn clock(&self) -> &S3Clock {
        &self.clock
    }

    /// Requests credentials newer than `generation`, which was rejected or has expired, and waits
    /// for them up to [`WAIT_TIMEOUT`]; `false` if there are none. The refresher bounds how often
    /// it loads; this does not wait for a load that will not start soon. Call it on workers only.
    pub async fn newer_than(&self, generation: u64, need: Need) -> bool {
        if !self.needs_refreshing() || self.generation() > generation {
            return self.generation() > generation;
        }
        let (load, is_worth_waiting) = self.loads().request(need, Instant::now());
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

    /// Waits until a load is requested.
    pub(super) async fn requested(&self) {
        self.wanted.notified().await;
    }

    /// When a load may start, if one was requested.
    pub(super) fn wanted_at(&self) -> Option<Instant> {
        let loads = self.loads();
        loads.is_wanted.then_some(loads.at)
    }

    /// Notes the start of a load, which serves all requests so far. Returns whether one of them was
    /// [`Need::Certain`].
    pub(super) fn begin_load(&self) -> bool {
        let mut loads = self.loads();
        loads.started += 1;
        loads.is_wanted = false;
        let is_needed = std::mem::take(&mut loads.is_needed);
        loads.at = Instant::now();
        is_needed
    }

    /// Notes that a load has ended and its result is published. A requested load starts `pause`
    /// from now at the earliest.
    pub(super) fn end_load(&self, pause: Duration) {
        let mut loads = self.loads();
        loads.ended = loads.started;
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

/// Counts a request that waits for newer credentials, until it is dropped.
struct Waiting<'s>(&'s AtomicUsize);

impl Waiting<'_> {
    /// `None` if [`limits::WAITING_FOR_CREDENTIALS`] are waiting already.
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
    fn fixed_keys_are_available_at_once_and_never_expire() {
        let handle = CredentialsHandle::fixed(credentials::fixed("A", "SECRET", None));
        let current = handle.load();
        assert!(current.as_ref().is_some_and(|current| current.is_valid_at(u64::MAX)));
        assert!(!handle.needs_refreshing());
        // It never waits, so the first poll is ready.
        let mut newer = std::pin::pin!(handle.newer_than(handle.generation(), Need::Certain));
        let polled = newer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(false));
        assert!(handle.wanted_at().is_none(), "there is no refresher");
    }

    #[test]
    fn requests_share_a_load_and_wait_only_if_it_starts_soon() {
        let handle = CredentialsHandle::new(Login::Instance, None);
        let now = Instant::now();
        let ask = |now| handle.loads().request(Need::Certain, now);
        assert_eq!((ask(now), ask(now)), ((1, true), (1, true)));
        handle.begin_load();
        assert!(handle.wanted_at().is_none());
        let started = Instant::now();
        assert_eq!(ask(started), (1, true));
        assert_eq!(
            ask(started + WAIT_TIMEOUT * 2),
            (1, false),
            "it has been in progress for too long"
        );
        assert!(handle.wanted_at().is_none(), "the load in progress is for them");
        handle.end_load(Duration::from_secs(60));
        assert_eq!(ask(Instant::now()), (2, false));
        assert!(handle.wanted_at().is_some(), "it is started later nevertheless");
        assert_eq!(ask(Instant::now() + Duration::from_secs(59)), (2, true));
    }

    #[test]
    fn a_doubtful_need_requests_no_load_soon_after_another_and_never_counts_as_certain() {
        let handle = CredentialsHandle::new(Login::Instance, None);
        assert!(!handle.begin_load());
        handle.end_load(Duration::ZERO);
        let doubt = |now| handle.loads().request(Need::Doubtful, now);
        assert_eq!(doubt(Instant::now()), (2, false));
        assert!(handle.wanted_at().is_none());
        assert_eq!(doubt(Instant::now() + DOUBTFUL_PAUSE), (2, true));
        assert!(handle.wanted_at().is_some() && !handle.begin_load());
        handle.end_load(Duration::ZERO);
        handle.loads().request(Need::Certain, Instant::now());
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
