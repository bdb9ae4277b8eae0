//! Clocks and dates.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::UtcDateTime;

/// The wall clock, as time since 1970-01-01 UTC. A clock set before 1970 gives 0.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// [`unix_time`] in whole seconds.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since the machine was started, including suspend. Unlike the wall clock it cannot be set.
pub(crate) fn time_since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The last second of the year 9999: HTTP dates and SigV4 timestamps have four digits for the year.
pub(crate) const END_OF_9999: u64 = 253_402_300_799;

/// The date and time in UTC; times after [`END_OF_9999`] give that.
pub(crate) fn utc(unix_seconds: u64) -> UtcDateTime {
    let seconds = unix_seconds.min(END_OF_9999).cast_signed();
    // Cannot fail: the `time` crate's range is -9999 to 9999.
    UtcDateTime::from_unix_timestamp(seconds).unwrap_or(UtcDateTime::UNIX_EPOCH)
}

/// Displays seconds since 1970 in ISO 8601: `2026-11-24T03:30:56Z`.
#[derive(Clone, Copy, Debug)]
pub struct Iso8601(pub u64);

impl fmt::Display for Iso8601 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = utc(self.0);
        let ((year, month, day), (hour, minute, second)) = (time.to_calendar_date(), time.as_hms());
        let month = u8::from(month);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_up_to_the_year_9999() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (END_OF_9999, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Iso8601(seconds).to_string(), text);
        }
    }
}
