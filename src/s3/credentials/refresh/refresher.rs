//! Publishes loaded credentials and decides when the next load is due. Only changes are logged: the
//! first credentials, the first failure, expiry, and recovery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Iso8601;
use crate::s3::credentials::current::{Current, NO_GENERATION};
use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::credentials::refresh::schedule;
use crate::s3::credentials::{Credentials, have_same_keys};

/// When the next load is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The credentials do not expire.
    Never,
    /// At this time by S3's clock, since 1970.
    AtS3Time(Duration),
    /// After a failure.
    At(Instant),
}

impl Due {
    /// The time until then; `None` for never.
    pub(super) fn left(self, handle: &CredentialsHandle) -> Option<Duration> {
        match self {
            Due::Never => None,
            Due::AtS3Time(time) => Some(time.saturating_sub(handle.clock().time())),
            Due::At(time) => Some(time.saturating_duration_since(Instant::now())),
        }
    }
}

/// The state of a login's credentials, as last logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Before the first load.
    New,
    /// There are valid credentials, and the last load succeeded.
    Good,
    /// The last load failed; the credentials before it are still valid.
    Failing,
    /// There are no valid credentials.
    Gone,
}

/// Refreshes the credentials of one login.
pub(super) struct Refresher {
    pub(super) handle: Arc<CredentialsHandle>,
    health: Health,
    /// Failed loads since the last successful one.
    pub(super) failures: u32,
    /// Requested loads in a row that returned no credentials that S3 accepts.
    pub(super) fruitless: u32,
    /// The generation of the last requested load.
    requested_generation: u64,
}

impl Refresher {
    pub(super) fn new(handle: Arc<CredentialsHandle>) -> Refresher {
        let requested_generation = NO_GENERATION;
        Refresher { handle, health: Health::New, failures: 0, fruitless: 0, requested_generation }
    }

    /// Publishes the loaded credentials, or keeps the current ones after a failure.
    pub(super) fn take(&mut self, loaded: Result<Credentials, String>, was_requested: bool) -> Due {
        match loaded.and_then(|loaded| self.current(loaded)) {
            Ok(current) => self.succeed(current, was_requested),
            Err(reason) => self.fail(reason),
        }
    }

    /// Checks loaded credentials. Expired ones are an error if S3's time was learned recently or
    /// valid credentials are in use. Otherwise they are marked, since this machine's clock may be
    /// wrong.
    fn current(&self, loaded: Credentials) -> Result<Current, String> {
        let clock = self.handle.clock();
        let mut current = Current::new(loaded);
        if !current.is_valid_at(clock.seconds()) {
            if clock.was_learned_recently() || self.has_valid_set() {
                return Err(format!("the credentials issued were {}", End(current.expiry())));
            }
            current.seems_expired = true;
        }
        if let Some(previous) = self.handle.load().as_deref()
            && have_same_keys(&previous.credentials, &current.credentials)
            && previous.expiry() == current.expiry()
        {
            // Unchanged, so requests that wait for newer credentials must keep waiting.
            current.generation = previous.generation;
        }
        Ok(current)
    }

    fn has_valid_set(&self) -> bool {
        let now = self.handle.clock().seconds();
        self.handle.load().as_ref().is_some_and(|current| current.is_valid_at(now))
    }

    fn succeed(&mut self, current: Current, was_requested: bool) -> Due {
        self.count_fruitless(&current, was_requested);
        if current.seems_expired {
            return self.publish_expired(current);
        }
        self.failures = 0;
        let login = self.handle.login();
        let end = End(current.expiry());
        match self.health {
            Health::New | Health::Gone => {
                let id = current.credentials.access_key_id();
                log::info!("credentials of {login}: access key {id}, {end}");
            }
            Health::Failing => log::info!("credentials of {login}: refreshed again, {end}"),
            Health::Good => log::debug!("credentials of {login}: refreshed, {end}"),
        }
        self.health = Health::Good;
        let expires = current.expiry().map(Duration::from_secs);
        self.handle.publish(current);
        let Some(expires) = expires else { return Due::Never };
        let now = self.handle.clock().time();
        let left = expires.saturating_sub(now);
        Due::AtS3Time(now + schedule::until_refresh(left, fastrand::f64()))
    }

    /// Counts a requested load as fruitless if it returned the rejected credentials again, or new
    /// ones although S3 never accepted those of the requested load before.
    fn count_fruitless(&mut self, current: &Current, was_requested: bool) {
        if !was_requested {
            self.fruitless = 0;
            return;
        }
        let previous = self.handle.load();
        let is_fruitless = previous.as_ref().is_some_and(|previous| {
            let previous_was_requested = self.requested_generation == previous.generation;
            have_same_keys(&previous.credentials, &current.credentials)
                || previous_was_requested && !self.handle.has_accepted(previous.generation)
        });
        drop(previous);
        self.fruitless = if is_fruitless { self.fruitless.saturating_add(1) } else { 0 };
        self.requested_generation = current.generation;
    }

    /// Publishes credentials that seem to have expired, and retries as after a failure.
    fn publish_expired(&mut self, current: Current) -> Due {
        let reason = format!(
            "the credentials issued were {} by this machine's clock, which may be wrong",
            End(current.expiry())
        );
        self.handle.publish(current);
        self.fail(reason)
    }

