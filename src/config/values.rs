//! The kinds of values: how each is parsed, and how a default is shown in the documentation.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::config::diagnostic::{Fault, quoted};
use crate::config::key::Reading;
use crate::config::source::Written;
use crate::policy::rewrite::When;
use crate::s3::endpoint::Addressing;
use crate::sys::event_loop;

/// Parses the value of a key as a `T`.
pub(super) trait Kind<T> {
    /// Stores the value, or reports the mistakes in it.
    fn read(&self, reading: Reading<'_>, into: &mut T);

    /// The value as it would be written in the file; `None` if there is none.
    fn show(&self, value: &T) -> Option<String>;
}

/// A [`Kind`] that is a single scalar.
pub(super) trait Word<T> {
    fn parse(&self, text: &str) -> Result<T, Fault>;
    fn show(&self, value: &T) -> Option<String>;
}

impl<T, W: Word<T>> Kind<T> for W {
    fn read(&self, mut reading: Reading<'_>, into: &mut T) {
        if let Some(value) = reading.one(|text| self.parse(text)) {
            *into = value;
        }
    }

    fn show(&self, value: &T) -> Option<String> {
        Word::show(self, value)
    }
}

/// An optional text. `unset` is the default in the documentation, if the code applies one later.
pub(super) struct Text<T> {
    pub(super) parse: fn(&str) -> Result<T, Fault>,
    pub(super) unset: Option<&'static str>,
}

pub(super) const fn text<T>(parse: fn(&str) -> Result<T, Fault>) -> Text<T> {
    Text { parse, unset: None }
}

impl<T> Word<Option<T>> for Text<T> {
    fn parse(&self, text: &str) -> Result<Option<T>, Fault> {
        (self.parse)(text).map(Some)
    }

    fn show(&self, _: &Option<T>) -> Option<String> {
        self.unset.map(str::to_owned)
    }
}

/// Any value, for keys that are parsed after all others.
pub(super) struct Whole;

impl Kind<Option<Written>> for Whole {
    fn read(&self, reading: Reading<'_>, into: &mut Option<Written>) {
        *into = Some(reading.written.clone());
    }

    fn show(&self, _: &Option<Written>) -> Option<String> {
        None
    }
}

/// A file's path.
pub(super) const PATH: Text<PathBuf> = text(path);

fn path(text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new("is not a path", "write the path of a file"));
    }
    Ok(PathBuf::from(text))
}

/// A duration with its unit, at least `least`: `500ms`, `30s`, `5m`, `2h`.
pub(super) struct Time {
    least: Duration,
}

pub(super) const DURATION: Time = Time { least: Duration::ZERO };
pub(super) const TIMEOUT: Time = Time { least: Duration::from_millis(1) };

/// Longest duration of any setting: 30 days.
const DURATION_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Units of time in milliseconds, the longest first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Word<Duration> for Time {
    fn parse(&self, text: &str) -> Result<Duration, Fault> {
        const HELP: &str = "write a whole number and its unit, such as 500ms, 30s, 5m or 2h";
        let not_a_duration = || Fault::new(format!("{} is not a duration", quoted(text)), HELP);
        let (number, unit) = number_and_unit(text).ok_or_else(not_a_duration)?;
        if unit.is_empty() {
            let problem = format!("{number} has no unit");
            return Err(Fault::new(problem, format!("write '{number}s' for seconds")));
        }
        let unit_ms = length_of(unit, &TIME_UNITS).ok_or_else(not_a_duration)?;
        let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
        let Some(ms) = ms.filter(|&ms| ms <= DURATION_MS_MAX) else {
            return Err(Fault::new(format!("{} is too long", quoted(text)), "write 720h at most"));
        };
        let duration = Duration::from_millis(ms);
        if duration < self.least {
            return Err(Fault::new("leaves no time", "write 1ms or more"));
        }
        Ok(duration)
    }

    fn show(&self, value: &Duration) -> Option<String> {
        let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        Some(if ms == 0 { "0s".to_owned() } else { in_largest_unit(ms, &TIME_UNITS) })
    }
}

