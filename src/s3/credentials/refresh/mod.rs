//! Keeps credentials fresh: one task per source, all of them on the side thread.
//!
//! A set is renewed well before its end. While that fails, the last good set stays in use for as
//! long as it is valid, and attempts go on with growing pauses. An operator is told of changes
//! only: when there is a first set, when a renewal fails, when the last set has ended, and when
//! all is well again.
//!
//! Requests ask for a load when they find no valid set or S3 refuses the one there is: it then
//! begins at once, unless others that were asked for just before did not help.

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

/// Longest sleep. The clock that sleeps are measured with stands still while a machine is
/// suspended, and the one that credentials end by does not.
const SLEEP: Duration = Duration::from_secs(30);

/// Starts refreshing `sources`, until their tasks are dropped, and waits up to `patience` for the
/// first attempt of each.
pub fn start(background: &Background, sources: &[Arc<Source>], patience: Duration) -> Vec<Task> {
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
                "credentials of {}: none after {} s; until they come, requests are answered 502",
                source.login(),
                patience.as_secs()
            );
            source.fail(format!("no answer within {} s", patience.as_secs()));
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
        source.end_load(schedule::until_asked(refresher.failures > 0, refresher.in_vain));
        if let Some(attempted) = attempted.take() {
            // It fails where start-up has stopped waiting.
            let _ = attempted.send(());
        }
        wait(&source, due).await;
    }
}

/// Loads in a task of its own: a defect in what others wrote ends the load, not the renewing.
async fn load(source: &Arc<Source>) -> Result<Credentials, String> {
    let source = Arc::clone(source);
    let task =
        async move { provider::load(source.login(), source.sts_region(), source.proxies()).await };
    let loaded = tokio::spawn(task).await;
    loaded.unwrap_or_else(|_| Err("loading them ended by a defect of s3proxy".to_owned()))
}

/// When the next load is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// What there is does not end.
    Never,
    /// At this time of S3, since 1970.
    AtS3Time(Duration),
    /// After a failure.
    At(Instant),
}

impl Due {
    /// Time until then; `None` is never.
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
            // Who asks has said so before; that it was asked is seen in the next round.
            None => drop(tokio::time::timeout(slice, source.asked()).await),
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
    /// Loads in a row that were asked for and did not help.
    in_vain: u32,
    /// The generation of the last set that was asked for.
    asked_generation: u64,
}

impl Refresher {
    fn new(source: Arc<Source>) -> Refresher {
        let asked_generation = NO_GENERATION;
        Refresher { source, health: Health::New, failures: 0, in_vain: 0, asked_generation }
    }

    /// Publishes what was loaded, or keeps what there is.
    fn take(&mut self, loaded: Result<Credentials, String>, was_asked: bool) -> Due {
        match loaded.and_then(|loaded| self.current(loaded)) {
            Ok(current) => self.succeed(current, was_asked),
            Err(reason) => self.fail(reason),
        }
    }

    /// What was loaded as a set to use. One that has ended already is refused or, as long as S3 has
    /// not told its time, doubtful: this machine's clock may be what is wrong.
    fn current(&self, loaded: Credentials) -> Result<Current, String> {
        let clock = self.source.clock();
        let mut current = Current::new(loaded);
        if !current.is_valid_at(clock.seconds()) {
            if clock.was_told_lately() || self.has_valid_set() {
                return Err(format!("those given out were {}", End(current.expiry())));
            }
            current.is_doubtful = true;
        }
        if let Some(known) = self.source.load().as_deref()
            && have_same_keys(&known.credentials, &current.credentials)
            && known.expiry() == current.expiry()
        {
            // Who waits for a newer set is not to take it for one.
            current.generation = known.generation;
        }
        Ok(current)
    }

    fn has_valid_set(&self) -> bool {
        let now = self.source.clock().seconds();
        self.source.load().as_ref().is_some_and(|current| current.is_valid_at(now))
    }

