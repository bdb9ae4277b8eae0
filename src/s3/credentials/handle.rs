//! Where the cores find the credentials of the moment.
//!
//! One task on the side thread writes and every core reads: the current set is behind an atomic
//! pointer. Each set has a generation, so that a signing key that was derived from it can be told
//! from that of the next set without a look at the secret.
//!
//! A request that finds no valid set, or whose set S3 refuses, asks for a newer one and may wait a
//! moment for it. However many ask, there is one load for all of them.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::{ArcSwapOption, Guard};
use monoio::time::sleep;
use tokio::sync::Notify;

use crate::limits;
use crate::s3::clock::S3Clock;
use crate::s3::credentials::Credentials;
use crate::s3::credentials::login::Login;
use crate::upstream::proxy::Proxies;

/// Counts all sets of the process, so that no two of them share a number, whatever their source.
static GENERATIONS: AtomicU64 = AtomicU64::new(NO_GENERATION + 1);

/// The generation before all sets.
pub const NO_GENERATION: u64 = 0;

/// How long a request waits for a newer set. STS and single sign-on take a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest time until a load may begin that is still worth waiting for.
const PAUSE_PATIENCE: Duration = Duration::from_secs(2);

/// Least time from a load to one whose need is doubtful. Objects that S3 never serves must not hold
/// up the renewal of what has ended.
const DOUBTFUL_PAUSE: Duration = Duration::from_secs(10);

/// Time between two looks for a newer set. Workers are not woken by other threads.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// A set of credentials with what a signer must know of it.
#[derive(Clone, Debug)]
pub struct Current {
    /// The set.
    pub credentials: Credentials,
    /// Its number; a later set has a higher one.
    pub generation: u64,
    /// It seemed to have ended already when it was given out, which points at the clock that it
    /// was judged by. S3 has the last word.
    pub is_doubtful: bool,
}

impl Current {
    /// The next generation.
    pub fn new(credentials: Credentials) -> Current {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Current { credentials, generation, is_doubtful: false }
    }

    /// When it expires, in seconds since 1970; `None` is never.
    pub fn expiry(&self) -> Option<u64> {
        let expiry = self.credentials.expiry()?;
        Some(expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// Whether it can be signed with, as far as S3's time is known.
    pub fn is_usable(&self, clock: &S3Clock) -> bool {
        self.credentials.expiry().is_none()
            || self.is_valid_at(clock.seconds())
            || self.is_doubtful && !clock.was_told_lately()
    }

    /// Whether it can be signed with at a moment, in seconds since 1970.
    pub fn is_valid_at(&self, now: u64) -> bool {
        self.expiry().is_none_or(|expiry| now < expiry)
    }
}

/// The credentials of one login, as long as the process runs.
pub struct Source {
    login: Login,
    /// The region that STS is asked in, where the configuration names one.
    sts_region: Option<String>,
    /// Those on the way to the services that give credentials out.
    proxies: Arc<Proxies>,
    current: ArcSwapOption<Current>,
    /// Why the last attempt failed; `None` where it did not.
    failure: ArcSwapOption<String>,
    /// S3's time, as some bucket that is read with these credentials was told it.
    clock: S3Clock,
    /// The last generation that S3 accepted a signature with.
    accepted: AtomicU64,
    loads: Mutex<Loads>,
    wanted: Notify,
    waiting: AtomicUsize,
}

/// Why a newer set is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There is none, or S3 does not accept the one there is.
    Certain,
    /// S3 refused a request for a reason that may be the request's own.
    Doubtful,
}

/// The loads of a source, counted from 1.
#[derive(Debug)]
struct Loads {
    begun: u64,
    ended: u64,
    /// Somebody wants another load than those that have begun.
    is_wanted: bool,
    /// And somebody is certain to need it.
    is_needed: bool,
    ended_at: Option<Instant>,
    /// When the load under way began or, between two, when one that is wanted may begin.
    at: Instant,
}

impl Loads {
    fn new(now: Instant) -> Loads {
        let (begun, ended, is_wanted, is_needed) = (0, 0, false, false);
        Loads { begun, ended, is_wanted, is_needed, ended_at: None, at: now }
    }

