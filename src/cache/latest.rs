//! A fingerprint of S3's latest response for each key, shared by all workers.
//!
//! The fingerprint of an object covers its `ETag`, size and `Last-Modified`; 404 and 403 have
//! fingerprints of their own. Each worker has its own metadata cache, and a lookup there is a hit
//! only if this table has the same fingerprint. So when one worker receives a response for a
//! changed object, the entries of all others become invalid. A lookup costs a few loads from one or
//! two cache lines and takes no lock.
//!
//! # Order
//!
//! A response describes the object at some moment between the sending of its request and its
//! arrival. If two responses overlap in time and differ, it is unknown which is newer. The key is
//! then *in doubt*, and all its entries are invalid, until a response repeats the last fingerprint
//! and its request was sent after the response with that fingerprint arrived.
//!
//! # Limits
//!
//! The table has a fixed size. A key that was evicted or never stored has no valid entries; that
//! costs a request to S3, but never serves stale metadata. 404s and 403s never evict objects.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use foldhash::quality::RandomState;

use crate::cache::negative::Negative;
use crate::s3::object::Metadata;
use crate::s3::object_name::ObjectId;
use crate::sys::memory;

/// Slots of a bucket. Their words fill a cache line.
const BUCKET_SLOTS: usize = 8;

/// Upper limit for a table's size: slots take 16 bytes each, so this is 256 MiB.
const MAX_SLOTS: usize = 1 << 24;

/// Locks for writers. Writes are rare: only new keys, changed objects, 404s and 403s.
const LOCKS: usize = 64;

/// A response for a key, condensed to 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u32);

impl Fingerprint {
    const NOT_FOUND: Fingerprint = Fingerprint(0);
    const ACCESS_DENIED: Fingerprint = Fingerprint(1);

    pub fn of_negative(negative: Negative) -> Fingerprint {
        match negative {
            Negative::NotFound => Fingerprint::NOT_FOUND,
            Negative::AccessDenied => Fingerprint::ACCESS_DENIED,
        }
    }

    fn is_object(self) -> bool {
        self.0 > Fingerprint::ACCESS_DENIED.0
    }
}

/// A hash table of buckets that readers access without locks.
pub struct LatestResponses {
    hasher: RandomState,
    /// Times in the table are nanoseconds since this.
    start: Instant,
    /// For each bucket: the words of its slots, then the times when they were written.
    slots: Box<[AtomicU64]>,
    buckets: u64,
    write_locks: [Mutex<()>; LOCKS],
}

