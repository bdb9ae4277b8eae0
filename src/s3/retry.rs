//! When a request is tried again, and how long before (AWS Architecture Blog, "Exponential Backoff
//! And Jitter"; AWS SDKs and Tools Reference Guide, "Retry behavior").
//!
//! Pure: time and chance come in as arguments.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What an operator may set about retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Tries after the first one; 0 never tries again.
    pub retries: u32,
    /// A request is not tried again when this time has passed since its first try.
    pub timeout: Duration,
    /// Retries that one core may make in a row beyond a tenth of its requests.
    pub budget: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { retries: 3, timeout: Duration::from_secs(45), budget: 100 }
    }
}

/// Longest wait before the second try; twice as long before each later one.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait of all.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

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

    /// Counts a request that was answered.
    pub fn earn(&self) {
        self.balance.set(self.most.min(self.balance.get().saturating_add(1)));
    }

    fn spend(&self) -> bool {
        let left = self.balance.get().checked_sub(REQUESTS_PER_RETRY);
        left.inspect(|&left| self.balance.set(left)).is_some()
    }
}

/// The tries of one request.
#[derive(Clone, Copy, Debug)]
pub struct Tries {
    started: Instant,
    failed: u32,
}

impl Tries {
    /// The first try starts now.
    pub fn new(now: Instant) -> Tries {
        Tries { started: now, failed: 0 }
    }

    /// A try has failed: how long to wait before the next one, or `None` for giving up. `chance`
    /// is between 0 and 1.
    pub fn next(
        &mut self,
        settings: &Settings,
        budget: &Budget,
        now: Instant,
        chance: f64,
    ) -> Option<Duration> {
        let longest = FIRST_WAIT.saturating_mul(1 << self.failed.min(16)).min(LONGEST_WAIT);
        let wait = longest.mul_f64(chance.clamp(0.0, 1.0));
        let in_time = now.duration_since(self.started) + wait < settings.timeout;
        if self.failed >= settings.retries || !in_time || !budget.spend() {
            return None;
        }
        self.failed += 1;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { retries: 3, timeout: Duration::from_secs(10), budget: 2 }
    }

    #[test]
    fn waits_grow_and_are_cut_by_chance_until_the_tries_are_used_up() {
        let settings = Settings { budget: 100, ..settings() };
        let (budget, now) = (Budget::new(&settings), Instant::now());
        let mut tries = Tries::new(now);
        let waits = [(1.0, 100), (1.0, 200), (0.5, 200)];
        for (chance, ms) in waits {
            let wait = tries.next(&settings, &budget, now, chance);
            assert_eq!(wait, Some(Duration::from_millis(ms)));
        }
        assert_eq!(tries.next(&settings, &budget, now, 0.0), None);
    }

    #[test]
    fn no_try_starts_after_the_time_is_over() {
        let (settings, start) = (settings(), Instant::now());
        let budget = Budget::new(&settings);
        let late = start + Duration::from_secs(10);
        assert_eq!(Tries::new(start).next(&settings, &budget, late, 0.0), None);
        let just_in_time = start + Duration::from_millis(9_950);
        assert!(Tries::new(start).next(&settings, &budget, just_in_time, 0.1).is_some());
        assert!(Tries::new(start).next(&settings, &budget, just_in_time, 1.0).is_none());
    }

    #[test]
    fn an_outage_is_not_multiplied() {
        let (settings, now) = (settings(), Instant::now());
        let budget = Budget::new(&settings);
        let retries = |requests: u32| {
            let retry = |_: &u32| Tries::new(now).next(&settings, &budget, now, 0.0).is_some();
            (0..requests).filter(retry).count()
        };
        assert_eq!(retries(100), 2);
        (0..25).for_each(|_| budget.earn());
        assert_eq!(retries(100), 2);
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(retries(100), 2, "the balance is bounded");
    }
}
