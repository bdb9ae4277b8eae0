//! Bounds how often one kind of message is written, so that a failure that thousands of requests
//! meet cannot fill a disk. What is left out is counted, and the count is written.

use std::time::{Duration, Instant};

/// Messages of one kind that are written in one [`PERIOD`].
pub(super) const MESSAGES: u64 = 10;

/// See [`MESSAGES`].
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Kinds that are counted apart at once; all further ones share a count.
const KINDS: usize = 256;

/// Longest example that is kept of a kind.
const EXAMPLE_CHARACTERS: usize = 200;

const FIRST_LEFT_OUT: u64 = MESSAGES + 1;

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Write,
    LeaveOut,
    /// Leave it out; at the end of its period there will be a count to write.
    FirstLeftOut,
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

/// A kind of which messages were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) messages: u64,
    /// The last message of it that was written, perhaps cut short.
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
            FIRST_LEFT_OUT => Admission::FirstLeftOut,
            _ => Admission::LeaveOut,
        }
    }

    /// Keeps a message that was written, as the example of its kind.
    pub(super) fn remember(&mut self, id: u64, message: &str) {
        let Some(kind) = self.kinds.iter_mut().find(|kind| kind.id == id) else { return };
        if kind.messages == MESSAGES {
            kind.example = message.chars().take(EXAMPLE_CHARACTERS).collect();
        }
    }

    /// Ends the periods that are over, or all of them, and tells what was left out in them.
    pub(super) fn take_left_out(&mut self, now: Instant, all: bool) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        self.kinds.retain_mut(|kind| {
            if !all && now.duration_since(kind.since) < PERIOD {
                return true;
            }
            if kind.messages > MESSAGES {
                let example = std::mem::take(&mut kind.example);
                left_out.push(LeftOut { messages: kind.messages - MESSAGES, example });
            }
            false
        });
        left_out
    }

    /// When the first period ends in which messages were left out.
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
        assert_eq!(limiter.admit(1, now), Admission::FirstLeftOut);
        assert!((0..4).all(|_| limiter.admit(1, now) == Admission::LeaveOut));
        assert_eq!(limiter.next_end(), Some(now + PERIOD));
        assert_eq!(limiter.take_left_out(now, false), []);
        let example = "S3 said 403".to_owned();
        assert_eq!(limiter.take_left_out(now + PERIOD, false), [LeftOut { messages: 5, example }]);
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
