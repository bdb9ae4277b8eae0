//! Which of a server's addresses its name stands for, as far as idle connections are concerned.
//!
//! When a name moves, requests are to follow it, whatever idle connections there are to where it
//! was. But a large service names a few of its many addresses at a time, others each time: there an
//! address that the last answer leaves out is as good as ever, and a new connection for each answer
//! would be waste. The two are told apart by how often the answers change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Answers that name other addresses than the one before, within [`PERIOD`], from which on a name
/// is taken to stand for changing parts of a larger set. S3's change every few seconds.
const CHANGES: usize = 3;

/// How long an address of such a name is good after an answer last named it.
const PERIOD: Duration = Duration::from_secs(60);

/// Addresses that are remembered at once: eight in each answer, one answer every two seconds.
const REMEMBERED: usize = 256;

/// What the answers about one name have been lately.
#[derive(Default)]
pub(super) struct Named {
    /// The last answer, in order.
    last: Vec<SocketAddr>,
    /// When each address was last named, the latest at the end.
    seen: Vec<(SocketAddr, Instant)>,
    /// When the answers changed, the latest at the end.
    changes: Vec<Instant>,
}

impl Named {
    /// Learns the next answer; the addresses that idle connections may be kept to.
    pub(super) fn answer(&mut self, addresses: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let is_lately = |at: &Instant| now.duration_since(*at) < PERIOD;
        let mut last = addresses.to_vec();
        last.sort_unstable();
        last.dedup();
        self.changes.retain(is_lately);
        if !self.last.is_empty() && last != self.last {
            if self.changes.len() == CHANGES {
                self.changes.remove(0);
            }
            self.changes.push(now);
        }
        self.seen.retain(|(address, at)| is_lately(at) && last.binary_search(address).is_err());
        self.seen.extend(last.iter().map(|&address| (address, now)));
        let excess = self.seen.len().saturating_sub(REMEMBERED);
        self.seen.drain(..excess);
        self.last = last;
        match self.changes.len() < CHANGES {
            true => self.last.clone(),
            false => self.seen.iter().map(|(address, _)| *address).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(hosts: &[u8]) -> Vec<SocketAddr> {
        hosts.iter().map(|&host| ([10, 0, 0, host], 443).into()).collect()
    }

    #[test]
    fn a_name_that_moves_is_followed_at_once() {
        let (mut named, now) = (Named::default(), Instant::now());
        assert_eq!(named.answer(&at(&[1, 2]), now), at(&[1, 2]));
        // In another order it is the same answer.
        assert_eq!(named.answer(&at(&[2, 1]), now + SECOND), at(&[1, 2]));
        assert_eq!(named.answer(&at(&[3]), now + 2 * SECOND), at(&[3]));
        assert_eq!(named.answer(&at(&[1, 2]), now + 3 * SECOND), at(&[1, 2]));
        // However often it moves, if there is time between.
        for hour in 1..10 {
            let host = at(&[10 + hour]);
            assert_eq!(named.answer(&host, now + u32::from(hour) * 3600 * SECOND), host);
        }
    }

    #[test]
    fn addresses_of_a_changing_part_are_good_for_a_while() {
        let (mut named, now) = (Named::default(), Instant::now());
        let mut kept = Vec::new();
        for second in 0..100 {
            let hosts = [second, second + 1, second + 2];
            kept = named.answer(&at(&hosts), now + u32::from(second) * SECOND);
        }
        kept.sort_unstable();
        // Named within the last minute, which is from 40 s on.
        let lately: Vec<u8> = (40..=101).collect();
        assert_eq!(kept, at(&lately));
        // It settles: after a minute without change only the last answer counts.
        let settled = at(&[200]);
        named.answer(&settled, now + 100 * SECOND);
        assert_eq!(named.answer(&settled, now + 160 * SECOND), settled);
    }

    #[test]
    fn the_memory_is_bounded_and_the_last_answer_always_in_it() {
        let (mut named, now) = (Named::default(), Instant::now());
        let mut kept = Vec::new();
        for number in 0..2000u32 {
            let address = SocketAddr::from((number.to_be_bytes(), 443));
            kept = named.answer(&[address], now);
            assert!(kept.contains(&address) && kept.len() <= REMEMBERED);
        }
        assert_eq!((kept.len(), named.changes.len()), (REMEMBERED, CHANGES));
    }
}