    fn succeed(&mut self, current: Current, was_asked: bool) -> Due {
        self.count_in_vain(&current, was_asked);
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
            Health::Failing => log::info!("credentials of {login}: renewed again, {end}"),
            Health::Good => log::debug!("credentials of {login}: renewed, {end}"),
        }
        self.health = Health::Good;
        let expires = current.expiry().map(Duration::from_secs);
        self.source.publish(current);
        let Some(expires) = expires else { return Due::Never };
        let now = self.source.clock().time();
        let left = expires.saturating_sub(now);
        Due::AtS3Time(now + schedule::until_refresh(left, fastrand::f64()))
    }

    /// Counts a load that was asked for and brought what is refused already, or the next set in the
    /// place of one that was asked for and that S3 never accepted.
    fn count_in_vain(&mut self, current: &Current, was_asked: bool) {
        if !was_asked {
            self.in_vain = 0;
            return;
        }
        let known = self.source.load();
        let is_in_vain = known.as_ref().is_some_and(|known| {
            let was_asked_for = self.asked_generation == known.generation;
            have_same_keys(&known.credentials, &current.credentials)
                || was_asked_for && !self.source.has_accepted(known.generation)
        });
        drop(known);
        self.in_vain = if is_in_vain { self.in_vain.saturating_add(1) } else { 0 };
        self.asked_generation = current.generation;
    }

    /// Publishes a set that seems to have ended, and goes on as after a failure.
    fn doubt(&mut self, current: Current) -> Due {
        let reason = format!(
            "those given out were {} by this machine's clock, which S3's may contradict",
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
            self.tell_of_failure(&reason, valid_until);
            self.health = health;
        }
        self.source.fail(reason);
        let pause = schedule::until_retry(self.failures, fastrand::f64());
        // The moment in which the last set ends is not slept through: it is to be told of.
        let pause = match valid_until.flatten().map(Duration::from_secs) {
            Some(end) => pause.min(end.saturating_sub(now)).max(schedule::LEAST_PAUSE),
            None => pause,
        };
        Due::At(Instant::now() + pause)
    }

    /// Tells an operator that there is no set any more, or that the one there is will be the last.
    fn tell_of_failure(&self, reason: &str, valid_until: Option<Option<u64>>) {
        let login = self.source.login();
        let advice = login.advice();
        match (valid_until, self.health) {
            (Some(expires), _) => log::warn!(
                "credentials of {login} cannot be renewed: {reason}; {advice}. Those in use are {}",
                End(expires)
            ),
            (None, Health::New) => log::error!(
                "credentials of {login} cannot be had: {reason}; {advice}. Until there are some, \
                 requests are answered 502"
            ),
            (None, _) => log::error!(
                "credentials of {login} have expired and cannot be renewed: {reason}; {advice}. \
                 Until there are others, requests are answered 502"
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
            None => f.write_str("valid without an end"),
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

    fn set(id: &str, seconds: u64) -> Result<Credentials, String> {
        Ok(set_until(id, clock::unix_time() + Duration::from_secs(seconds)))
    }

    fn set_until(id: &str, since_1970: Duration) -> Credentials {
        Credentials::new(id, "SECRET", None, Some(UNIX_EPOCH + since_1970), "test")
    }

    fn down() -> Result<Credentials, String> {
        Err("no answer".to_owned())
    }

    fn id(refresher: &Refresher) -> Option<String> {
        refresher
            .source
            .load()
            .as_ref()
            .map(|current| current.credentials.access_key_id().to_owned())
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
        let due = refresher.take(down(), false).left(&refresher.source);
        assert_eq!(refresher.health, Health::Gone);
        assert!(due.is_some_and(|left| left <= Duration::from_secs(2)));
        assert!(id(&refresher).is_none());
    }

    #[test]
    fn the_end_of_the_last_set_is_not_slept_through() {
        let mut refresher = refresher();
        refresher.take(set("A", 5), false);
        for _ in 0..10 {
            let due = refresher.take(down(), false).left(&refresher.source);
            assert!(due.is_some_and(|left| left <= Duration::from_secs(5)));
        }
    }

    #[test]
    fn what_is_asked_for_in_vain_is_counted_until_something_new_comes() {
        let mut refresher = refresher();
        refresher.take(set("A", 3600), false);
        refresher.take(set("A", 3600), true);
        refresher.take(set("A", 3600), true);
        assert_eq!(refresher.in_vain, 2);
        // Something new, and then something new again that S3 never accepted.
        refresher.take(set("C", 3600), true);
        refresher.take(set("D", 3600), true);
        refresher.take(set("E", 3600), true);
        assert_eq!(refresher.in_vain, 5);
        refresher.source.note_accepted(refresher.source.generation());
        refresher.take(set("F", 3600), true);
        assert_eq!(refresher.in_vain, 0);
    }

    #[test]
    fn what_is_loaded_again_is_no_newer_set() {
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
    fn a_set_that_seems_to_have_ended_is_left_to_s3_as_long_as_it_has_not_told_its_time() {
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