    fn is_under_way(&self) -> bool {
        self.begun > self.ended
    }

    /// The load that decides for whoever asks now, and whether that is worth waiting for.
    fn ask(&mut self, need: Need, now: Instant) -> (u64, bool) {
        if self.is_under_way() {
            return (self.begun, now < self.at + PATIENCE);
        }
        let is_needed = need == Need::Certain;
        if !is_needed && self.ended_at.is_some_and(|at| now < at + DOUBTFUL_PAUSE) {
            return (self.begun + 1, false);
        }
        self.is_wanted = true;
        self.is_needed |= is_needed;
        (self.begun + 1, now + PAUSE_PATIENCE >= self.at)
    }
}

impl Source {
    /// A source that has what is written down, and otherwise nothing yet.
    pub fn new(login: Login, sts_region: Option<String>) -> Source {
        let written = login.keys().map(|keys| Arc::new(Current::new(keys.clone())));
        Source {
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

    /// Has the services that give credentials out asked through proxies.
    pub fn through(mut self, proxies: Arc<Proxies>) -> Source {
        self.proxies = proxies;
        self
    }

    /// Credentials that never change.
    pub fn fixed(credentials: Credentials) -> Source {
        Source::new(Login::Keys(credentials), None)
    }

    /// How they are come by.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Whether somebody must load and renew them.
    pub fn needs_refreshing(&self) -> bool {
        self.login.keys().is_none()
    }

    /// The set of the moment. It may have expired: see [`Current::is_usable`].
    pub fn load(&self) -> Guard<Option<Arc<Current>>> {
        self.current.load()
    }

    /// Why there is no newer set, in words for an operator.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// The generation of the set of the moment.
    pub fn generation(&self) -> u64 {
        self.load().as_ref().map_or(NO_GENERATION, |current| current.generation)
    }

    /// Notes that S3 has accepted a signature with a generation; next to free where it has before.
    pub fn note_accepted(&self, generation: u64) {
        if self.accepted.load(Ordering::Relaxed) < generation {
            self.accepted.fetch_max(generation, Ordering::Relaxed);
        }
    }

    /// Whether S3 has accepted a signature with this generation or a later one.
    pub(super) fn has_accepted(&self, generation: u64) -> bool {
        generation <= self.accepted.load(Ordering::Relaxed)
    }

    /// S3's time, by which the sets end.
    pub fn clock(&self) -> &S3Clock {
        &self.clock
    }

    /// Asks for a set after `generation`, which is refused or has ended, and waits a moment for it;
    /// `false` if there is none. How often a set is really loaded is the refresher's decision: a
    /// load that is not to begin soon is not waited for. To be called on a worker.
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
        let deadline = Instant::now() + PATIENCE;
        while self.generation() <= generation {
            if self.loads().ended >= load || Instant::now() >= deadline {
                // It is published before the load ends.
                return self.generation() > generation;
            }
            sleep(LOOK_PERIOD).await;
        }
        true
    }

    pub(super) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    pub(super) fn sts_region(&self) -> Option<&str> {
        self.sts_region.as_deref()
    }

    /// Waits for somebody to ask.
    pub(super) async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// When a load may begin, if somebody wants one.
    pub(super) fn wanted_at(&self) -> Option<Instant> {
        let loads = self.loads();
        loads.is_wanted.then_some(loads.at)
    }

    /// A load begins: it is what everybody wants who has asked so far. Whether anybody is certain
    /// to need it.
    pub(super) fn begin_load(&self) -> bool {
        let mut loads = self.loads();
        loads.begun += 1;
        loads.is_wanted = false;
        let is_needed = std::mem::take(&mut loads.is_needed);
        loads.at = Instant::now();
        is_needed
    }

    /// A load has ended, and what it brought is published. The next one that is asked for begins
    /// `pause` from now at the earliest.
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

/// A place among those that wait for a source.
struct Waiting<'s>(&'s AtomicUsize);

impl Waiting<'_> {
    /// `None` where as many wait as may.
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

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("login", &self.login).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::s3::credentials;