    fn fail(&mut self, reason: String) -> Due {
        self.failures = self.failures.saturating_add(1);
        let now = self.handle.clock().time();
        let valid_until = {
            let current = self.handle.load();
            let valid = current.as_ref().filter(|current| current.is_valid_at(now.as_secs()));
            valid.map(|current| current.expiry())
        };
        let health = if valid_until.is_some() { Health::Failing } else { Health::Gone };
        if health == self.health {
            let login = self.handle.login();
            log::debug!("credentials of {login}: attempt {} failed: {reason}", self.failures);
        } else {
            self.log_failure(&reason, valid_until);
            self.health = health;
        }
        self.handle.fail(reason);
        let pause = schedule::until_retry(self.failures, fastrand::f64());
        // Wakes up when the current credentials expire, to log the expiry.
        let pause = match valid_until.flatten().map(Duration::from_secs) {
            Some(end) => pause.min(end.saturating_sub(now)).max(schedule::MIN_PAUSE),
            None => pause,
        };
        Due::At(Instant::now() + pause)
    }

    /// Logs that there are no valid credentials, or that the current ones cannot be refreshed.
    fn log_failure(&self, reason: &str, valid_until: Option<Option<u64>>) {
        let login = self.handle.login();
        let advice = login.advice();
        match (valid_until, self.health) {
            (Some(expires), _) => log::warn!(
                "credentials of {login} cannot be refreshed: {reason}; {advice}. The current ones are {}",
                End(expires)
            ),
            (None, Health::New) => log::error!(
                "credentials of {login} cannot be loaded: {reason}; {advice}. Until they can, \
                 requests get a 502 response"
            ),
            (None, _) => log::error!(
                "credentials of {login} have expired and cannot be refreshed: {reason}; {advice}. \
                 Until they can, requests get a 502 response"
            ),
        }
    }
}

/// `valid until 2026-11-24T03:30:56Z`; in seconds since 1970.
struct End(Option<u64>);

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(end) => write!(f, "valid until {}", Iso8601(end)),
            None => f.write_str("valid without expiry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::clock;
    use crate::s3::credentials::login::Login;

    fn refresher() -> Refresher {
        Refresher::new(Arc::new(CredentialsHandle::new(Login::Instance, None)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "the outcome of a load")]
    fn set(id: &str, seconds: u64) -> Result<Credentials, String> {
        Ok(set_until(id, clock::unix_time() + Duration::from_secs(seconds)))
    }

    fn set_until(id: &str, since_1970: Duration) -> Credentials {
        Credentials::new(id, "SECRET", None, Some(UNIX_EPOCH + since_1970), "test")
    }

    fn down() -> Result<Credentials, String> {
        Err("no response".to_owned())
    }

    fn id(refresher: &Refresher) -> Option<String> {
        refresher
            .handle
            .load()
            .as_ref()
            .map(|current| current.credentials.access_key_id().to_owned())
    }

    #[test]
    fn the_last_good_credentials_are_kept_while_they_are_valid() {
        let mut refresher = refresher();
        refresher.take(set("A", 3600), false);
        refresher.take(down(), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Failing, Some("A")));
        assert_eq!(refresher.handle.failure().as_deref().map(String::as_str), Some("no response"));
        refresher.take(set("B", 3600), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Good, Some("B")));
        assert!(refresher.handle.failure().is_none());
    }

    #[test]
    fn expired_credentials_do_not_replace_valid_ones() {
        let mut refresher = refresher();
        refresher.take(set("A", 3600), false);
        refresher.take(set("B", 0), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Failing, Some("A")));
    }

    #[test]
    fn without_credentials_a_load_is_retried_soon() {
        let mut refresher = refresher();
        let due = refresher.take(down(), false).left(&refresher.handle);
        assert_eq!(refresher.health, Health::Gone);
        assert!(due.is_some_and(|left| left <= Duration::from_secs(2)));
        assert!(id(&refresher).is_none());
    }

    #[test]
    fn the_refresher_wakes_up_when_the_credentials_expire() {
        let mut refresher = refresher();
        refresher.take(set("A", 5), false);
        for _ in 0..10 {
            let due = refresher.take(down(), false).left(&refresher.handle);
            assert!(due.is_some_and(|left| left <= Duration::from_secs(5)));
        }
    }

    #[test]
    fn fruitless_loads_are_counted_until_s3_accepts_new_credentials() {
        let mut refresher = refresher();
        refresher.take(set("A", 3600), false);
        refresher.take(set("A", 3600), true);
        refresher.take(set("A", 3600), true);
        assert_eq!(refresher.fruitless, 2);
        // New credentials, which S3 never accepts, and then others.
        refresher.take(set("C", 3600), true);
        refresher.take(set("D", 3600), true);
        refresher.take(set("E", 3600), true);
        assert_eq!(refresher.fruitless, 5);
        refresher.handle.note_accepted(refresher.handle.generation());
        refresher.take(set("F", 3600), true);
        assert_eq!(refresher.fruitless, 0);
    }

    #[test]
    fn the_same_credentials_again_are_not_newer() {
        let mut refresher = refresher();
        let end = clock::unix_time();
        let set = |seconds| Ok(set_until("A", end + Duration::from_secs(seconds)));
        refresher.take(set(3600), false);
        let first = refresher.handle.generation();
        refresher.take(set(3600), true);
        assert_eq!(refresher.handle.generation(), first);
        refresher.take(set(7200), true);
        assert!(refresher.handle.generation() > first);
    }

    #[test]
    fn credentials_that_seem_expired_are_used_until_s3s_time_is_known() {
        let mut refresher = refresher();
        refresher.take(set("A", 0), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Gone, Some("A")));
        let clock = refresher.handle.clock();
        assert!(refresher.handle.load().as_ref().is_some_and(|set| set.is_usable(clock)));
        // S3's clock is an hour behind.
        clock.learn(clock.seconds() - 3600);
        refresher.take(set("B", 0), true);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Good, Some("B")));
        // Now it agrees with this machine's.
        refresher.handle.clock().learn(clock::unix_seconds() + 1);
        refresher.take(set("C", 0), true);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Gone, Some("B")));
    }
}
