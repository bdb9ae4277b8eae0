//! Negative entries of the metadata cache: keys that do not exist, or that S3 denies access to.
//!
//! Programs that look for an index request many keys that do not exist, and any client can request
//! any number of them. So these entries are stored apart from objects and bounded in bytes; the
//! oldest is evicted first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::s3::object_name::{ObjectId, OwnedObjectId};

/// Memory of one worker's negative entries, in bytes. A program that looks for an index requests 4
/// keys of some 200 bytes, so this suffices for 1,500 such searches within `metadata_negative_ttl`.
pub(super) const NEGATIVE_BYTES: usize = 2 * 1024 * 1024;

/// Memory of an entry without its key, in bytes: the entry, its slot in the table with a share of
/// the free slots, and the allocator's overhead.
const ENTRY_BYTES: usize = 144;

/// Capacity that the queue and the table keep when they are empty, in entries.
const KEPT_ENTRIES: usize = 256;

/// Why an object cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negative {
    /// 404.
    NotFound,
    /// 403.
    AccessDenied,
}

/// The negative entries of one worker, oldest first.
pub(super) struct NegativeEntries {
    ttl: Duration,
    queue: VecDeque<Entry>,
    /// The number of the first entry of `queue`; entries are numbered in sequence.
    first: u64,
    /// The numbers of entries that have not been removed.
    table: HashTable<u64>,
    bytes: usize,
}

struct Entry {
    hash: u64,
    /// `None` once the entry has been removed.
    id: Option<OwnedObjectId>,
    negative: Negative,
    /// When the request was sent.
    sent_at: Instant,
}

impl NegativeEntries {
    pub(super) fn new(ttl: Duration) -> NegativeEntries {
        NegativeEntries { ttl, queue: VecDeque::new(), first: 0, table: HashTable::new(), bytes: 0 }
    }

    /// A key's entry, and when its request was sent. It may have expired.
    pub(super) fn get(&self, hash: u64, id: ObjectId<'_>) -> Option<(Negative, Instant)> {
        let &number = self.table.find(hash, |&number| self.is_of(number, id))?;
        let entry = self.entry(number);
        Some((entry.negative, entry.sent_at))
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Adds an entry, and removes an earlier one of the same key.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        id: ObjectId<'_>,
        negative: Negative,
        (sent_at, received_at): (Instant, Instant),
    ) {
        self.remove(hash, id);
        self.free_expired(received_at);
        let number = self.first + self.queue.len() as u64;
        self.bytes += ENTRY_BYTES + id.text_bytes();
        self.queue.push_back(Entry { hash, id: Some(id.into()), negative, sent_at });
        let (queue, first) = (&self.queue, self.first);
        self.table.insert_unique(hash, number, |&number| queue[(number - first) as usize].hash);
        while self.bytes > NEGATIVE_BYTES {
            self.free_oldest();
        }
    }

    pub(super) fn remove(&mut self, hash: u64, id: ObjectId<'_>) {
        let found = self.table.find(hash, |&number| self.is_of(number, id)).copied();
        if let Some(number) = found {
            self.remove_from_table(hash, number);
            let entry = &mut self.queue[(number - self.first) as usize];
            entry.id = None;
            self.bytes -= id.text_bytes();
        }
    }

