//! Keeps credentials fresh: one task per source, all of them on the side thread.
//!
//! A set is renewed well before its end. While that fails, the last good set stays in use for as
//! long as it is valid, and attempts go on with growing pauses. An operator is told of changes
//! only: when there is a first set, when a renewal fails, when the last set has ended, and when
//! all is well again.

mod failure;
mod provider;
mod proxied;
mod schedule;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clock::{self, CivilTime};
use crate::s3::refresh::provider::Loaded;
use crate::s3::source::{Current, Source};
use crate::sys::side::Side;

/// Longest sleep. The clock that sleeps are measured with stands still while a machine is
/// suspended, and the one that credentials end by does not.
const SLEEP: Duration = Duration::from_secs(30);

/// Starts renewing `sources`, and waits up to `patience` for the first attempt of each.
pub fn start(side: &Side, sources: &[Arc<Source>], patience: Duration) {
    let deadline = Instant::now() + patience;
    let waits: Vec<_> = sources
        .iter()
        .map(|source| {
            let (attempted, first) = mpsc::channel();
            side.spawn(keep_fresh(Arc::clone(source), attempted));
            (source, first)
        })
        .collect();
    for (source, first) in waits {
        let left = deadline.saturating_duration_since(Instant::now());
        if first.recv_timeout(left).is_err() {
            log::warn!(
                "credentials of {}: none after {} s; until they come, requests are answered 502",
                source.login(),
                patience.as_secs()
            );
            source.fail(format!("no answer within {} s", patience.as_secs()));
        }
    }
}

async fn keep_fresh(source: Arc<Source>, attempted: Sender<()>) {
    let mut refresher = Refresher { source, health: Health::New, failures: 0, in_vain: 0 };
    let mut attempted = Some(attempted);
    let mut was_asked = false;
    loop {
        let began = clock::unix_time();
        let source = Arc::clone(&refresher.source);
        let loaded = load(&source).await;
        source.hear();
        let due = refresher.take(loaded, was_asked);
        if let Some(attempted) = attempted.take() {
            // It fails where start-up has stopped waiting.
            let _ = attempted.send(());
        }
        let earliest = began + schedule::until_asked(refresher.in_vain);
        was_asked = wait(&source, due, earliest).await;
    }
}

/// Loads in a task of its own: a defect in what others wrote ends the load, not the renewing.
async fn load(source: &Arc<Source>) -> Result<Loaded, String> {
    let source = Arc::clone(source);
    let task =
        async move { provider::load(source.login(), source.sts_region(), source.proxies()).await };
    let loaded = tokio::spawn(task).await;
    loaded.unwrap_or_else(|_| Err("loading them ended by a defect of s3proxy".to_owned()))
}

/// Waits for the time that a load is due, if it ever is, or until one is asked for, but not
/// before `earliest`; `true` where it was asked for. All times are counted from 1970.
async fn wait(source: &Source, due: Option<Duration>, earliest: Duration) -> bool {
    let mut was_asked = false;
    loop {
        let until = match (due, was_asked) {
            (Some(due), true) => Some(due.min(earliest)),
            (due, false) => due,
            (None, true) => Some(earliest),
        };
        let left = until.map(|until| until.saturating_sub(clock::unix_time()));
        if left == Some(Duration::ZERO) {
            return was_asked;
        }
        let slice = left.map_or(SLEEP, |left| left.min(SLEEP));
        if was_asked {
            tokio::time::sleep(slice).await;
        } else {
            was_asked = tokio::time::timeout(slice, source.asked()).await.is_ok();
        }
    }
}

/// How a source is doing, as far as an operator was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Nothing has been tried yet.
    New,
    /// There is a set, and the last attempt to renew it did not fail.
    Good,
    /// The last attempt failed; the set before it is still valid.
    Failing,
    /// There is no valid set.
    Gone,
}

/// What one source has been through.
struct Refresher {
    source: Arc<Source>,
    health: Health,
    /// Attempts that failed since the last that did not.
    failures: u32,
    /// Loads in a row that were asked for and brought nothing new.
    in_vain: u32,
}

impl Refresher {
    /// Publishes what was loaded, or keeps what there is; when the next load is due, counted from
    /// 1970, if it ever is.
    fn take(&mut self, loaded: Result<Loaded, String>, was_asked: bool) -> Option<Duration> {
        let now = clock::unix_time();
        match loaded.and_then(|loaded| still_valid(loaded, now)) {
            Ok(loaded) => self.succeed(loaded, was_asked, now),
            Err(reason) => Some(self.fail(reason, now)),
        }
    }

    fn succeed(&mut self, loaded: Loaded, was_asked: bool, now: Duration) -> Option<Duration> {
        let Loaded { credentials, expires } = loaded;
        let expires = expires.map(since_1970);
        let is_known = {
            let current = self.source.load();
            current.as_ref().is_some_and(|current| current.credentials == credentials)
        };
        self.in_vain = if is_known && was_asked { self.in_vain.saturating_add(1) } else { 0 };
        self.failures = 0;
        let login = self.source.login();
        let end = End(expires.map(|end| end.as_secs()));
        match self.health {
            Health::New | Health::Gone => {
                let id = &credentials.access_key_id;
                log::info!("credentials of {login}: access key {id}, {end}");
            }
            Health::Failing => log::info!("credentials of {login}: renewed again, {end}"),
            Health::Good => log::debug!("credentials of {login}: renewed, {end}"),
        }
        self.health = Health::Good;
        self.source.publish(Current::new(credentials, expires.map(|end| end.as_secs())));
        let left = expires?.saturating_sub(now);
        Some(now + schedule::until_refresh(left, fastrand::f64()))
    }

