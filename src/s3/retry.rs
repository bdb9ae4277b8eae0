//! When a request is sent again, and how long before (AWS Architecture Blog, "Exponential Backoff
//! And Jitter"; AWS SDKs and Tools Reference Guide, "Retry behavior", standard mode).
//!
//! Pure: time and chance come in as arguments.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What an operator may set about retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Retries of one request; 0 leaves all failures to the client.
    pub retries: u32,
    /// A request is sent again for so long after its first failure.
    pub timeout: Duration,
    /// Retries that one core may make in a row beyond a tenth of its requests.
    pub budget: u32,
}

/// The time is what clients bear without a byte. The least patient of them are IGV, which reads for
/// 3 minutes (`READ_TIMEOUT`), and proxies between us and the client: nginx (`proxy_read_timeout`)
/// and AWS's load balancers wait for 60 s. htslib (samtools, pysam), curl and browsers set no bound
/// of their own. 12 s let an S3 server restart or fail over. When S3 is silent, the first request
/// and the last one take `first_byte_timeout` each besides, which makes 42 s.
///
/// The count is out of reach in that time, unless chance makes all waits short.
///
/// The budget lets sixty clients at once wait for some seconds.
impl Default for Settings {
    fn default() -> Settings {
        Settings { retries: 30, timeout: Duration::from_secs(12), budget: 500 }
    }
}

/// Longest wait before the first retry; twice as long before each later one.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait of all: an S3 that is well again is noticed after half of it, on average.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Requests that earn one retry. An outage thus adds a tenth to S3's load, and not a multiple.
const REQUESTS_PER_RETRY: u32 = 10;

/// The retries that one core may still make.
pub struct Budget {
    /// In units of a request, of which [`REQUESTS_PER_RETRY`] pay for one retry.
    balance: Cell<u32>,
    most: u32,
}

impl Budget {
    /// A full budget.
    pub fn new(settings: &Settings) -> Budget {
        let most = settings.budget.saturating_mul(REQUESTS_PER_RETRY);
        Budget { balance: Cell::new(most), most }
    }

    /// Counts a request that S3 answered.
    pub fn earn(&self) {
        self.add(1);
    }

    fn add(&self, units: u32) {
        self.balance.set(self.most.min(self.balance.get().saturating_add(units)));
    }

    fn spend(&self) -> bool {
        let left = self.balance.get().checked_sub(REQUESTS_PER_RETRY);
        left.inspect(|&left| self.balance.set(left)).is_some()
    }
}

/// The retries of one request, or of one body from one byte on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tries {
    first_failure: Option<Instant>,
    retries: u32,
    /// The last retry was paid from the budget.
    is_paid: bool,
}

/// Why a request is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveUp {
    /// As many retries as may be were made.
    #[error("after {0} retries")]
    Retries(u32),
    /// They took as long as they may.
    #[error("after retries for {0:?} (retry_timeout)")]
    Time(Duration),
    /// S3 wants to be left alone for longer than they may take.
    #[error("since S3 wants no request for the next {0:?} (Retry-After)")]
    TooSoon(Duration),
    /// Too many requests of this core failed.
    #[error("since the retries of this worker are used up (retry_budget)")]
    Budget,
}

impl Tries {
    /// The request has failed: how long to wait before it is sent again. `at_least` is what S3
    /// asked for; `chance` is between 0 and 1. A retry without a `budget` costs nothing.
    ///
    /// # Errors
    /// Why it is not sent again.
    pub fn next(
        &mut self,
        settings: &Settings,
        budget: Option<&Budget>,
        now: Instant,
        at_least: Duration,
        chance: f64,
    ) -> Result<Duration, GiveUp> {
        let first_failure = *self.first_failure.get_or_insert(now);
        let left = settings.timeout.saturating_sub(now.duration_since(first_failure));
        if self.retries >= settings.retries {
            return Err(GiveUp::Retries(self.retries));
        }
        if left.is_zero() {
            return Err(GiveUp::Time(settings.timeout));
        }
        if at_least > left {
            return Err(GiveUp::TooSoon(at_least));
        }
        if !budget.is_none_or(Budget::spend) {
            return Err(GiveUp::Budget);
        }
        self.is_paid = budget.is_some();
        let longest = FIRST_WAIT.saturating_mul(1 << self.retries.min(16)).min(LONGEST_WAIT);
        self.retries += 1;
        // The last retry is the one at the end of the time.
        Ok((at_least + longest.mul_f64(chance.clamp(0.0, 1.0))).min(left))
    }

