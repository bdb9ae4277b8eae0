//! The order in which to try a server's addresses: round robin, with recently failed ones last.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long an address is tried last after a connection to it failed.
const AVOID_PERIOD: Duration = Duration::from_secs(30);

/// Most failures remembered; a name of S3 has eight addresses at a time.
const REMEMBERED: usize = 256;

/// The recent failures of one worker.
#[derive(Default)]
pub(crate) struct Addresses {
    /// Advances with each connection, so that the addresses share the load.
    turn: Cell<usize>,
    failed: RefCell<Vec<(SocketAddr, Instant)>>,
}

impl Addresses {
    /// The order in which to try `addresses` now.
    pub(crate) fn order(&self, addresses: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let mut order = addresses.to_vec();
        if order.is_empty() {
            return order;
        }
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        order.rotate_left(turn % addresses.len());
        let failed = self.failed.borrow();
        // A stable sort: the rotation stays among addresses without a failure.
        order.sort_by_key(|address| {
            let failure = failed.iter().rev().find(|(known, _)| known == address);
            failure.filter(|(_, since)| now.duration_since(*since) < AVOID_PERIOD).map(|f| f.1)
        });
        order
    }

    /// Notes that a connection to this address failed.
    pub(crate) fn note_failure(&self, address: SocketAddr, now: Instant) {
        let mut failed = self.failed.borrow_mut();
        failed.retain(|(known, since)| {
            *known != address && now.duration_since(*since) < AVOID_PERIOD
        });
        if failed.len() == REMEMBERED {
            failed.remove(0);
        }
        failed.push((address, now));
    }

    /// Notes that a connection to this address succeeded.
    pub(crate) fn note_success(&self, address: SocketAddr) {
        let mut failed = self.failed.borrow_mut();
        if !failed.is_empty() {
            failed.retain(|(known, _)| *known != address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn all_addresses_get_their_turn() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        let all = [at(1), at(2), at(3)];
        let firsts: Vec<_> = (0..6).map(|_| addresses.order(&all, now)[0].port()).collect();
        assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
        assert!(addresses.order(&[], now).is_empty());
    }

    #[test]
    fn a_bad_address_comes_last_for_a_while_and_the_latest_failure_very_last() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        let all = [at(1), at(2), at(3)];
        addresses.note_failure(at(2), now);
        addresses.note_failure(at(1), now + Duration::from_secs(1));
        let later = now + Duration::from_secs(2);
        for _ in 0..3 {
            assert_eq!(addresses.order(&all, later), [at(3), at(2), at(1)]);
        }
        addresses.note_success(at(1));
        assert_eq!(addresses.order(&all, later)[2], at(2));
        let forgiven = addresses.order(&all, now + AVOID_PERIOD);
        assert_eq!(forgiven, [at(2), at(3), at(1)]);
    }
}