    fn fail(&mut self, reason: String, now: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let valid_until = {
            let current = self.source.load();
            let valid = current.as_ref().filter(|current| current.is_valid_at(now.as_secs()));
            valid.map(|current| current.expires)
        };
        let login = self.source.login();
        let health = if valid_until.is_some() { Health::Failing } else { Health::Gone };
        if health != self.health {
            let advice = login.advice();
            match (valid_until, self.health) {
                (Some(expires), _) => log::warn!(
                    "credentials of {login} cannot be renewed: {reason}; {advice}. Those in use \
                     are {}",
                    End(expires)
                ),
                (None, Health::New) => log::error!(
                    "credentials of {login} cannot be had: {reason}; {advice}. Until there are \
                     some, requests are answered 502"
                ),
                (None, _) => log::error!(
                    "credentials of {login} have expired and cannot be renewed: {reason}; \
                     {advice}. Until there are others, requests are answered 502"
                ),
            }
            self.health = health;
        } else {
            log::debug!("credentials of {login}: attempt {} failed: {reason}", self.failures);
        }
        self.source.fail(reason);
        let retry = now + schedule::until_retry(self.failures, fastrand::f64());
        // The moment in which the last set ends is not slept through: it is to be told of.
        match valid_until.flatten().map(Duration::from_secs) {
            Some(end) => retry.min(end).max(now + schedule::LEAST_PAUSE),
            None => retry,
        }
    }
}

/// Refuses a set that has ended already.
fn still_valid(loaded: Loaded, now: Duration) -> Result<Loaded, String> {
    match loaded.expires.map(since_1970) {
        // Whole seconds, as on the cores.
        Some(end) if end.as_secs() <= now.as_secs() => {
            Err(format!("those given out were {}", End(Some(end.as_secs()))))
        }
        _ => Ok(loaded),
    }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `valid until 2026-11-24T03:30:56Z`; in seconds since 1970.
struct End(Option<u64>);

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(end) = self.0 else { return f.write_str("valid without an end") };
        let CivilTime { year, month, day, hour, minute, second } = CivilTime::new(end);
        write!(f, "valid until {year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::credentials::Credentials;
    use crate::s3::login::Login;

    fn refresher() -> Refresher {
        let source = Arc::new(Source::new(Login::Instance, None));
        Refresher { source, health: Health::New, failures: 0, in_vain: 0 }
    }

    fn set(id: &str, seconds: u64) -> Result<Loaded, String> {
        let credentials = Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: "SECRET".to_owned(),
            session_token: None,
        };
        let expires = UNIX_EPOCH + clock::unix_time() + Duration::from_secs(seconds);
        Ok(Loaded { credentials, expires: Some(expires) })
    }

    fn down() -> Result<Loaded, String> {
        Err("no answer".to_owned())
    }

    fn id(refresher: &Refresher) -> Option<String> {
        refresher.source.load().as_ref().map(|current| current.credentials.access_key_id.clone())
    }

    #[test]
    fn the_last_good_set_is_kept_while_it_is_valid() {
        let mut refresher = refresher();
        refresher.take(set("A", 3600), false);
        refresher.take(down(), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Failing, Some("A")));
        assert_eq!(refresher.source.failure().as_deref().map(String::as_str), Some("no answer"));
        refresher.take(set("B", 3600), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Good, Some("B")));
        assert!(refresher.source.failure().is_none());
    }

    #[test]
    fn a_set_that_has_ended_does_not_take_the_place_of_a_valid_one() {
        let mut refresher = refresher();
        refresher.take(set("A", 3600), false);
        refresher.take(set("B", 0), false);
        assert_eq!((refresher.health, id(&refresher).as_deref()), (Health::Failing, Some("A")));
    }

    #[test]
    fn without_any_set_the_source_is_gone_and_tries_again_soon() {
        let mut refresher = refresher();
        let due = refresher.take(down(), false).expect("it goes on trying");
        assert_eq!(refresher.health, Health::Gone);
        assert!(due <= clock::unix_time() + Duration::from_secs(2));
        assert!(id(&refresher).is_none());
    }

    #[test]
    fn the_end_of_the_last_set_is_not_slept_through() {
        let mut refresher = refresher();
        refresher.take(set("A", 5), false);
        for _ in 0..10 {
            let due = refresher.take(down(), false).expect("it goes on trying");
            assert!(due <= clock::unix_time() + Duration::from_secs(5));
        }
    }

    #[test]
    fn what_is_asked_for_in_vain_is_counted_until_something_new_comes() {
        let mut refresher = refresher();
        refresher.take(set("A", 3600), false);
        refresher.take(set("A", 3600), true);
        refresher.take(set("A", 3600), true);
        assert_eq!(refresher.in_vain, 2);
        refresher.take(set("B", 3600), true);
        assert_eq!(refresher.in_vain, 0);
    }
}
