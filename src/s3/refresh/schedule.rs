//! When credentials are loaded next. Nothing here reads a clock or rolls dice: time left and
//! `jitter`, from 0 to 1, are arguments.

use std::time::Duration;

/// Least time between two loads, however short credentials live.
pub(super) const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Credentials are renewed when a third of their time is left, but not earlier than this before
/// their end: services hand out the next set only some minutes before.
const REFRESH_AHEAD: Duration = Duration::from_secs(600);

/// Longest time between two attempts while they fail.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// Least time from a load to one that is asked for because S3 refuses what it brought.
const ASKED_PAUSE: Duration = Duration::from_secs(5);

/// The same where the loads that were asked for keep bringing what S3 refuses.
const ASKED_PAUSE_LONGEST: Duration = Duration::from_secs(300);

/// Time until a set is renewed that is valid for `left`. Jitter makes it up to half as much again
/// earlier, since proxies that started together would otherwise ask together for ever.
pub(super) fn until_refresh(left: Duration, jitter: f64) -> Duration {
    let ahead = (left / 3).min(REFRESH_AHEAD).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0);
    left.saturating_sub(ahead).max(LEAST_PAUSE)
}

/// Time until the next attempt after `failures` in a row, of which there is at least one: twice
/// as long each time, the half of it by chance.
pub(super) fn until_retry(failures: u32, jitter: f64) -> Duration {
    let full = doubled(2 * LEAST_PAUSE, failures.saturating_sub(1)).min(RETRY_PAUSE);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Least time from the last load to one that is asked for, where the last `in_vain` of those that
/// were asked for brought nothing new.
pub(super) fn until_asked(in_vain: u32) -> Duration {
    doubled(ASKED_PAUSE, in_vain).min(ASKED_PAUSE_LONGEST)
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn long_lived_sets_are_renewed_some_minutes_before_their_end() {
        for hours in [1, 6, 12, 36] {
            let left = seconds(hours * 3600);
            assert_eq!(left - until_refresh(left, 0.0), seconds(600));
            assert_eq!(left - until_refresh(left, 1.0), seconds(900));
        }
    }

    #[test]
    fn short_lived_sets_are_renewed_with_a_third_of_their_time_left() {
        assert_eq!(until_refresh(seconds(900), 0.0), seconds(600));
        assert_eq!(until_refresh(seconds(900), 1.0), seconds(450));
        assert_eq!(until_refresh(seconds(6), 0.0), seconds(4));
    }

    #[test]
    fn however_short_they_live_there_is_a_pause() {
        for left in [seconds(0), Duration::from_millis(10), seconds(1)] {
            assert_eq!(until_refresh(left, 1.0), LEAST_PAUSE);
        }
    }

    #[test]
    fn a_renewal_always_comes_before_the_end_where_there_is_time_for_it() {
        for left in (3..5000).map(seconds) {
            for jitter in [0.0, 0.3, 1.0] {
                assert!(until_refresh(left, jitter) < left, "{left:?}");
            }
        }
    }

    #[test]
    fn attempts_that_fail_become_rarer_up_to_a_bound() {
        assert_eq!(until_retry(1, 0.0), LEAST_PAUSE);
        assert_eq!(until_retry(1, 1.0), seconds(2));
        assert_eq!(until_retry(3, 1.0), seconds(8));
        for failures in [7, 100, u32::MAX] {
            assert_eq!(until_retry(failures, 1.0), RETRY_PAUSE);
        }
    }

    #[test]
    fn asking_in_vain_is_answered_ever_more_slowly() {
        assert_eq!(until_asked(0), ASKED_PAUSE);
        assert_eq!(until_asked(2), seconds(20));
        assert_eq!(until_asked(u32::MAX), ASKED_PAUSE_LONGEST);
    }
}
