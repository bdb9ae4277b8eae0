//! Refreshes credentials: one task per source, all of them on the background thread.
//!
//! Credentials are refreshed well before they expire. While that fails, the last good ones stay in
//! use as long as they are valid, and retries back off. Only changes are logged: the first
//! credentials, the first failure, expiry, and recovery.
//!
//! Requests ask for a load if they find no valid credentials or S3 rejects them. It begins at once,
//! unless loads that were asked for shortly before did not help.

mod failure;
mod provider;
mod proxied;
mod schedule;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use crate::clock::Iso8601;
use crate::s3::credentials::handle::{Current, NO_GENERATION, Source};
use crate::s3::credentials::{Credentials, have_same_keys};
use crate::sys::background::{Background, Task};

/// Longest sleep. The clock that measures sleeps stops while a machine is suspended; the clock by
/// which credentials expire does not.
const SLEEP: Duration = Duration::from_secs(30);

/// Starts refreshing `sources`, until their tasks are dropped, and waits up to `patience` for the
/// first load of each.
pub(crate) fn start(
    background: &Background,
    sources: &[Arc<Source>],
    patience: Duration,
) -> Vec<Task> {
    let deadline = Instant::now() + patience;
    let waits: Vec<_> = sources
        .iter()
        .map(|source| {
            let (attempted, first) = mpsc::channel();
            let task = background.spawn_owned(keep_fresh(Arc::clone(source), attempted));
            (source, first, task)
        })
        .collect();
    let mut tasks = Vec::new();
    for (source, first, task) in waits {
        tasks.push(task);
        let left = deadline.saturating_duration_since(Instant::now());
        if first.recv_timeout(left).is_err() {
            log::warn!(
                "credentials of {}: none after {} s; until they arrive, requests get a 502 response",
                source.login(),
                patience.as_secs()
            );
            source.fail(format!("no response within {} s", patience.as_secs()));
        }
    }
    tasks
}

async fn keep_fresh(source: Arc<Source>, attempted: Sender<()>) {
    let mut refresher = Refresher::new(source);
    let mut attempted = Some(attempted);
    loop {
        let source = Arc::clone(&refresher.source);
        let was_asked = source.begin_load();
        let loaded = load(&source).await;
        let due = refresher.take(loaded, was_asked);
        source.end_load(schedule::until_asked(refresher.failures > 0, refresher.fruitless));
        if let Some(attempted) = attempted.take() {
            // Fails if start-up has stopped waiting.
            let _ = attempted.send(());
        }
        wait(&source, due).await;
    }
}

/// Loads in a task of its own, so that a panic in a provider ends the load, not the refresher.
async fn load(source: &Arc<Source>) -> Result<Credentials, String> {
    let source = Arc::clone(source);
    let task =
        async move { provider::load(source.login(), source.sts_region(), source.proxies()).await };
    let loaded = tokio::spawn(task).await;
    loaded.unwrap_or_else(|_| Err("bug: the load panicked".to_owned()))
}

/// When the next load is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The credentials do not expire.
    Never,
    /// At this time by S3's clock, since 1970.
    AtS3Time(Duration),
    /// After a failure.
    At(Instant),
}

impl Due {
    /// Time left; `None` is never.
    fn left(self, source: &Source) -> Option<Duration> {
        match self {
            Due::Never => None,
            Due::AtS3Time(time) => Some(time.saturating_sub(source.clock().time())),
            Due::At(time) => Some(time.saturating_duration_since(Instant::now())),
        }
    }
}

/// Waits until a load is due, or until one is asked for and may begin.
async fn wait(source: &Source, due: Due) {
    loop {
        let wanted = source.wanted_at().map(|at| at.saturating_duration_since(Instant::now()));
        let left = due.left(source).into_iter().chain(wanted).min();
        if left == Some(Duration::ZERO) {
            return;
        }
        let slice = left.map_or(SLEEP, |left| left.min(SLEEP));
        match wanted {
            Some(_) => tokio::time::sleep(slice).await,
            // The next round sees what was asked for.
            None => drop(tokio::time::timeout(slice, source.asked()).await),
        }
    }
}

