//! Rate limit for messages of one kind, so that an outage that fails thousands of requests cannot
//! fill the disk. Suppressed messages are counted, and their number is logged.

use std::time::{Duration, Instant};

/// Messages of one kind that are written in each [`PERIOD`].
pub(super) const MESSAGES: u64 = 10;

pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Kinds that are counted separately. Further ones share the counter of the last.
const KINDS: usize = 256;

/// Longest example of a kind, in characters.
const EXAMPLE_CHARS: usize = 200;

const FIRST_SUPPRESSED: u64 = MESSAGES + 1;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Write,
    Suppress,
    /// Suppress it, and schedule a report for the end of the period.
    FirstSuppressed,
}

#[derive(Default)]
pub(super) struct Limiter {
    kinds: Vec<Kind>,
}

struct Kind {
    id: u64,
    since: Instant,
    messages: u64,
    example: String,
}

/// The messages of one kind that were suppressed in one period.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) messages: u64,
    /// The last message that was written, possibly truncated.
    pub(super) example: String,
}

impl Limiter {
    /// Counts a message of the kind `id`, and decides whether to write it.
    pub(super) fn admit(&mut self, id: u64, now: Instant) -> Admission {
        let existing = self.kinds.iter().position(|kind| kind.id == id);
        let index = existing.unwrap_or_else(|| {
            if self.kinds.len() < KINDS {
                let example = String::new();
                self.kinds.push(Kind { id, since: now, messages: 0, example });
            }
            self.kinds.len() - 1
        });
        let kind = &mut self.kinds[index];
        kind.messages += 1;
        match kind.messages {
            ..=MESSAGES => Admission::Write,
            FIRST_SUPPRESSED => Admission::FirstSuppressed,
            _ => Admission::Suppress,
        }
    }

    /// Keeps the last message of a kind that is written in a period, as an example for the report.
    pub(super) fn remember(&mut self, id: u64, message: &str) {
        let Some(kind) = self.kinds.iter_mut().find(|kind| kind.id == id) else { return };
        if kind.messages == MESSAGES {
            kind.example = message.chars().take(EXAMPLE_CHARS).collect();
        }
    }

    /// Ends the periods that are over at `now`, or all of them, and returns the suppressed
    /// messages.
    pub(super) fn take_suppressed(&mut self, now: Instant, all: bool) -> Vec<Suppressed> {
        let mut suppressed = Vec::new();
        self.kinds.retain_mut(|kind| {
            if !all && now.duration_since(kind.since) < PERIOD {
                return true;
            }
            if kind.messages > MESSAGES {
                let example = std::mem::take(&mut kind.example);
                suppressed.push(Suppressed { messages: kind.messages - MESSAGES, example });
            }
            false
        });
        suppressed
    }

    /// When the next report is due.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let kinds = self.kinds.iter().filter(|kind| kind.messages > MESSAGES);
        kinds.map(|kind| kind.since + PERIOD).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_messages_of_each_kind_are_written_and_the_others_counted() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        for _ in 0..MESSAGES {
            assert_eq!(limiter.admit(1, now), Admission::Write);
            limiter.remember(1, "S3 said 403");
        }
        assert_eq!(limiter.admit(2, now), Admission::Write);
        assert_eq!(limiter.next_end(), None);
        assert_eq!(limiter.admit(1, now), Admission::FirstSuppressed);
        assert!((0..4).all(|_| limiter.admit(1, now) == Admission::Suppress));
        assert_eq!(limiter.next_end(), Some(now + PERIOD));
        assert_eq!(limiter.take_suppressed(now, false), []);
        let example = "S3 said 403".to_owned();
        assert_eq!(
            limiter.take_suppressed(now + PERIOD, false),
            [Suppressed { messages: 5, example }]
        );
        assert_eq!(limiter.admit(1, now + PERIOD), Admission::Write);
    }

    #[test]
    fn kinds_are_bounded() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        let is_written = |&id: &u64| limiter.admit(id, now) == Admission::Write;
        let admitted = (0..10_000).filter(is_written).count();
        assert!(admitted < KINDS + MESSAGES as usize, "{admitted}");
        assert_eq!(limiter.kinds.len(), KINDS);
    }
}