/// A size between two limits in bytes, inclusive: `512B`, `64KiB`, `1MiB`, `1GiB`.
pub(super) struct Size(pub(super) u64, pub(super) u64);

/// Units of size in bytes, the largest first.
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl<T: TryFrom<u64> + TryInto<u64> + Copy> Word<T> for Size {
    fn parse(&self, text: &str) -> Result<T, Fault> {
        const HELP: &str = "write a whole number and its unit, such as 64KiB or 1MiB";
        let &Size(least, most) = self;
        let not_a_size = || Fault::new(format!("{} is not a size", quoted(text)), HELP);
        let (number, unit) = number_and_unit(text).ok_or_else(not_a_size)?;
        let number = number.parse::<u64>().map_err(|_| not_a_size())?;
        let unit = length_of(unit, &SIZE_UNITS).ok_or_else(not_a_size)?;
        let size = number.checked_mul(unit).filter(|size| (least..=most).contains(size));
        size.and_then(|size| T::try_from(size).ok()).ok_or_else(|| {
            let help = format!("write a size from {least}B to {}MiB", most >> 20);
            Fault::new(format!("{} is out of range", quoted(text)), help)
        })
    }

    fn show(&self, &value: &T) -> Option<String> {
        value.try_into().ok().map(|bytes| in_largest_unit(bytes, &SIZE_UNITS))
    }
}

/// Splits `30s` after its digits; `None` without digits.
fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| text.split_at(digits))
}

fn length_of(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|&(_, length)| length)
}

fn in_largest_unit(value: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().find(|(_, length)| value.is_multiple_of(*length));
    fitting.map_or_else(|| value.to_string(), |(name, length)| format!("{}{name}", value / length))
}

/// A number between two limits, inclusive.
pub(super) struct Count(pub(super) u64, pub(super) u64);

impl<T: TryFrom<u64> + Display> Word<T> for Count {
    fn parse(&self, text: &str) -> Result<T, Fault> {
        let &Count(least, most) = self;
        number(text, least, most, &format!("a number from {least} to {most}"))
    }

    fn show(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

/// Parses a number from `least` to `most`; `expected` describes it in diagnostics.
fn number<T: TryFrom<u64>>(text: &str, least: u64, most: u64, expected: &str) -> Result<T, Fault> {
    let fault = |what: &str| {
        Err(Fault::new(format!("{} is {what}", quoted(text)), format!("write {expected}")))
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return fault("not a number");
    }
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => fault("out of range"),
    }
}

/// `auto`, for one worker per usable processor core, or a number.
pub(super) struct Workers;

impl Word<Option<usize>> for Workers {
    fn parse(&self, text: &str) -> Result<Option<usize>, Fault> {
        match text {
            "auto" => Ok(None),
            text => number(text, 1, 1024, "'auto' or a number from 1 to 1024").map(Some),
        }
    }

    fn show(&self, value: &Option<usize>) -> Option<String> {
        Some(value.map_or_else(|| "auto".to_owned(), |count| count.to_string()))
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(&'static [(&'static str, T)]);

pub(super) const BOOLEAN: Choice<bool> = Choice(&[("true", true), ("false", false)]);

pub(super) const SPLICE: Choice<bool> = Choice(&[("auto", true), ("off", false)]);

pub(super) const DRIVER: Choice<event_loop::Choice> = Choice(&[
    ("auto", event_loop::Choice::Auto),
    ("io_uring", event_loop::Choice::IoUring),
    ("epoll", event_loop::Choice::Epoll),
]);

pub(super) const ADDRESSING: Choice<Addressing> = Choice(&[
    ("auto", Addressing::Auto),
    ("path", Addressing::Path),
    ("virtual", Addressing::Virtual),
]);

pub(super) const LOG_LEVEL: Choice<LevelFilter> = Choice(&[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
]);

pub(super) const WHEN: Choice<When> =
    Choice(&[("always", When::Always), ("missing", When::Missing)]);

impl<T: Copy + PartialEq> Word<T> for Choice<T> {
    fn parse(&self, text: &str) -> Result<T, Fault> {
        if let Some(&(_, value)) = self.0.iter().find(|(name, _)| *name == text) {
            return Ok(value);
        }
        let names: Vec<&str> = self.0.iter().map(|&(name, _)| name).collect();
        let help = format!("write one of {}", names.join(", "));
        Err(Fault::new(format!("{} is not a choice", quoted(text)), help))
    }

