//! One set of credentials with its generation, a number by which a cached signing key is matched to
//! its credentials without comparing secrets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use crate::s3::clock::S3Clock;
use crate::s3::credentials::Credentials;

/// Counts all sets of credentials in the process, so that no two share a generation.
static GENERATIONS: AtomicU64 = AtomicU64::new(NO_GENERATION + 1);

/// The generation before the first set.
pub(crate) const NO_GENERATION: u64 = 0;

/// Credentials with their generation.
#[derive(Clone, Debug)]
pub struct Current {
    /// To sign with.
    pub credentials: Credentials,
    /// Later credentials have a higher number.
    pub generation: u64,
    /// They had expired by this machine's clock when they were loaded. The clock may be wrong, so
    /// they are used until S3's time is known.
    pub seems_expired: bool,
}

impl Current {
    /// Gives the credentials the next generation.
    pub fn new(credentials: Credentials) -> Current {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Current { credentials, generation, seems_expired: false }
    }

    /// The expiry in seconds since 1970; `None` if they do not expire.
    pub fn expiry(&self) -> Option<u64> {
        let expiry = self.credentials.expiry()?;
        Some(expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// Whether they are valid, or may be valid because S3's time is not known.
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
    fn credentials_that_seemed_expired_are_used_until_s3s_time_is_known() {
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