/// The state of a source, as last logged.
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

/// Refreshes one source.
struct Refresher {
    source: Arc<Source>,
    health: Health,
    /// Failed loads since the last successful one.
    failures: u32,
    /// Loads in a row that were asked for and brought nothing that S3 accepts.
    fruitless: u32,
    /// The last generation that was asked for.
    asked_generation: u64,
}

impl Refresher {
    fn new(source: Arc<Source>) -> Refresher {
        let asked_generation = NO_GENERATION;
        Refresher { source, health: Health::New, failures: 0, fruitless: 0, asked_generation }
    }

    /// Publishes the loaded credentials, or keeps the current ones after a failure.
    fn take(&mut self, loaded: Result<Credentials, String>, was_asked: bool) -> Due {
        match loaded.and_then(|loaded| self.current(loaded)) {
            Ok(current) => self.succeed(current, was_asked),
            Err(reason) => self.fail(reason),
        }
    }

    /// Checks loaded credentials. Expired ones are an error or, as long as S3 has not told its time,
    /// doubtful: this machine's clock may be wrong.
    fn current(&self, loaded: Credentials) -> Result<Current, String> {
        let clock = self.source.clock();
        let mut current = Current::new(loaded);
        if !current.is_valid_at(clock.seconds()) {
            if clock.was_told_lately() || self.has_valid_set() {
                return Err(format!("those issued were {}", End(current.expiry())));
            }
            current.is_doubtful = true;
        }
        if let Some(known) = self.source.load().as_deref()
            && have_same_keys(&known.credentials, &current.credentials)
            && known.expiry() == current.expiry()
        {
            // Requests that wait for newer credentials must not take these for newer.
            current.generation = known.generation;
        }
        Ok(current)
    }

    fn has_valid_set(&self) -> bool {
        let now = self.source.clock().seconds();
        self.source.load().as_ref().is_some_and(|current| current.is_valid_at(now))
    }

    fn succeed(&mut self, current: Current, was_asked: bool) -> Due {
        self.count_fruitless(&current, was_asked);
        if current.is_doubtful {
            return self.doubt(current);
        }
        self.failures = 0;
        let login = self.source.login();
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
        self.source.publish(current);
        let Some(expires) = expires else { return Due::Never };
        let now = self.source.clock().time();
        let left = expires.saturating_sub(now);
        Due::AtS3Time(now + schedule::until_refresh(left, fastrand::f64()))
    }

    /// Counts a load that was asked for and brought credentials that S3 rejects already, or others
    /// after some that were asked for and that S3 never accepted.
    fn count_fruitless(&mut self, current: &Current, was_asked: bool) {
        if !was_asked {
            self.fruitless = 0;
            return;
        }
        let known = self.source.load();
        let is_fruitless = known.as_ref().is_some_and(|known| {
            let was_asked_for = self.asked_generation == known.generation;
            have_same_keys(&known.credentials, &current.credentials)
                || was_asked_for && !self.source.has_accepted(known.generation)
        });
        drop(known);
        self.fruitless = if is_fruitless { self.fruitless.saturating_add(1) } else { 0 };
        self.asked_generation = current.generation;
    }

    /// Publishes credentials that seem to have expired, and retries as after a failure.
    fn doubt(&mut self, current: Current) -> Due {
        let reason = format!(
            "those issued were {} by this machine's clock, which may be wrong",
            End(current.expiry())
        );
        self.source.publish(current);
        self.fail(reason)
    }

