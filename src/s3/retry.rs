//! Retries with exponential backoff, jitter and a budget (AWS Architecture Blog, "Exponential
//! Backoff And Jitter"; AWS SDKs and Tools Reference Guide, "Retry behavior", standard mode).
//!
//! Pure: time and randomness come in as arguments.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The limits of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Retries of one request; 0 disables them.
    pub retries: u32,
    /// A request is retried for this long after its first failure.
    pub timeout: Duration,
    /// Retries that one worker may make in a burst, beyond a tenth of its requests.
    pub budget: u32,
}

/// The timeout stays below the time that clients wait for a first byte. The least patient are IGV
/// with 3 minutes (`READ_TIMEOUT`) and proxies between us and the client: nginx
/// (`proxy_read_timeout`) and AWS's load balancers wait for 60 s. htslib (samtools, pysam), curl
/// and browsers have no timeout. 12 s are enough for an S3 server to restart or fail over. If S3 is
/// silent, the first and the last request take `first_byte_timeout` each, which makes 42 s in all.
///
/// The count is not reached in that time unless jitter makes all waits short.
///
/// The budget lets sixty clients at once retry for some seconds.
impl Default for Settings {
    fn default() -> Settings {
        Settings { retries: 30, timeout: Duration::from_secs(12), budget: 500 }
    }
}

/// Longest wait before the first retry; it doubles with each retry.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait of all. A recovery of S3 is noticed after half of it, on average.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// Requests that earn one retry, so that retries during an outage add a tenth to S3's load and do
/// not multiply it.
const REQUESTS_PER_RETRY: u32 = 10;

/// The retries that one worker may still make.
pub(crate) struct Budget {
    /// In units of a request, of which [`REQUESTS_PER_RETRY`] pay for one retry.
    balance: Cell<u32>,
    most: Cell<u32>,
}

impl Budget {
    /// A full budget.
    pub(crate) fn new(settings: &Settings) -> Budget {
        let most = units(settings);
        Budget { balance: Cell::new(most), most: Cell::new(most) }
    }

    /// Takes over a reloaded limit; the spent part of the budget stays spent.
    pub(crate) fn adopt(&self, settings: &Settings) {
        let most = units(settings);
        let spent = self.most.replace(most).saturating_sub(self.balance.get());
        self.balance.set(most.saturating_sub(spent));
    }

    /// Counts a request that S3 responded to.
    pub(crate) fn earn(&self) {
        self.add(1);
    }

    fn add(&self, units: u32) {
        self.balance.set(self.most.get().min(self.balance.get().saturating_add(units)));
    }

    fn spend(&self) -> bool {
        let left = self.balance.get().checked_sub(REQUESTS_PER_RETRY);
        left.inspect(|&left| self.balance.set(left)).is_some()
    }
}

fn units(settings: &Settings) -> u32 {
    settings.budget.saturating_mul(REQUESTS_PER_RETRY)
}

/// The retries of one request, or of resuming one body at one position.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    first_failure: Option<Instant>,
    retries: u32,
    /// The last retry was taken from the budget.
    is_paid: bool,
}

/// The reason for which a request is not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRetry {
    /// All retries were made.
    #[error("after {0} retries")]
    Retries(u32),
    /// The timeout has passed.
    #[error("after retries for {0:?} (retry_timeout)")]
    Time(Duration),
    /// S3's `Retry-After` is longer than the rest of the timeout.
    #[error("because S3 asks for a pause of {0:?} (Retry-After)")]
    RetryAfter(Duration),
    /// Too many requests of this worker failed.
    #[error("because this worker's retry budget is used up (retry_budget)")]
    Budget,
}

impl Tries {
    /// Notes a failure and returns the wait before the retry. `at_least` is S3's
    /// `Retry-After`, `chance` a random number between 0 and 1. Without a `budget` the retry is
    /// free.
    ///
    /// # Errors
    /// See [`NoRetry`].
    pub(crate) fn next(
        &mut self,
        settings: &Settings,
        budget: Option<&Budget>,
        now: Instant,
        at_least: Duration,
        chance: f64,
    ) -> Result<Duration, NoRetry> {
        let first_failure = *self.first_failure.get_or_insert(now);
        let left = settings.timeout.saturating_sub(now.duration_since(first_failure));
        if self.retries >= settings.retries {
            return Err(NoRetry::Retries(self.retries));
        }
        if left.is_zero() {
            return Err(NoRetry::Time(settings.timeout));
        }
        if at_least > left {
            return Err(NoRetry::RetryAfter(at_least));
        }
        if !budget.is_none_or(Budget::spend) {
            return Err(NoRetry::Budget);
        }
        self.is_paid = budget.is_some();
        let longest = FIRST_WAIT.saturating_mul(1 << self.retries.min(16)).min(MAX_WAIT);
        self.retries += 1;
        // The last retry comes at the end of the timeout.
        Ok((at_least + longest.mul_f64(chance.clamp(0.0, 1.0))).min(left))
    }