    /// Frees expired entries, and most of the memory once there are none left.
    pub(super) fn free_expired(&mut self, now: Instant) {
        while let Some(oldest) = self.queue.front()
            && now.saturating_duration_since(oldest.sent_at) >= self.ttl
        {
            self.free_oldest();
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT_ENTRIES {
            self.queue.shrink_to(KEPT_ENTRIES);
            self.table.shrink_to(KEPT_ENTRIES, |_| 0);
        }
    }

    fn free_oldest(&mut self) {
        if let Some(entry) = self.queue.pop_front() {
            self.remove_from_table(entry.hash, self.first);
            self.first += 1;
            let text_bytes = entry.id.as_ref().map_or(0, |id| id.borrow().text_bytes());
            self.bytes -= ENTRY_BYTES + text_bytes;
        }
    }

    fn remove_from_table(&mut self, hash: u64, number: u64) {
        if let Ok(occupied) = self.table.find_entry(hash, |&other| other == number) {
            occupied.remove();
        }
    }

    fn is_of(&self, number: u64, id: ObjectId<'_>) -> bool {
        self.entry(number).id.as_ref().is_some_and(|other| other.borrow() == id)
    }

    fn entry(&self, number: u64) -> &Entry {
        &self.queue[(number - self.first) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::bucket::BucketId;

    fn id(key: &str) -> ObjectId<'_> {
        ObjectId { bucket: BucketId::for_test(0), key, version_id: None }
    }

    const TTL: Duration = Duration::from_secs(5);

    /// A bad hash, so that some keys collide.
    fn hash(key: &str) -> u64 {
        key.bytes().fold(0, |hash, byte| (hash * 31 + u64::from(byte)) & 0xfff)
    }

    fn insert(entries: &mut NegativeEntries, key: &str, now: Instant) {
        entries.insert(hash(key), id(key), Negative::NotFound, (now, now));
    }

    fn contains(entries: &NegativeEntries, key: &str) -> bool {
        entries.get(hash(key), id(key)).is_some()
    }

    #[test]
    fn an_entry_stays_until_it_is_removed_or_replaced() {
        let (mut entries, now) = (NegativeEntries::new(TTL), Instant::now());
        insert(&mut entries, "a", now);
        insert(&mut entries, "b", now);
        assert_eq!(entries.get(hash("a"), id("a")), Some((Negative::NotFound, now)));
        assert_eq!(
            entries.get(hash("a"), ObjectId { bucket: BucketId::for_test(1), ..id("a") }),
            None
        );
        entries.insert(hash("a"), id("a"), Negative::AccessDenied, (now, now));
        assert_eq!(entries.get(hash("a"), id("a")), Some((Negative::AccessDenied, now)));
        entries.remove(hash("a"), id("a"));
        assert!(!contains(&entries, "a") && contains(&entries, "b"));
        entries.free_expired(now + TTL);
        assert_eq!((entries.bytes, entries.table.len()), (0, 0));
    }

    #[test]
    fn the_oldest_entries_are_evicted_and_the_bytes_stay_bounded() {
        let (mut entries, now) = (NegativeEntries::new(TTL), Instant::now());
        let key = |number: usize| format!("{number:0>1000}");
        for number in 0..5_000 {
            entries.insert(number as u64, id(&key(number)), Negative::NotFound, (now, now));
            assert!(entries.bytes <= NEGATIVE_BYTES);
        }
        let left = (0..5_000).filter(|&n| entries.get(n as u64, id(&key(n))).is_some());
        let left: Vec<_> = left.collect();
        assert_eq!(left.len(), NEGATIVE_BYTES / (1_000 + ENTRY_BYTES));
        assert_eq!(left.last(), Some(&4_999));
    }

    #[test]
    fn repeated_requests_for_one_missing_key_stay_within_the_limit() {
        let (mut entries, now) = (NegativeEntries::new(TTL), Instant::now());
        for _ in 0..100_000 {
            insert(&mut entries, "a", now);
        }
        assert!(entries.bytes <= NEGATIVE_BYTES && entries.table.len() == 1);
        assert!(contains(&entries, "a"));
    }

    #[test]
    fn expired_entries_are_freed_and_unused_capacity_with_them() {
        let (mut entries, start) = (NegativeEntries::new(TTL), Instant::now());
        for number in 0..10_000 {
            insert(&mut entries, &number.to_string(), start);
        }
        insert(&mut entries, "late", start + TTL);
        assert_eq!(entries.queue.len(), 1);
        entries.free_expired(start + TTL + TTL);
        assert!(entries.queue.is_empty() && entries.queue.capacity() < 1_000);
        assert!(entries.table.capacity() < 1_000);
    }
}
