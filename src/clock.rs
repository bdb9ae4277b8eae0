//! Time, read in one place so that everything above takes it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock since 1970-01-01 UTC. A clock set before 1970 reads as 0.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// The same in whole seconds, for signatures, `Date` and logs.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since the machine was started, suspended or not. Nobody sets this clock.
pub fn time_since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The last second that a date with four digits of year can name.
pub const END_OF_9999: u64 = 253_402_300_799;

/// A moment in UTC, in the parts people write it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the part of that name, months and days from 1")]
pub struct CivilTime {
    pub year: u32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
}

impl CivilTime {
    /// The moment `unix_seconds` after 1970-01-01 UTC; one beyond the year 9999 is cut to it.
    ///
    /// Days become a date as in Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms",
    /// `civil_from_days`: years start in March, so that the leap day is their last.
    pub fn new(unix_seconds: u64) -> CivilTime {
        let seconds = unix_seconds.min(END_OF_9999);
        let (days, of_day) = (seconds / 86_400, (seconds % 86_400) as u32);
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        CivilTime {
            year: (year_of_era + era * 400 + u64::from(month <= 2)) as u32,
            month: month as u32,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u32,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}