/// The content of one slot, from the highest bit: the key's tag, the fingerprint, and whether the
/// key is in doubt. 0 is a free slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const FREE: Word = Word(0);

    fn new(hash: u64, fingerprint: Fingerprint, in_doubt: bool) -> Word {
        Word((tag(hash) << 32) | (u64::from(fingerprint.0) << 1) | u64::from(in_doubt))
    }

    fn is_of(self, hash: u64) -> bool {
        self.0 >> 32 == tag(hash)
    }

    fn fingerprint(self) -> Fingerprint {
        Fingerprint((self.0 as u32) >> 1)
    }

    fn in_doubt(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Distinguishes the keys of a bucket; never 0.
fn tag(hash: u64) -> u64 {
    (hash >> 32) | 1
}

impl LatestResponses {
    /// A table for workers that cache `entries` objects each. With four slots per entry, only one
    /// object in thousands is evicted from a full bucket while other buckets have free slots.
    pub fn new(entries: usize) -> LatestResponses {
        let slots = entries.saturating_mul(4).clamp(1024, MAX_SLOTS).next_power_of_two();
        LatestResponses {
            hasher: RandomState::default(),
            start: Instant::now(),
            slots: memory::zeros(2 * slots),
            buckets: (slots / BUCKET_SLOTS) as u64,
            write_locks: [const { Mutex::new(()) }; LOCKS],
        }
    }

    /// The hash of a key, used here and in the workers' caches.
    pub fn hash(&self, id: ObjectId<'_>) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The fingerprint of an object's validators and size.
    pub fn fingerprint(&self, metadata: &Metadata) -> Fingerprint {
        let validators = metadata.validators();
        let parts = (validators.etag, validators.last_modified, metadata.size);
        let hash = self.hasher.hash_one(parts);
        Fingerprint(((hash >> 33) as u32).max(Fingerprint::ACCESS_DENIED.0 + 1))
    }

    /// Whether this is the key's latest fingerprint, and not in doubt.
    pub fn confirms(&self, hash: u64, fingerprint: Fingerprint) -> bool {
        let expected = Word::new(hash, fingerprint, false);
        self.words(hash).iter().any(|word| word.load(Ordering::Acquire) == expected.0)
    }

    /// Stores the fingerprint of a response.
    pub fn store(
        &self,
        hash: u64,
        fingerprint: Fingerprint,
        sent_at: Instant,
        received_at: Instant,
    ) {
        // The usual case: no change. Negative fingerprints are stored again to update their time:
        // an object that existed only between two 404s must not become valid when its response is
        // late.
        if fingerprint.is_object() && self.confirms(hash, fingerprint) {
            return;
        }
        let _lock = self.lock(hash);
        let (sent_at, received_at) = (self.nanoseconds(sent_at), self.nanoseconds(received_at));
        let Some(slot) = self.slot(hash) else {
            return self.insert(hash, fingerprint, received_at);
        };
        let (word, written_at) = (self.word(hash, slot), self.written_at(hash, slot));
        let differs = word.fingerprint() != fingerprint;
        let overlaps = sent_at < written_at;
        if !differs && word.in_doubt() && overlaps {
            return;
        }
        let in_doubt = differs && overlaps;
        self.write(hash, slot, Word::new(hash, fingerprint, in_doubt), received_at);
    }

    /// Puts a key in doubt: a response of S3 contradicts the latest one, but has no metadata to
    /// replace it.
    pub fn put_in_doubt(&self, hash: u64, now: Instant) {
        let _lock = self.lock(hash);
        if let Some(slot) = self.slot(hash) {
            let fingerprint = self.word(hash, slot).fingerprint();
            let now = self.nanoseconds(now);
            self.write(hash, slot, Word::new(hash, fingerprint, true), now);
        }
    }

    /// Stores a new key in a free slot, or else in place of the oldest negative fingerprint, or
    /// else, if it is an object, of the oldest object.
    fn insert(&self, hash: u64, fingerprint: Fingerprint, now: u64) {
        let slot = (0..BUCKET_SLOTS)
            .filter(|&slot| {
                let word = self.word(hash, slot);
                word == Word::FREE || fingerprint.is_object() || !word.fingerprint().is_object()
            })
            .min_by_key(|&slot| {
                let word = self.word(hash, slot);
                let is_object = word.fingerprint().is_object();
                (word != Word::FREE, is_object, self.written_at(hash, slot))
            });
        if let Some(slot) = slot {
            self.write(hash, slot, Word::new(hash, fingerprint, false), now);
        }
    }

    fn slot(&self, hash: u64) -> Option<usize> {
        (0..BUCKET_SLOTS).find(|&slot| self.word(hash, slot).is_of(hash))
    }

    fn word(&self, hash: u64, slot: usize) -> Word {
        Word(self.words(hash)[slot].load(Ordering::Acquire))
    }

    fn written_at(&self, hash: u64, slot: usize) -> u64 {
        self.times(hash)[slot].load(Ordering::Relaxed)
    }

    /// The caller must hold the lock of `hash`.
    fn write(&self, hash: u64, slot: usize, word: Word, now: u64) {
        self.times(hash)[slot].store(now, Ordering::Relaxed);
        self.words(hash)[slot].store(word.0, Ordering::Release);
    }

    fn words(&self, hash: u64) -> &[AtomicU64] {
        let start = self.bucket(hash) * 2 * BUCKET_SLOTS;
        &self.slots[start..start + BUCKET_SLOTS]
    }

    fn times(&self, hash: u64) -> &[AtomicU64] {
        let start = self.bucket(hash) * 2 * BUCKET_SLOTS + BUCKET_SLOTS;
        &self.slots[start..start + BUCKET_SLOTS]
    }

    /// Uses the low bits of the hash, since [`tag`] uses the high ones.
    fn bucket(&self, hash: u64) -> usize {
        (hash & (self.buckets - 1)) as usize
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, ()> {
        let lock = &self.write_locks[self.bucket(hash) % LOCKS];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanoseconds(&self, time: Instant) -> u64 {
        // Enough for 584 years.
        time.saturating_duration_since(self.start).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http1::response::ResponseHead;
    use crate::s3::bucket::BucketId;
    use crate::s3::object::Shown;

    const OLD: Fingerprint = Fingerprint(10);
    const NEW: Fingerprint = Fingerprint(11);
    const GONE: Fingerprint = Fingerprint::NOT_FOUND;

    fn id(bucket: u64, key: &str) -> ObjectId<'_> {
        ObjectId { bucket: BucketId::for_test(bucket), key, version_id: None }
    }

    /// A table and the hash of one key, stored at second 0.
    fn table_with(fingerprint: Fingerprint) -> (LatestResponses, u64, impl Fn(u64) -> Instant) {
        let table = LatestResponses::new(100);
        let start = table.start;
        let hash = table.hash(id(0, "a.bam"));
        table.store(hash, fingerprint, start, start);
        (table, hash, move |second| start + Duration::from_secs(second))
    }

    #[test]
    fn only_the_latest_response_is_confirmed() {
        let (table, hash, at) = table_with(OLD);
        assert!(table.confirms(hash, OLD));
        for fingerprint in [NEW, GONE, Fingerprint::ACCESS_DENIED, OLD] {
            table.store(hash, fingerprint, at(1), at(1));
            let all = [OLD, NEW, GONE, Fingerprint::ACCESS_DENIED];
            let confirmed: Vec<_> =
                all.into_iter().filter(|&one| table.confirms(hash, one)).collect();
            assert_eq!(confirmed, [fingerprint]);
        }
    }

    #[test]
    fn a_key_that_was_never_stored_is_not_confirmed() {
        let (table, _, _) = table_with(OLD);
        assert!(!table.confirms(table.hash(id(0, "b.bam")), OLD));
        assert!(!table.confirms(table.hash(id(1, "a.bam")), OLD));
    }

    #[test]
    fn of_two_contradicting_responses_that_overlapped_neither_is_confirmed() {
        let (table, hash, at) = table_with(OLD);
        table.store(hash, NEW, at(2), at(3));
        assert!(table.confirms(hash, NEW));
        // Sent before the other response arrived.
        table.store(hash, OLD, at(1), at(4));
        assert!(!table.confirms(hash, OLD) && !table.confirms(hash, NEW));
        // This one too: it may still be the older of the two.
        table.store(hash, OLD, at(2), at(5));
        assert!(!table.confirms(hash, OLD));
        table.store(hash, NEW, at(5), at(6));
        assert!(table.confirms(hash, NEW));
    }

    #[test]
    fn a_key_leaves_doubt_even_if_requests_keep_overlapping() {
        let (table, hash, at) = table_with(OLD);
        table.store(hash, NEW, at(1), at(3));
        table.store(hash, OLD, at(2), at(4));
        table.store(hash, NEW, at(3), at(5));
        assert!(!table.confirms(hash, NEW), "sent before the conflicting response arrived");
        // From now on all fingerprints are equal; each request overlaps the one before it.
        table.store(hash, NEW, at(4), at(6));
        assert!(
            !table.confirms(hash, NEW),
            "sent before the first response with this fingerprint arrived"
        );
        table.store(hash, NEW, at(5), at(7));
        assert!(table.confirms(hash, NEW));
    }

    #[test]
    fn an_object_that_existed_only_between_two_404s_is_not_confirmed() {
        let (table, hash, at) = table_with(GONE);
        table.store(hash, GONE, at(2), at(3));
        table.store(hash, NEW, at(1), at(4));
        assert!(!table.confirms(hash, NEW) && !table.confirms(hash, GONE));
    }

    #[test]
    fn a_key_in_doubt_is_confirmed_when_s3_repeats_its_response() {
        let (table, hash, at) = table_with(OLD);
        table.put_in_doubt(hash, at(2));
        assert!(!table.confirms(hash, OLD));
        table.store(hash, OLD, at(1), at(3));
        assert!(!table.confirms(hash, OLD));
        table.store(hash, OLD, at(3), at(4));
        assert!(table.confirms(hash, OLD));
    }

    #[test]
    fn missing_keys_never_evict_objects() {
        let (table, hash, at) = table_with(OLD);
        let others = |prefix: &str| {
            (0..50_000).map(|n| table.hash(id(0, &format!("{prefix}{n}")))).collect()
        };
        let missing: Vec<u64> = others("missing");
        let store = |hashes: &[u64], fingerprint| {
            for (n, &hash) in hashes.iter().enumerate() {
                table.store(hash, fingerprint, at(n as u64), at(n as u64));
            }
        };
        store(&missing, GONE);
        assert!(table.confirms(hash, OLD));
        assert!(missing.iter().any(|&missing| table.confirms(missing, GONE)));
        let objects: Vec<u64> = others("object");
        store(&objects, OLD);
        assert!(!missing.iter().any(|&missing| table.confirms(missing, GONE)));
        assert!(objects.iter().rev().take(100).all(|&object| table.confirms(object, OLD)));
    }

    #[test]
    fn a_fingerprint_covers_etag_size_and_date() {
        let table = LatestResponses::new(100);
        let object = |head: &str| {
            let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
            let parsed = ResponseHead::parse(head.as_bytes()).unwrap();
            let mut metadata = Metadata::default();
            let shown =
                Shown { content_encoding: true, version_id: true, default_cache_control: None };
            assert!(metadata.read(&parsed, head.as_bytes(), shown));
            table.fingerprint(&metadata)
        };
        let date = "Last-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n";
        let one = object(&format!("ETag: \"e\"\r\nContent-Length: 5\r\n{date}"));
        assert!(one.is_object());
        assert_eq!(
            one,
            object(&format!("Content-Length: 5\r\nContent-Type: a/b\r\nETag: \"e\"\r\n{date}"))
        );
        assert_ne!(one, object(&format!("ETag: \"f\"\r\nContent-Length: 5\r\n{date}")));
        assert_ne!(one, object(&format!("ETag: \"e\"\r\nContent-Length: 6\r\n{date}")));
        assert_ne!(one, object("ETag: \"e\"\r\nContent-Length: 5\r\n"));
    }
}
