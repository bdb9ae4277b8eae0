//! Schedules the loads of credentials. Pure functions: the time left and the random `jitter`, from
//! 0 to 1, are arguments.

use std::time::Duration;

/// Least time between two loads, however short credentials live.
pub(super) const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Credentials are refreshed when a third of their lifetime is left, but no earlier than this
/// before they expire: services issue the next ones only some minutes before the expiry.
const REFRESH_AHEAD: Duration = Duration::from_secs(600);

/// Longest time between two retries.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);

/// Least time from a failed load to a requested one.
const FAILED_PAUSE: Duration = Duration::from_secs(2);

/// Least time between requested loads after the first that returned credentials that S3 rejects. It
/// doubles with each further one.
const REJECTED_PAUSE: Duration = Duration::from_secs(2);

/// The longest such time.
const MAX_REJECTED_PAUSE: Duration = Duration::from_secs(30);

/// Time until the refresh of credentials that are valid for `left`. Jitter moves the refresh ahead
/// by up to half the remaining time, so that proxies that started together do not refresh together.
pub(super) fn until_refresh(left: Duration, jitter: f64) -> Duration {
    let ahead = (left / 3).min(REFRESH_AHEAD).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0);
    left.saturating_sub(ahead).max(MIN_PAUSE)
}

/// Time until the next retry after `failures` in a row, at least one: exponential backoff, half of
/// it random.
pub(super) fn until_retry(failures: u32, jitter: f64) -> Duration {
    let full = doubled(2 * MIN_PAUSE, failures.saturating_sub(1)).min(MAX_RETRY_PAUSE);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Least time from the end of a load to a requested one, after `fruitless` requested loads in a row
/// that did not help.
pub(super) fn until_requested(has_failed: bool, fruitless: u32) -> Duration {
    match fruitless {
        _ if has_failed => FAILED_PAUSE,
        0 => MIN_PAUSE,
        _ => doubled(REJECTED_PAUSE, fruitless - 1).min(MAX_REJECTED_PAUSE),
    }
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
    fn long_lived_credentials_are_refreshed_some_minutes_before_they_expire() {
        for hours in [1, 6, 12, 36] {
            let left = seconds(hours * 3600);
            assert_eq!(left - until_refresh(left, 0.0), seconds(600));
            assert_eq!(left - until_refresh(left, 1.0), seconds(900));
        }
    }

    #[test]
    fn short_lived_credentials_are_refreshed_with_a_third_of_their_time_left() {
        assert_eq!(until_refresh(seconds(900), 0.0), seconds(600));
        assert_eq!(until_refresh(seconds(900), 1.0), seconds(450));
        assert_eq!(until_refresh(seconds(6), 0.0), seconds(4));
    }

    #[test]
    fn loads_have_a_pause_between_them_however_short_credentials_live() {
        for left in [seconds(0), Duration::from_millis(10), seconds(1)] {
            assert_eq!(until_refresh(left, 1.0), MIN_PAUSE);
        }
    }

    #[test]
    fn a_refresh_comes_before_the_expiry_if_there_is_time_for_it() {
        for left in (3..5000).map(seconds) {
            for jitter in [0.0, 0.3, 1.0] {
                assert!(until_refresh(left, jitter) < left, "{left:?}");
            }
        }
    }

    #[test]
    fn retries_back_off_up_to_a_bound() {
        assert_eq!(until_retry(1, 0.0), MIN_PAUSE);
        assert_eq!(until_retry(1, 1.0), seconds(2));
        assert_eq!(until_retry(3, 1.0), seconds(8));
        for failures in [7, 100, u32::MAX] {
            assert_eq!(until_retry(failures, 1.0), MAX_RETRY_PAUSE);
        }
    }

    #[test]
    fn fruitless_loads_back_off() {
        assert_eq!(until_requested(false, 0), MIN_PAUSE);
        assert_eq!(until_requested(false, 1), REJECTED_PAUSE);
        assert_eq!(until_requested(false, 3), seconds(8));
        assert_eq!(until_requested(false, u32::MAX), MAX_REJECTED_PAUSE);
        // A service that is down is retried often: it may recover at any moment.
        assert_eq!(until_requested(true, u32::MAX), FAILED_PAUSE);
    }
}