    fn show(&self, value: &T) -> Option<String> {
        self.0.iter().find(|(_, choice)| choice == value).map(|&(name, _)| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Location, Source};

    fn say<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        Location::new(Source::Flag, "").diagnostic(result.unwrap_err()).to_string()
    }

    fn size(text: &str) -> Result<u64, Fault> {
        Size(1, 1 << 20).parse(text)
    }

    fn count(text: &str) -> Result<u32, Fault> {
        Count(1, 10).parse(text)
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(DURATION.parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(DURATION.parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(DURATION.parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(DURATION.parse("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(DURATION.parse("0s"), Ok(Duration::from_millis(0)));
        assert_eq!(say(DURATION.parse("300")), "300 has no unit; write '300s' for seconds");
        for wrong in ["", "s", "-1s", "1.5s", "5 m", "5M", "5min", "1h30m", "٣s", "5d"] {
            assert!(say(DURATION.parse(wrong)).contains("is not a duration; write"), "{wrong}");
        }
        for long in ["721h", "99999999999999999999s", "18446744073709551615h"] {
            assert!(say(DURATION.parse(long)).contains("too long"), "{long}");
        }
        assert!(say(TIMEOUT.parse("0ms")).contains("no time"));
        for shown in ["0s", "500ms", "90s", "10m", "2h"] {
            let duration = DURATION.parse(shown).unwrap();
            assert_eq!(Word::show(&DURATION, &duration).as_deref(), Some(shown));
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1MiB"), Ok(1_048_576));
        for wrong in ["64", "64KB", "KiB", "-1KiB", "1 MiB", ""] {
            assert!(say(size(wrong)).contains("is not a size; write"), "{wrong}");
        }
        for far in ["0B", "2MiB", "99999999999GiB"] {
            assert!(say(size(far)).contains("from 1B to 1MiB"), "{far}");
        }
    }

    #[test]
    fn a_count_out_of_range_is_reported_with_its_range() {
        assert_eq!(count("10"), Ok(10));
        assert_eq!(say(count("11")), "'11' is out of range; write a number from 1 to 10");
        for wrong in ["", "-1", "1e3", "0x10", "1_000", "ten"] {
            assert!(say(count(wrong)).contains("is not a number"), "{wrong}");
        }
        assert!(say(count(&"9".repeat(50))).contains("out of range"));
    }

    #[test]
    fn workers_are_auto_or_a_number() {
        assert_eq!(Workers.parse("auto"), Ok(None));
        assert_eq!(Workers.parse("1024"), Ok(Some(1024)));
        assert_eq!(
            say(Workers.parse("many")),
            "'many' is not a number; write 'auto' or a number from 1 to 1024"
        );
        assert!(say(Workers.parse("0")).contains("out of range"));
    }

    #[test]
    fn an_unknown_word_is_reported_with_the_choices() {
        assert_eq!(LOG_LEVEL.parse("warn"), Ok(LevelFilter::Warn));
        assert_eq!(
            say(LOG_LEVEL.parse("warning")),
            "'warning' is not a choice; write one of off, error, warn, info, debug, trace"
        );
        assert_eq!(say(BOOLEAN.parse("1")), "'1' is not a choice; write one of true, false");
        assert_eq!(DRIVER.parse("io_uring"), Ok(event_loop::Choice::IoUring));
        assert_eq!(ADDRESSING.parse("auto"), Ok(Addressing::Auto));
        assert_eq!(ADDRESSING.parse("virtual"), Ok(Addressing::Virtual));
    }
}
