//! Where the cores find the credentials of the moment.
//!
//! One task on the side thread writes, every core reads, and nobody waits: the current set is
//! behind an atomic pointer. Each set has a generation, so that a signing key that was derived
//! from it can be told from that of the next set without a look at the secret.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;

use crate::s3::credentials::Credentials;
use crate::s3::login::Login;
use crate::upstream::proxy::Proxies;

/// Counts all sets of the process, so that no two of them share a number, whatever their source.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// A set of credentials with what a signer must know of it.
#[derive(Clone, Debug)]
pub struct Current {
    /// The set.
    pub credentials: Credentials,
    /// Its number; a later set has a higher one.
    pub generation: u64,
    /// When it ends, in seconds since 1970; `None` is never.
    pub expires: Option<u64>,
}

impl Current {
    /// The next generation.
    pub fn new(credentials: Credentials, expires: Option<u64>) -> Current {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Current { credentials, generation, expires }
    }

    /// Whether it can be signed with at a moment, in seconds since 1970.
    pub fn is_valid_at(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
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
    wanted: Notify,
    is_wanted: AtomicBool,
}

impl Source {
    /// A source that has what is written down, and otherwise nothing yet.
    pub fn new(login: Login, sts_region: Option<String>) -> Source {
        let written = login.keys().map(|keys| Arc::new(Current::new(keys.clone(), None)));
        Source {
            login,
            sts_region,
            proxies: Arc::default(),
            current: ArcSwapOption::new(written),
            failure: ArcSwapOption::empty(),
            wanted: Notify::new(),
            is_wanted: AtomicBool::new(false),
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

    /// The set of the moment. It may have expired: see [`Current::is_valid_at`].
    pub fn load(&self) -> Guard<Option<Arc<Current>>> {
        self.current.load()
    }

    /// Why there is no newer set, in words for an operator.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// Asks for a new set before its time, since S3 refuses this one. Never waits, and costs next
    /// to nothing while an earlier call has not been heard; how often a set is really loaded is
    /// the refresher's decision.
    pub fn ask_for_refresh(&self) {
        if self.needs_refreshing() && !self.is_wanted.swap(true, Ordering::Relaxed) {
            self.wanted.notify_one();
        }
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

    /// From now on what is asked for is something newer.
    pub(super) fn hear(&self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }

    pub(super) fn publish(&self, current: Current) {
        self.current.store(Some(Arc::new(current)));
        self.failure.store(None);
    }

    pub(super) fn fail(&self, reason: String) {
        self.failure.store(Some(Arc::new(reason)));
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("login", &self.login).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: &str) -> Credentials {
        Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: "SECRET".to_owned(),
            session_token: None,
        }
    }

    #[test]
    fn written_keys_are_there_at_once_and_for_ever() {
        let source = Source::fixed(keys("A"));
        let current = source.load();
        assert!(current.as_ref().is_some_and(|current| current.is_valid_at(u64::MAX)));
        assert!(!source.needs_refreshing());
        source.ask_for_refresh();
        assert!(!source.is_wanted.load(Ordering::Relaxed), "nobody listens");
    }

    #[test]
    fn a_new_set_has_a_new_generation_and_ends_at_its_time() {
        let source = Source::new(Login::Instance, None);
        assert!(source.load().is_none());
        source.fail("no answer".to_owned());
        source.publish(Current::new(keys("A"), Some(100)));
        let first = source.load().as_ref().map(|current| current.generation);
        assert!(source.failure().is_none());
        source.publish(Current::new(keys("B"), Some(200)));
        let guard = source.load();
        let second = guard.as_ref().expect("was published");
        assert!(Some(second.generation) > first);
        assert!(second.is_valid_at(199) && !second.is_valid_at(200));
    }
}
