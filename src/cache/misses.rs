//! Keys that S3 has no object for, or lets nobody read, remembered for a few seconds.
//!
//! Programs that look for an index ask for many names that do not exist, and anybody can ask for
//! any number of them. So they have room of their own, bounded in bytes, and the oldest makes way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::s3::object_name::{ObjectId, OwnedObjectId};

/// Bytes that one worker's remembered misses may take. A search for an index takes 4 names of some
/// 200 bytes each, so these are 1,500 searches within `metadata_negative_ttl`.
pub(super) const MISSES_BYTES: usize = 2 * 1024 * 1024;

/// Bytes that a miss takes besides its key: the entry, its place in the table with what that keeps
/// free, and what the allocator adds.
const ENTRY_BYTES: usize = 144;

/// Empty, the table keeps room for so many.
const KEPT_ENTRIES: usize = 256;

/// Why there is nothing to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// S3 has no such key.
    NotFound,
    /// S3 does not let the proxy read it.
    AccessDenied,
}

/// The misses of one worker, oldest first.
pub(super) struct Misses {
    ttl: Duration,
    queue: VecDeque<Entry>,
    /// The number of the first entry of `queue`; those behind it count on from there.
    first: u64,
    /// Numbers of the entries that count.
    table: HashTable<u64>,
    bytes: usize,
}

struct Entry {
    hash: u64,
    /// `None` once the entry has been removed.
    id: Option<OwnedObjectId>,
    miss: Miss,
    asked: Instant,
}

impl Misses {
    /// None; each is believed for `ttl`.
    pub(super) fn new(ttl: Duration) -> Misses {
        Misses { ttl, queue: VecDeque::new(), first: 0, table: HashTable::new(), bytes: 0 }
    }

    /// What is known of a key, and when the request was sent that it was learned from.
    pub(super) fn get(&self, hash: u64, id: ObjectId<'_>) -> Option<(Miss, Instant)> {
        let &number = self.table.find(hash, |&number| self.is_of(number, id))?;
        let entry = self.entry(number);
        Some((entry.miss, entry.asked))
    }

    /// How long a miss is believed.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Remembers a miss, in the place of an earlier one of the same key.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        id: ObjectId<'_>,
        miss: Miss,
        (asked, now): (Instant, Instant),
    ) {
        self.remove(hash, id);
        self.free_expired(now);
        let number = self.first + self.queue.len() as u64;
        self.bytes += ENTRY_BYTES + id.text_bytes();
        self.queue.push_back(Entry { hash, id: Some(id.into()), miss, asked });
        let (queue, first) = (&self.queue, self.first);
        self.table.insert_unique(hash, number, |&number| queue[(number - first) as usize].hash);
        while self.bytes > MISSES_BYTES {
            self.free_oldest();
        }
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, hash: u64, id: ObjectId<'_>) {
        let found = self.table.find(hash, |&number| self.is_of(number, id)).copied();
        if let Some(number) = found {
            self.remove_from_table(hash, number);
            let entry = &mut self.queue[(number - self.first) as usize];
            entry.id = None;
            self.bytes -= id.text_bytes();
        }
    }

    /// Frees what is not believed any more at `now`, and the room of many when none is left.
    pub(super) fn free_expired(&mut self, now: Instant) {
        while let Some(oldest) = self.queue.front()
            && now.saturating_duration_since(oldest.asked) >= self.ttl
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

    /// Keys are hashed badly, so that some collide.
    fn hash(key: &str) -> u64 {
        key.bytes().fold(0, |hash, byte| (hash * 31 + u64::from(byte)) & 0xfff)
    }

    fn insert(misses: &mut Misses, key: &str, now: Instant) {
        misses.insert(hash(key), id(key), Miss::NotFound, (now, now));
    }

    fn knows(misses: &Misses, key: &str) -> bool {
        misses.get(hash(key), id(key)).is_some()
    }

    #[test]
    fn a_miss_is_known_until_it_is_removed_or_replaced() {
        let (mut misses, now) = (Misses::new(TTL), Instant::now());
        insert(&mut misses, "a", now);
        insert(&mut misses, "b", now);
        assert_eq!(misses.get(hash("a"), id("a")), Some((Miss::NotFound, now)));
        assert_eq!(
            misses.get(hash("a"), ObjectId { bucket: BucketId::for_test(1), ..id("a") }),
            None
        );
        misses.insert(hash("a"), id("a"), Miss::AccessDenied, (now, now));
        assert_eq!(misses.get(hash("a"), id("a")), Some((Miss::AccessDenied, now)));
        misses.remove(hash("a"), id("a"));
        assert!(!knows(&misses, "a") && knows(&misses, "b"));
        misses.free_expired(now + TTL);
        assert_eq!((misses.bytes, misses.table.len()), (0, 0));
    }

    #[test]
    fn the_oldest_makes_way_and_the_bytes_stay_bounded() {
        let (mut misses, now) = (Misses::new(TTL), Instant::now());
        let key = |number: usize| format!("{number:0>1000}");
        for number in 0..5_000 {
            misses.insert(number as u64, id(&key(number)), Miss::NotFound, (now, now));
            assert!(misses.bytes <= MISSES_BYTES);
        }
        let known = (0..5_000).filter(|&n| misses.get(n as u64, id(&key(n))).is_some());
        let known: Vec<_> = known.collect();
        assert_eq!(known.len(), MISSES_BYTES / (1_000 + ENTRY_BYTES));
        assert_eq!(known.last(), Some(&4_999));
    }

    #[test]
    fn one_key_that_is_missed_over_and_over_takes_no_more_than_its_share() {
        let (mut misses, now) = (Misses::new(TTL), Instant::now());
        for _ in 0..100_000 {
            insert(&mut misses, "a", now);
        }
        assert!(misses.bytes <= MISSES_BYTES && misses.table.len() == 1);
        assert!(knows(&misses, "a"));
    }

    #[test]
    fn what_has_expired_is_freed_first_and_all_room_in_the_end() {
        let (mut misses, start) = (Misses::new(TTL), Instant::now());
        for number in 0..10_000 {
            insert(&mut misses, &number.to_string(), start);
        }
        insert(&mut misses, "late", start + TTL);
        assert_eq!(misses.queue.len(), 1);
        misses.free_expired(start + TTL + TTL);
        assert!(misses.queue.is_empty() && misses.queue.capacity() < 1_000);
        assert!(misses.table.capacity() < 1_000);
    }
}
