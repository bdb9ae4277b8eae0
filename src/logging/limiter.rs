//! Bounds how often one kind of message is written, so that a failure of thousands of requests
//! cannot fill a disk. Suppressed messages are counted, and the count is written.

use std::time::{Duration, Instant};

/// Messages of one kind written in one [`PERIOD`].
pub(super) const MESSAGES: u64 = 10;

/// See [`MESSAGES`].
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Kinds with a count of their own; all further ones share one.
const KINDS: usize = 256;

/// Longest example of a kind.
const EXAMPLE_CHARACTERS: usize = 200;

const FIRST_SUPPRESSED: u64 = MESSAGES + 1;

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Write,
    Suppress,
    /// Suppress it; at the end of its period there is a count to write.
    FirstSuppressed,
}

/// Counts the messages of each kind.
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

/// A kind of which messages were suppressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) messages: u64,
    /// The last message that was written, perhaps truncated.
    pub(super) example: String,
}

impl Limiter {
    /// Counts a message of the kind `id`.
    pub(super) fn admit(&mut self, id: u64, now: Instant) -> Admission {
        let known = self.kinds.iter().position(|kind| kind.id == id);
        let index = known.unwrap_or_else(|| {
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

    /// Keeps a message that was written, as the example of its kind.
    pub(super) fn remember(&mut self, id: u64, message: &str) {
        let Some(kind) = self.kinds.iter_mut().find(|kind| kind.id == id) else { return };
        if kind.messages == MESSAGES {
            kind.example = message.chars().take(EXAMPLE_CHARACTERS).collect();
        }
    }

    /// Ends the periods that are over, or all of them, and returns what was suppressed in them.
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

    /// When the first period ends in which messages were suppressed.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let kinds = self.kinds.iter().filter(|kind| kind.messages > MESSAGES);
        kinds.map(|kind| kind.since + PERIOD).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_messages_of_each_kind_are_written_and_the_rest_is_counted() {
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