    fn until(seconds: u64) -> Current {
        let expiry = UNIX_EPOCH + Duration::from_secs(seconds);
        Current::new(Credentials::new("A", "SECRET", None, Some(expiry), "test"))
    }

    #[test]
    fn written_keys_are_there_at_once_and_for_ever() {
        let source = Source::fixed(credentials::fixed("A", "SECRET", None));
        let current = source.load();
        assert!(current.as_ref().is_some_and(|current| current.is_valid_at(u64::MAX)));
        assert!(!source.needs_refreshing());
        // It never waits, so polled once it is ready.
        let mut newer = std::pin::pin!(source.newer_than(source.generation(), Need::Certain));
        let polled = newer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(false));
        assert!(source.wanted_at().is_none(), "nobody listens");
    }

    #[test]
    fn all_who_ask_share_a_load_and_only_one_that_is_near_is_waited_for() {
        let source = Source::new(Login::Instance, None);
        let now = Instant::now();
        let ask = |now| source.loads().ask(Need::Certain, now);
        assert_eq!((ask(now), ask(now)), ((1, true), (1, true)));
        source.begin_load();
        assert!(source.wanted_at().is_none());
        let began = Instant::now();
        assert_eq!(ask(began), (1, true));
        assert_eq!(ask(began + PATIENCE * 2), (1, false), "it has hung for long");
        assert!(source.wanted_at().is_none(), "the load under way is for them");
        source.end_load(Duration::from_secs(60));
        assert_eq!(ask(Instant::now()), (2, false));
        assert!(source.wanted_at().is_some(), "it comes nevertheless");
        assert_eq!(ask(Instant::now() + Duration::from_secs(59)), (2, true));
    }

    #[test]
    fn a_doubtful_need_is_not_asked_for_soon_after_a_load_and_never_counts_as_certain() {
        let source = Source::new(Login::Instance, None);
        assert!(!source.begin_load());
        source.end_load(Duration::ZERO);
        let doubt = |now| source.loads().ask(Need::Doubtful, now);
        assert_eq!(doubt(Instant::now()), (2, false));
        assert!(source.wanted_at().is_none());
        assert_eq!(doubt(Instant::now() + DOUBTFUL_PAUSE), (2, true));
        assert!(source.wanted_at().is_some() && !source.begin_load());
        source.end_load(Duration::ZERO);
        source.loads().ask(Need::Certain, Instant::now());
        assert!(source.begin_load());
    }

    #[test]
    fn a_set_that_seemed_to_have_ended_is_used_until_s3_tells_its_time() {
        let clock = S3Clock::default();
        let mut set = until(clock.seconds() - 100);
        assert!(!set.is_usable(&clock));
        set.is_doubtful = true;
        assert!(set.is_usable(&clock));
        clock.learn(clock.seconds());
        assert!(!set.is_usable(&clock), "S3 agrees that it has ended");
        clock.learn(clock.seconds() - 3_600);
        assert!(set.is_usable(&clock), "this machine's clock was ahead");
    }

    #[test]
    fn a_new_set_has_a_new_generation_and_ends_at_its_time() {
        let source = Source::new(Login::Instance, None);
        assert!(source.load().is_none());
        source.fail("no answer".to_owned());
        source.publish(until(100));
        let first = source.load().as_ref().map(|current| current.generation);
        assert!(source.failure().is_none());
        source.publish(until(200));
        let guard = source.load();
        let second = guard.as_ref().expect("was published");
        assert!(Some(second.generation) > first);
        assert!(second.is_valid_at(199) && !second.is_valid_at(200));
    }
}
