//! S3's time: that of this machine's clock, unless S3's responses show that the clock is wrong.
//!
//! S3 rejects signatures more than 15 minutes off its clock, and credentials expire by it. A time
//! learned from S3 is stored relative to the time since boot, which cannot be set, so that it stays
//! correct if this machine's clock is set.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;

/// The smallest clock difference that is worth a retry, in seconds. S3 allows 15 minutes.
pub(crate) const NOTABLE_SKEW_S: u64 = 60;

/// How long a time learned from S3 is certain, in seconds.
const FRESH_S: u64 = 60;

/// S3's clock, shared by all workers.
#[derive(Debug)]
pub struct S3Clock {
    /// The time of boot by S3's clock, in seconds since 1970; [`UNKNOWN`] until it is learned.
    boot: AtomicI64,
    /// When it was learned, in seconds since boot.
    learned_at: AtomicU64,
}

const UNKNOWN: i64 = i64::MIN;

impl Default for S3Clock {
    fn default() -> S3Clock {
        S3Clock { boot: AtomicI64::new(UNKNOWN), learned_at: AtomicU64::new(0) }
    }
}

impl S3Clock {
    /// The time since 1970.
    pub fn time(&self) -> Duration {
        match self.boot.load(Ordering::Relaxed) {
            UNKNOWN => clock::unix_time(),
            boot => {
                let since_boot = clock::time_since_boot();
                let seconds = since_boot.as_secs().saturating_add_signed(boot);
                Duration::new(seconds, since_boot.subsec_nanos())
            }
        }
    }

    /// The time since 1970 in whole seconds.
    pub fn seconds(&self) -> u64 {
        self.time().as_secs()
    }

    /// Whether S3's time was learned in the last [`FRESH_S`] seconds. Clocks drift.
    pub fn was_learned_recently(&self) -> bool {
        let learned_at = self.learned_at.load(Ordering::Relaxed);
        let age = clock::time_since_boot().as_secs().saturating_sub(learned_at);
        self.boot.load(Ordering::Relaxed) != UNKNOWN && age < FRESH_S
    }

    /// Learns S3's time, in seconds since 1970.
    pub fn learn(&self, seconds: u64) {
        let since_boot = clock::time_since_boot().as_secs();
        self.learned_at.store(since_boot, Ordering::Relaxed);
        let boot = seconds.cast_signed().saturating_sub(since_boot.cast_signed());
        self.boot.store(boot.max(UNKNOWN + 1), Ordering::Relaxed);
    }

    /// Uses this machine's clock again.
    pub fn forget(&self) {
        self.boot.store(UNKNOWN, Ordering::Relaxed);
    }
}

/// How far this machine's clock is off: `900 s behind that of S3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Skew {
    /// S3's time less this machine's, in seconds.
    s3_is_ahead: i64,
}

impl Skew {
    /// The skew now, if S3's time is `s3_seconds` since 1970.
    pub(crate) fn to(s3_seconds: u64) -> Skew {
        let own = clock::unix_seconds().cast_signed();
        Skew { s3_is_ahead: s3_seconds.cast_signed().saturating_sub(own) }
    }

    /// Whether the clocks agree closely enough for S3.
    pub(crate) fn is_small(self) -> bool {
        self.s3_is_ahead.unsigned_abs() < NOTABLE_SKEW_S
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.s3_is_ahead > 0 { "behind" } else { "ahead of" };
        write!(f, "{} s {direction} that of S3", self.s3_is_ahead.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_this_machines_until_s3s_is_learned() {
        let s3 = S3Clock::default();
        assert!(s3.seconds().abs_diff(clock::unix_seconds()) <= 1 && !s3.was_learned_recently());
        for time in [0, 1_000_000_000, clock::unix_seconds() + 7_200] {
            s3.learn(time);
            assert!(s3.seconds().abs_diff(time) <= 1, "{time}");
            assert!(s3.was_learned_recently());
        }
        s3.forget();
        assert!(s3.seconds().abs_diff(clock::unix_seconds()) <= 1 && !s3.was_learned_recently());
    }

    #[test]
    fn the_skew_says_which_way_this_machines_clock_is_off() {
        let now = clock::unix_seconds();
        // S3 is at a later time, so this machine's clock is behind.
        let behind = Skew::to(now + 7_200).to_string();
        assert!(behind.ends_with(" s behind that of S3"), "{behind}");
        let ahead = Skew::to(now - 7_200).to_string();
        assert!(ahead.starts_with("72") && ahead.ends_with(" s ahead of that of S3"), "{ahead}");
        assert!(Skew::to(now).is_small() && !Skew::to(now - 61).is_small());
    }
}
