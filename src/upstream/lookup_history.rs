//! Decides which idle connections may be kept after another lookup of their server's name.
//!
//! When a server moves, requests must follow its name, and idle connections to the old address must
//! not be used. But a large service returns a few of its many addresses in rotation: an address
//! that is missing from the last lookup still works, and opening new connections after each lookup
//! would be waste. The frequency of changes tells the two cases apart.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// This many changes within [`PERIOD`] mark a name as rotating. S3's addresses change with
/// almost every lookup.
const CHANGES: usize = 3;

/// How long an address of a rotating name is kept after it was last returned.
const PERIOD: Duration = Duration::from_secs(60);

/// Addresses remembered at once: twelve lookups in a period, with up to eight each, fit well.
const REMEMBERED: usize = 256;

/// The recent lookups of one name.
#[derive(Default)]
pub(super) struct LookupHistory {
    /// The addresses of the last lookup, sorted.
    last: Vec<SocketAddr>,
    /// When each address was last returned, the latest at the end.
    seen: Vec<(SocketAddr, Instant)>,
    /// When the addresses changed, the latest at the end.
    changes: Vec<Instant>,
}

impl LookupHistory {
    /// Adds a lookup; returns the addresses to which idle connections may be kept.
    pub(super) fn update(&mut self, addresses: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let is_recent = |at: &Instant| now.duration_since(*at) < PERIOD;
        let mut last = addresses.to_vec();
        last.sort_unstable();
        last.dedup();
        self.changes.retain(is_recent);
        if !self.last.is_empty() && last != self.last {
            if self.changes.len() == CHANGES {
                self.changes.remove(0);
            }
            self.changes.push(now);
        }
        self.seen.retain(|(address, at)| is_recent(at) && last.binary_search(address).is_err());
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
        let (mut history, now) = (LookupHistory::default(), Instant::now());
        assert_eq!(history.update(&at(&[1, 2]), now), at(&[1, 2]));
        // The order does not matter.
        assert_eq!(history.update(&at(&[2, 1]), now + SECOND), at(&[1, 2]));
        assert_eq!(history.update(&at(&[3]), now + 2 * SECOND), at(&[3]));
        assert_eq!(history.update(&at(&[1, 2]), now + 3 * SECOND), at(&[1, 2]));
        // However often it moves, if there is time between.
        for hour in 1..10 {
            let host = at(&[10 + hour]);
            assert_eq!(history.update(&host, now + u32::from(hour) * 3600 * SECOND), host);
        }
    }

    #[test]
    fn addresses_of_a_rotating_name_are_kept_for_a_while() {
        let (mut history, now) = (LookupHistory::default(), Instant::now());
        let mut kept = Vec::new();
        for second in 0..100 {
            let hosts = [second, second + 1, second + 2];
            kept = history.update(&at(&hosts), now + u32::from(second) * SECOND);
        }
        kept.sort_unstable();
        // Returned within the last minute, that is, from 40 s on.
        let lately: Vec<u8> = (40..=101).collect();
        assert_eq!(kept, at(&lately));
        // After a minute without changes only the last lookup counts.
        let settled = at(&[200]);
        history.update(&settled, now + 100 * SECOND);
        assert_eq!(history.update(&settled, now + 160 * SECOND), settled);
    }

    #[test]
    fn the_memory_is_bounded_and_always_holds_the_last_lookup() {
        let (mut history, now) = (LookupHistory::default(), Instant::now());
        let mut kept = Vec::new();
        for number in 0..2000u32 {
            let address = SocketAddr::from((number.to_be_bytes(), 443));
            kept = history.update(&[address], now);
            assert!(kept.contains(&address) && kept.len() <= REMEMBERED);
        }
        assert_eq!((kept.len(), history.changes.len()), (REMEMBERED, CHANGES));
    }
}