    /// Notes a success: refunds the last retry, and gives a later failure all retries again.
    pub(crate) fn succeed(&mut self, budget: &Budget) {
        if self.is_paid {
            budget.add(REQUESTS_PER_RETRY);
        }
        *self = Tries::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_RETRY_AFTER: Duration = Duration::ZERO;

    fn settings() -> Settings {
        Settings { retries: 3, timeout: Duration::from_secs(10), budget: 2 }
    }

    #[test]
    fn waits_grow_with_jitter_until_the_retries_are_used_up() {
        let settings = Settings { budget: 100, ..settings() };
        let (budget, now) = (Budget::new(&settings), Instant::now());
        let mut tries = Tries::default();
        let waits = [(1.0, 100), (1.0, 200), (0.5, 200)];
        for (chance, ms) in waits {
            let wait = tries.next(&settings, Some(&budget), now, NO_RETRY_AFTER, chance);
            assert_eq!(wait, Ok(Duration::from_millis(ms)));
        }
        let wait = tries.next(&settings, Some(&budget), now, NO_RETRY_AFTER, 0.0);
        assert_eq!(wait, Err(NoRetry::Retries(3)));
    }

    #[test]
    fn the_last_retry_is_at_the_end_of_the_timeout_which_begins_with_the_first_failure() {
        let (settings, start) = (settings(), Instant::now());
        let budget = Budget::new(&settings);
        let mut tries = Tries::default();
        assert!(tries.next(&settings, Some(&budget), start, NO_RETRY_AFTER, 1.0).is_ok());
        let late = start + Duration::from_millis(9_950);
        let wait = tries.next(&settings, Some(&budget), late, NO_RETRY_AFTER, 1.0);
        assert_eq!(wait, Ok(Duration::from_millis(50)));
        let over = start + Duration::from_secs(10);
        let wait = tries.next(&settings, Some(&budget), over, NO_RETRY_AFTER, 0.0);
        assert_eq!(wait, Err(NoRetry::Time(Duration::from_secs(10))));
    }

    #[test]
    fn s3_may_ask_for_a_longer_wait_within_the_timeout() {
        let (settings, now) = (settings(), Instant::now());
        let budget = Budget::new(&settings);
        let (fits, too_long) = (Duration::from_secs(10), Duration::from_secs(11));
        let wait = |at_least, chance| {
            Tries::default().next(&settings, Some(&budget), now, at_least, chance)
        };
        assert_eq!(wait(Duration::from_secs(2), 0.5), Ok(Duration::from_millis(2_050)));
        assert_eq!(wait(too_long, 0.0), Err(NoRetry::RetryAfter(too_long)), "and costs nothing");
        assert_eq!(wait(fits, 1.0), Ok(fits));
    }

    #[test]
    fn the_default_waits_fill_the_default_timeout() {
        let settings = Settings { budget: 1_000_000, ..Settings::default() };
        let budget = Budget::new(&settings);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..1000 {
            let start = Instant::now();
            let (mut tries, mut now) = (Tries::default(), start);
            while let Ok(wait) =
                tries.next(&settings, Some(&budget), now, NO_RETRY_AFTER, rng.f64())
            {
                now += wait;
            }
            assert!(now - start > Duration::from_secs(10), "given up after {:?}", now - start);
            assert!(now - start <= settings.timeout && tries.retries >= 8, "{tries:?}");
        }
    }

    #[test]
    fn an_outage_is_not_multiplied() {
        let (settings, now) = (settings(), Instant::now());
        let budget = Budget::new(&settings);
        let retries = |requests: u32| {
            let retry = |_: &u32| {
                Tries::default().next(&settings, Some(&budget), now, NO_RETRY_AFTER, 0.0).is_ok()
            };
            (0..requests).filter(retry).count()
        };
        assert_eq!(retries(100), 2);
        (0..25).for_each(|_| budget.earn());
        assert_eq!(retries(100), 2);
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(retries(100), 2, "the balance is bounded");
    }

    #[test]
    fn another_budget_keeps_what_was_spent() {
        let with = |budget| Settings { budget, ..settings() };
        let budget = Budget::new(&with(3));
        let spend = || std::iter::repeat_with(|| budget.spend()).take_while(|&spent| spent).count();
        assert!(budget.spend());
        budget.adopt(&with(5));
        assert_eq!(spend(), 4);
        budget.adopt(&with(2));
        assert_eq!(spend(), 0);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spend(), 2);
    }

    /// The share of requests that fail in spite of retries, if each attempt fails with `chance`.
    fn failing(chance: f64, settings: &Settings) -> f64 {
        const REQUESTS: u32 = 100_000;
        let (budget, now) = (Budget::new(settings), Instant::now());
        let mut rng = fastrand::Rng::with_seed(1);
        let mut request = || {
            let mut tries = Tries::default();
            while rng.f64() < chance {
                if tries.next(settings, Some(&budget), now, NO_RETRY_AFTER, 0.0).is_err() {
                    return false;
                }
            }
            budget.earn();
            tries.succeed(&budget);
            true
        };
        f64::from((0..REQUESTS).filter(|_| !request()).count() as u32) / f64::from(REQUESTS)
    }

    #[test]
    fn a_retry_that_succeeds_is_refunded() {
        let three = Settings { retries: 3, ..Settings::default() };
        let failed = failing(0.2, &three);
        assert!((0.0008..0.0025).contains(&failed), "one in 5^4, but {failed}");
        assert!(failing(0.2, &Settings::default()) == 0.0);
        let failed = failing(1.0, &Settings::default());
        assert!((failed - 1.0).abs() < f64::EPSILON, "{failed}");
    }
}
