//! Single values: durations, numbers, and choices.
//!
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::config::problem::{Fault, quoted};
use crate::s3::endpoint::Addressing;
use crate::sys::event_loop;

/// Longest duration that makes sense in any setting: 30 days.
const DURATION_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Units of time and their lengths in milliseconds.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// `500ms`, `30s`, `5m`, `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    const REMEDY: &str = "write a whole number and its unit, such as 500ms, 30s, 5m or 2h";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(Fault::new(format!("{} is not a duration", quoted(text)), REMEDY));
    }
    if unit.is_empty() {
        let what = format!("{number} has no unit");
        return Err(Fault::new(what, format!("write '{number}s' for seconds")));
    }
    let Some(&(_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(Fault::new(format!("{} is not a duration", quoted(text)), REMEDY));
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    match ms {
        Some(ms) if ms <= DURATION_MS_MAX => Ok(Duration::from_millis(ms)),
        _ => Err(Fault::new(format!("{} is too long", quoted(text)), "write 720h at most")),
    }
}

/// A duration that must not be nothing.
pub(super) fn timeout(text: &str) -> Result<Duration, Fault> {
    match duration(text)? {
        Duration::ZERO => Err(Fault::new("leaves no time at all", "write 1ms or more")),
        timeout => Ok(timeout),
    }
}

/// Units of size and their lengths in bytes.
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// `512B`, `64KiB`, `1MiB`, `1GiB`, from `MIN` to `MAX` bytes.
pub(super) fn size<const MIN: u64, const MAX: u64>(text: &str) -> Result<u64, Fault> {
    const REMEDY: &str = "write a whole number and its unit, such as 64KiB or 1MiB";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = SIZES.iter().find(|(name, _)| *name == unit);
    let (Ok(number), Some(&(_, unit))) = (number.parse::<u64>(), unit) else {
        return Err(Fault::new(format!("{} is not a size", quoted(text)), REMEDY));
    };
    match number.checked_mul(unit) {
        Some(size) if (MIN..=MAX).contains(&size) => Ok(size),
        _ => {
            let range = format!("write a size from {MIN}B to {}MiB", MAX >> 20);
            Err(Fault::new(format!("{} is out of range", quoted(text)), range))
        }
    }
}

/// Whether bodies are spliced.
pub(super) fn splice(text: &str) -> Result<bool, Fault> {
    choice(text, &[("auto", true), ("off", false)])
}

/// A number from `MIN` to `MAX`.
pub(super) fn count<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, Fault> {
    let range = || format!("write a number from {MIN} to {MAX}");
    match number(text) {
        Some(count) if (MIN..=MAX).contains(&count) => Ok(count),
        Some(_) => Err(Fault::new(format!("{} is out of range", quoted(text)), range())),
        None => Err(Fault::new(format!("{} is not a number", quoted(text)), range())),
    }
}

/// Digits only; more of them than fit are a very large number.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// `auto` is one worker per usable core.
pub(super) fn workers(text: &str) -> Result<Option<usize>, Fault> {
    const REMEDY: &str = "write 'auto' or a number from 1 to 1024";
    match number(text) {
        _ if text == "auto" => Ok(None),
        Some(count @ 1..=1024) => Ok(Some(count)),
        Some(_) => Err(Fault::new(format!("{} is out of range", quoted(text)), REMEDY)),
        None => Err(Fault::new(format!("{} is not a number", quoted(text)), REMEDY)),
    }
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, Fault> {
    choice(text, &[("true", true), ("false", false)])
}

/// The event loop.
pub(super) fn driver(text: &str) -> Result<event_loop::Choice, Fault> {
    use event_loop::Choice::{Auto, Epoll, IoUring};
    choice(text, &[("auto", Auto), ("io_uring", IoUring), ("epoll", Epoll)])
}

/// `auto` is the path form, which every store understands; `virtual` only when it is asked for,
/// because it needs a name in the DNS for each bucket.
pub(super) fn addressing(text: &str) -> Result<Addressing, Fault> {
    use Addressing::{Auto, Path, Virtual};
    choice(text, &[("auto", Auto), ("path", Path), ("virtual", Virtual)])
}

/// The least severe level that is logged.
pub(super) fn log_level(text: &str) -> Result<LevelFilter, Fault> {
    use LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
    let levels = [
        ("off", Off),
        ("error", Error),
        ("warn", Warn),
        ("info", Info),
        ("debug", Debug),
        ("trace", Trace),
    ];
    choice(text, &levels)
}

/// One of a few words.
fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Fault> {
    if let Some(&(_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(value);
    }
    let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
    let remedy = format!("write one of {}", names.join(", "));
    Err(Fault::new(format!("{} is not a choice", quoted(text)), remedy))
}

/// A file's path.
pub(super) fn path(text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new("is not a path", "write the path of a file"));
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::{Place, Spot};

    fn say<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        Spot::new(Place::Flag, "").problem(result.unwrap_err()).to_string()
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_millis(30_000)));
        assert_eq!(duration("5m"), Ok(Duration::from_millis(300_000)));
        assert_eq!(duration("2h"), Ok(Duration::from_millis(7_200_000)));
        assert_eq!(duration("0s"), Ok(Duration::from_millis(0)));
        assert_eq!(say(duration("300")), "300 has no unit; write '300s' for seconds");
        for wrong in ["", "s", "-1s", "1.5s", "5 m", "5M", "5min", "1h30m", "٣s", "5d"] {
            assert!(say(duration(wrong)).contains("is not a duration; write"), "{wrong}");
        }
        for long in ["721h", "99999999999999999999s", "18446744073709551615h"] {
            assert!(say(duration(long)).contains("too long"), "{long}");
        }
        assert!(say(timeout("0ms")).contains("no time"));
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(size::<1, 1048576>("64KiB"), Ok(65_536));
        assert_eq!(size::<1, 1048576>("1MiB"), Ok(1_048_576));
        for wrong in ["64", "64KB", "KiB", "-1KiB", "1 MiB", ""] {
            assert!(say(size::<1, 1048576>(wrong)).contains("is not a size; write"), "{wrong}");
        }
        for far in ["0B", "2MiB", "99999999999GiB"] {
            assert!(say(size::<1, 1048576>(far)).contains("from 1B to 1MiB"), "{far}");
        }
    }

    #[test]
    fn counts_say_their_range() {
        assert_eq!(count::<1, 10>("10"), Ok(10));
        assert_eq!(say(count::<1, 10>("11")), "'11' is out of range; write a number from 1 to 10");
        for wrong in ["", "-1", "1e3", "0x10", "1_000", "ten"] {
            assert!(say(count::<1, 10>(wrong)).contains("is not a number"), "{wrong}");
        }
        assert!(say(count::<1, 10>(&"9".repeat(50))).contains("out of range"));
    }

    #[test]
    fn workers_are_auto_or_a_number() {
        assert_eq!(workers("auto"), Ok(None));
        assert_eq!(workers("1024"), Ok(Some(1024)));
        assert_eq!(
            say(workers("many")),
            "'many' is not a number; write 'auto' or a number from 1 to 1024"
        );
        assert!(say(workers("0")).contains("out of range"));
    }

    #[test]
    fn a_word_that_is_no_choice_is_answered_with_the_choices() {
        assert_eq!(log_level("warn"), Ok(LevelFilter::Warn));
        assert_eq!(
            say(log_level("warning")),
            "'warning' is not a choice; write one of off, error, warn, info, debug, trace"
        );
        assert_eq!(say(boolean("1")), "'1' is not a choice; write one of true, false");
        assert_eq!(driver("io_uring"), Ok(event_loop::Choice::IoUring));
        assert_eq!(addressing("auto"), Ok(Addressing::Auto));
        assert_eq!(addressing("virtual"), Ok(Addressing::Virtual));
    }
}
