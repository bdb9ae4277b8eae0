//! Counts of the requests that clients sent and of their outcomes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(crate) struct Ledger(Mutex<Counts>);

/// Sums over all clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Response heads received, by status.
    pub(crate) heads: BTreeMap<u16, u64>,
    /// Bodies that ended before their length.
    pub(crate) short: u64,
    /// Requests that their client aborted, before the head or in the body.
    pub(crate) given_up: u64,
    /// Correct bytes of bodies received.
    pub(crate) bytes: u64,
}

impl Ledger {
    /// The counts, to be changed while they are locked.
    pub(crate) fn open(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.open().clone()
    }
}

impl Counts {
    /// Responses with a status of 500 or more, and bodies that were cut short.
    pub(crate) fn failed(&self) -> u64 {
        self.heads.range(500..).map(|(_, count)| count).sum::<u64>() + self.short
    }

    /// Response heads received.
    pub(crate) fn responses(&self) -> u64 {
        self.heads.values().sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sent, heads, short, given_up, bytes } = self;
        write!(f, "sent={sent} short={short} given_up={given_up} bytes={bytes}")?;
        heads.iter().try_for_each(|(status, count)| write!(f, " {status}={count}"))
    }
}