    /// The request has succeeded: its last retry costs nothing then, and a later failure is
    /// another one.
    pub fn succeed(&mut self, budget: &Budget) {
        if self.is_paid {
            budget.add(REQUESTS_PER_RETRY);
        }
        *self = Tries::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_MATTER: Duration = Duration::ZERO;

    fn settings() -> Settings {
        Settings { retries: 3, timeout: Duration::from_secs(10), budget: 2 }
    }

    #[test]
    fn waits_grow_and_are_cut_by_chance_until_the_retries_are_used_up() {
        let settings = Settings { budget: 100, ..settings() };
        let (budget, now) = (Budget::new(&settings), Instant::now());
        let mut tries = Tries::default();
        let waits = [(1.0, 100), (1.0, 200), (0.5, 200)];
        for (chance, ms) in waits {
            let wait = tries.next(&settings, Some(&budget), now, NO_MATTER, chance);
            assert_eq!(wait, Ok(Duration::from_millis(ms)));
        }
        let wait = tries.next(&settings, Some(&budget), now, NO_MATTER, 0.0);
        assert_eq!(wait, Err(GiveUp::Retries(3)));
    }

    #[test]
    fn the_last_retry_is_at_the_end_of_the_time_which_begins_with_the_first_failure() {
        let (settings, start) = (settings(), Instant::now());
        let budget = Budget::new(&settings);
        let mut tries = Tries::default();
        assert!(tries.next(&settings, Some(&budget), start, NO_MATTER, 1.0).is_ok());
        let late = start + Duration::from_millis(9_950);
        let wait = tries.next(&settings, Some(&budget), late, NO_MATTER, 1.0);
        assert_eq!(wait, Ok(Duration::from_millis(50)));
        let over = start + Duration::from_secs(10);
        let wait = tries.next(&settings, Some(&budget), over, NO_MATTER, 0.0);
        assert_eq!(wait, Err(GiveUp::Time(Duration::from_secs(10))));
    }

    #[test]
    fn s3_may_ask_for_a_longer_wait_within_the_time() {
        let (settings, now) = (settings(), Instant::now());
        let budget = Budget::new(&settings);
        let (fits, too_long) = (Duration::from_secs(10), Duration::from_secs(11));
        let wait = |at_least, chance| {
            Tries::default().next(&settings, Some(&budget), now, at_least, chance)
        };
        assert_eq!(wait(Duration::from_secs(2), 0.5), Ok(Duration::from_millis(2_050)));
        assert_eq!(wait(too_long, 0.0), Err(GiveUp::TooSoon(too_long)), "and costs nothing");
        assert_eq!(wait(fits, 1.0), Ok(fits));
    }

    #[test]
    fn the_default_waits_fill_the_default_time() {
        let settings = Settings { budget: 1_000_000, ..Settings::default() };
        let budget = Budget::new(&settings);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..1000 {
            let start = Instant::now();
            let (mut tries, mut now) = (Tries::default(), start);
            while let Ok(wait) = tries.next(&settings, Some(&budget), now, NO_MATTER, rng.f64()) {
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
                Tries::default().next(&settings, Some(&budget), now, NO_MATTER, 0.0).is_ok()
            };
            (0..requests).filter(retry).count()
        };
        assert_eq!(retries(100), 2);
        (0..25).for_each(|_| budget.earn());
        assert_eq!(retries(100), 2);
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(retries(100), 2, "the balance is bounded");
    }

    /// The share of requests that fail in the end when so many fail each time.
    fn failing(chance: f64, settings: &Settings) -> f64 {
        const REQUESTS: u32 = 100_000;
        let (budget, now) = (Budget::new(settings), Instant::now());
        let mut rng = fastrand::Rng::with_seed(1);
        let mut request = || {
            let mut tries = Tries::default();
            while rng.f64() < chance {
                if tries.next(settings, Some(&budget), now, NO_MATTER, 0.0).is_err() {
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
    fn a_retry_that_succeeds_gives_its_cost_back() {
        let three = Settings { retries: 3, ..Settings::default() };
        let failed = failing(0.2, &three);
        assert!((0.0008..0.0025).contains(&failed), "one in 5^4, but {failed}");
        assert!(failing(0.2, &Settings::default()) == 0.0);
        let failed = failing(1.0, &Settings::default());
        assert!(failed == 1.0, "{failed}");
    }
}
