//! One set of credentials, with a number and an expiry by S3's clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use crate::s3::clock::S3Clock;
use crate::s3::credentials::Credentials;

/// Counts all sets of credentials in the process, so that no two share a number.
static GENERATIONS: AtomicU64 = AtomicU64::new(NO_GENERATION + 1);

/// The generation before the first set.
pub(crate) const NO_GENERATION: u64 = 0;

/// Credentials with their generation.
#[derive(Clone, Debug)]
pub struct Current {
    /// What to sign with.
    pub credentials: Credentials,
    /// Later ones have a higher number.
    pub generation: u64,
    /// They seemed to have expired when they were loaded, which suggests that this machine's clock
    /// is wrong. They are used until S3 decides.
    pub seems_expired: bool,
}

impl Current {
    /// The next generation.
    pub fn new(credentials: Credentials) -> Current {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Current { credentials, generation, seems_expired: false }
    }

    /// When they expire, in seconds since 1970; `None` is never.
    pub fn expiry(&self) -> Option<u64> {
        let expiry = self.credentials.expiry()?;
        Some(expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// Whether they are valid as far as S3's time is known.
    pub fn is_usable(&self, clock: &S3Clock) -> bool {
        self.credentials.expiry().is_none()
            || self.is_valid_at(clock.seconds())
            || self.seems_expired && !clock.was_learned_recently()
    }

    /// Whether they are valid at `now`, in seconds since 1970.
    pub fn is_valid_at(&self, now: u64) -> bool {
        self.expiry().is_none_or(|expiry| now < expiry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn until(seconds: u64) -> Current {
        let expiry = UNIX_EPOCH + Duration::from_secs(seconds);
        Current::new(Credentials::new("A", "SECRET", None, Some(expiry), "test"))
    }

    #[test]
    fn credentials_that_seemed_expired_are_used_until_s3_tells_its_time() {
        let clock = S3Clock::default();
        let mut set = until(clock.seconds() - 100);
        assert!(!set.is_usable(&clock));
        set.seems_expired = true;
        assert!(set.is_usable(&clock));
        clock.learn(clock.seconds());
        assert!(!set.is_usable(&clock), "S3 agrees that they have expired");
        clock.learn(clock.seconds() - 3_600);
        assert!(set.is_usable(&clock), "this machine's clock was ahead");
    }
}
