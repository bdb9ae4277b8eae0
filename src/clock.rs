//! Time, read in one place so that everything above takes it as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on the monotonic clock.
pub type Monotonic = Instant;

/// The monotonic clock, for deadlines and ages.
pub fn monotonic() -> Monotonic {
    Instant::now()
}

/// The wall clock in seconds since 1970-01-01 UTC, for signatures, `Date` and logs.
/// A clock set before 1970 reads as 0.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