    fn fail(&mut self, reason: String) -> Due {
        self.failures = self.failures.saturating_add(1);
        let now = self.source.clock().time();
        let valid_until = {
            let current = self.source.load();
            let valid = current.as_ref().filter(|current| current.is_valid_at(now.as_secs()));
            valid.map(|current| current.expiry())
        };
        let health = if valid_until.is_some() { Health::Failing } else { Health::Gone };
        if health == self.health {
            let login = self.source.login();
            log::debug!("credentials of {login}: attempt {} failed: {reason}", self.failures);
        } else {
            self.log_failure(&reason, valid_until);
            self.health = health;
        }
        self.source.fail(reason);
        let pause = schedule::until_retry(self.failures, fastrand::f64());
        // Wakes up when the current credentials expire, to log that.
        let pause = match valid_until.flatten().map(Duration::from_secs) {
            Some(end) => pause.min(end.saturating_sub(now)).max(schedule::LEAST_PAUSE),
            None => pause,
        };
        Due::At(Instant::now() + pause)
    }

    /// Logs that there are no valid credentials, or that the current ones cannot be refreshed.
    fn log_failure(&self, reason: &str, valid_until: Option<Option<u64>>) {
        let login = self.source.login();
        let advice = login.advice();
        match (valid_until, self.health) {
            (Some(expires), _) => log::warn!(
                "credentials of {login} cannot be refreshed: {reason}; {advice}. Those in use are {}",
                End(expires)
            ),
            (None, Health::New) => log::error!(
                "credentials of {login} cannot be loaded: {reason}; {advice}. Until there are some, \
                 requests get a 502 response"
            ),
            (None, _) => log::error!(
                "credentials of {login} have expired and cannot be refreshed: {reason}; {advice}. \
                 Until there are others, requests get a 502 response"
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
        Refresher::new(Arc::new(Source::new(Login::Instance, None)))
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
            .source
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
        assert_eq!(refresher.source.failure().as_deref().map(String::as_str), Some("no response"));
        refresher.take(set("B", 3600), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Good, Some("B")));
        assert!(refresher.source.failure().is_none());
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
        let due = refresher.take(down(), false).left(&refresher.source);
        assert_eq!(refresher.health, Health::Gone);
        assert!(due.is_some_and(|left| left <= Duration::from_secs(2)));
        assert!(id(&refresher).is_none());
    }

    #[test]
    fn the_refresher_wakes_up_when_the_credentials_expire() {
        let mut refresher = refresher();
        refresher.take(set("A", 5), false);
        for _ in 0..10 {
            let due = refresher.take(down(), false).left(&refresher.source);
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
        // Something new, and then something new again that S3 never accepted.
        refresher.take(set("C", 3600), true);
        refresher.take(set("D", 3600), true);
        refresher.take(set("E", 3600), true);
        assert_eq!(refresher.fruitless, 5);
        refresher.source.note_accepted(refresher.source.generation());
        refresher.take(set("F", 3600), true);
        assert_eq!(refresher.fruitless, 0);
    }

    #[test]
    fn the_same_credentials_again_are_not_newer() {
        let mut refresher = refresher();
        let end = clock::unix_time();
        let set = |seconds| Ok(set_until("A", end + Duration::from_secs(seconds)));
        refresher.take(set(3600), false);
        let first = refresher.source.generation();
        refresher.take(set(3600), true);
        assert_eq!(refresher.source.generation(), first);
        refresher.take(set(7200), true);
        assert!(refresher.source.generation() > first);
    }

    #[test]
    fn credentials_that_seem_expired_are_left_to_s3_until_it_tells_its_time() {
        let mut refresher = refresher();
        refresher.take(set("A", 0), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Gone, Some("A")));
        let clock = refresher.source.clock();
        assert!(refresher.source.load().as_ref().is_some_and(|set| set.is_usable(clock)));
        // S3 lives an hour ago.
        clock.learn(clock.seconds() - 3600);
        refresher.take(set("B", 0), true);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Good, Some("B")));
        // It agrees with this machine after all.
        refresher.source.clock().learn(clock::unix_seconds() + 1);
        refresher.take(set("C", 0), true);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Gone, Some("B")));
    }
}
