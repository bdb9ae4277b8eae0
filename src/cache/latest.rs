//! The latest response of S3 about each key, for all workers: a fingerprint of the `ETag`, size and
//! date, or that there is no object.
//!
//! Each worker has a metadata cache of its own. A lookup there is a hit only if this table has the
//! same fingerprint, so a response that tells one worker of a changed object invalidates the entries
//! of the others. That costs a lookup a few loads of one or two cache lines, and no lock.
//!
//! # Order
//!
//! A response describes the object at some moment between its request and its arrival. If it
//! contradicts one that arrived while it was on its way, nobody can tell which of the two is
//! newer. The key is then in doubt: no worker has a valid entry of it, until a response says the
//! same as the last one, and its request was sent after that one had arrived.
//!
//! # Limits
//!
//! The table has a fixed size. A key that was evicted, or never stored, has no valid entries, which
//! costs a request to S3 and is never wrong. Objects are evicted by objects only.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use foldhash::quality::RandomState;

use crate::cache::negative::Negative;
use crate::s3::object::Metadata;
use crate::s3::object_name::ObjectId;
use crate::sys::memory;

/// Slots that a key can be in. Their words fill a cache line.
const BUCKET_SLOTS: usize = 8;

/// Most slots of a table, of 16 bytes each: 256 MiB.
const MOST_SLOTS: usize = 1 << 24;

/// Locks of the writers, which are rare.
const LOCKS: usize = 64;

/// A response about a key, in 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u32);

impl Fingerprint {
    const NOT_FOUND: Fingerprint = Fingerprint(0);
    const ACCESS_DENIED: Fingerprint = Fingerprint(1);

    /// The fingerprint of a negative entry.
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

/// The table.
pub struct Latest {
    hasher: RandomState,
    /// Times in the table are nanoseconds since then.
    start: Instant,
    /// For each bucket the words of its slots, then the time each was written at.
    slots: Box<[AtomicU64]>,
    buckets: u64,
    writing: [Mutex<()>; LOCKS],
}

/// The word of one slot; 0 is a free one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const FREE: Word = Word(0);

    fn new(hash: u64, fingerprint: Fingerprint, in_doubt: bool) -> Word {
        Word((tag(hash) << 32) | (u64::from(fingerprint.0) << 1) | u64::from(in_doubt))
    }

    fn is_about(self, hash: u64) -> bool {
        self.0 >> 32 == tag(hash)
    }

    fn fingerprint(self) -> Fingerprint {
        Fingerprint((self.0 as u32) >> 1)
    }

    fn in_doubt(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Tells the keys of a bucket apart; never 0.
fn tag(hash: u64) -> u64 {
    (hash >> 32) | 1
}

impl Latest {
    /// A table for workers that cache `entries` objects each: with four slots for each, one object in
    /// thousands is evicted while there is room elsewhere.
    pub fn new(entries: usize) -> Latest {
        let slots = entries.saturating_mul(4).clamp(1024, MOST_SLOTS).next_power_of_two();
        Latest {
            hasher: RandomState::default(),
            start: Instant::now(),
            slots: memory::zeros(2 * slots),
            buckets: (slots / BUCKET_SLOTS) as u64,
            writing: [const { Mutex::new(()) }; LOCKS],
        }
    }

    /// The hash of a key, here and in the caches of the workers.
    pub fn hash(&self, id: ObjectId<'_>) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The fingerprint of an object.
    pub fn fingerprint(&self, metadata: &Metadata) -> Fingerprint {
        let validators = metadata.validators();
        let parts = (validators.etag, validators.last_modified, metadata.size);
        let hash = self.hasher.hash_one(parts);
        Fingerprint(((hash >> 33) as u32).max(Fingerprint::ACCESS_DENIED.0 + 1))
    }

    /// Whether this is the latest response about a key, and not in doubt.
    pub fn confirms(&self, hash: u64, fingerprint: Fingerprint) -> bool {
        let expected = Word::new(hash, fingerprint, false);
        self.words(hash).iter().any(|word| word.load(Ordering::Acquire) == expected.0)
    }

    /// Stores a response that arrived at `now`, to a request that was sent at `asked`.
    pub fn learn(&self, hash: u64, fingerprint: Fingerprint, asked: Instant, now: Instant) {
        // The usual case: nothing new. A missing key is stored again, since one that is created and
        // deleted within one moment looks the same before and after.
        if fingerprint.is_object() && self.confirms(hash, fingerprint) {
            return;
        }
        let _writing = self.lock(hash);
        let (asked, now) = (self.nanoseconds(asked), self.nanoseconds(now));
        let Some(slot) = self.slot(hash) else { return self.insert(hash, fingerprint, now) };
        let (word, since) = (self.word(hash, slot), self.since(hash, slot));
        let news = word.fingerprint() != fingerprint;
        let certain = asked >= since;
        if !news && word.in_doubt() && !certain {
            // It overlapped the last response, and so cannot end the doubt.
            return;
        }
        let in_doubt = news && !certain;
        self.write(hash, slot, Word::new(hash, fingerprint, in_doubt), now);
    }

    /// Puts a key in doubt: S3 has contradicted the latest response without saying what is true.
    pub fn doubt(&self, hash: u64, now: Instant) {
        let _writing = self.lock(hash);
        if let Some(slot) = self.slot(hash) {
            let fingerprint = self.word(hash, slot).fingerprint();
            let now = self.nanoseconds(now);
            self.write(hash, slot, Word::new(hash, fingerprint, true), now);
        }
    }

    /// Stores a new key: in a free slot, or in the place of the oldest missing key, or of the oldest
    /// object if it is an object itself.
    fn insert(&self, hash: u64, fingerprint: Fingerprint, now: u64) {
        let slot = (0..BUCKET_SLOTS)
            .filter(|&slot| {
                let word = self.word(hash, slot);
                word == Word::FREE || fingerprint.is_object() || !word.fingerprint().is_object()
            })
            .min_by_key(|&slot| {
                let word = self.word(hash, slot);
                let is_object = word.fingerprint().is_object();
                (word != Word::FREE, is_object, self.since(hash, slot))
            });
        if let Some(slot) = slot {
            self.write(hash, slot, Word::new(hash, fingerprint, false), now);
        }
    }

    /// The slot of a key in its bucket.
    fn slot(&self, hash: u64) -> Option<usize> {
        (0..BUCKET_SLOTS).find(|&slot| self.word(hash, slot).is_about(hash))
    }

    fn word(&self, hash: u64, slot: usize) -> Word {
        Word(self.words(hash)[slot].load(Ordering::Acquire))
    }

    fn since(&self, hash: u64, slot: usize) -> u64 {
        self.times(hash)[slot].load(Ordering::Relaxed)
    }

    /// The caller holds the lock of `hash`.
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

    /// The low bits; the high ones are the tag.
    fn bucket(&self, hash: u64) -> usize {
        (hash & (self.buckets - 1)) as usize
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, ()> {
        let lock = &self.writing[self.bucket(hash) % LOCKS];
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
    fn table_with(fingerprint: Fingerprint) -> (Latest, u64, impl Fn(u64) -> Instant) {
        let table = Latest::new(100);
        let start = table.start;
        let hash = table.hash(id(0, "a.bam"));
        table.learn(hash, fingerprint, start, start);
        (table, hash, move |second| start + Duration::from_secs(second))
    }

    #[test]
    fn the_latest_response_counts_for_all() {
        let (table, hash, at) = table_with(OLD);
        assert!(table.confirms(hash, OLD));
        for fingerprint in [NEW, GONE, Fingerprint::ACCESS_DENIED, OLD] {
            table.learn(hash, fingerprint, at(1), at(1));
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
        table.learn(hash, NEW, at(2), at(3));
        assert!(table.confirms(hash, NEW));
        // Sent before the other one arrived.
        table.learn(hash, OLD, at(1), at(4));
        assert!(!table.confirms(hash, OLD) && !table.confirms(hash, NEW));
        // So was this one: it still may be the older one.
        table.learn(hash, OLD, at(2), at(5));
        assert!(!table.confirms(hash, OLD));
        table.learn(hash, NEW, at(5), at(6));
        assert!(table.confirms(hash, NEW));
    }

    #[test]
    fn a_doubt_ends_while_requests_keep_overlapping() {
        let (table, hash, at) = table_with(OLD);
        table.learn(hash, NEW, at(1), at(3));
        table.learn(hash, OLD, at(2), at(4));
        table.learn(hash, NEW, at(3), at(5));
        assert!(!table.confirms(hash, NEW), "sent before the older response had arrived");
        // From now on all say the same, each sent before the one before it arrived.
        table.learn(hash, NEW, at(4), at(6));
        assert!(!table.confirms(hash, NEW), "sent before the first that said so had arrived");
        table.learn(hash, NEW, at(5), at(7));
        assert!(table.confirms(hash, NEW));
    }

    #[test]
    fn an_object_that_was_there_for_a_moment_is_not_confirmed_afterwards() {
        let (table, hash, at) = table_with(GONE);
        table.learn(hash, GONE, at(2), at(3));
        table.learn(hash, NEW, at(1), at(4));
        assert!(!table.confirms(hash, NEW) && !table.confirms(hash, GONE));
    }

    #[test]
    fn a_key_in_doubt_is_confirmed_again_when_s3_says_the_same() {
        let (table, hash, at) = table_with(OLD);
        table.doubt(hash, at(2));
        assert!(!table.confirms(hash, OLD));
        table.learn(hash, OLD, at(1), at(3));
        assert!(!table.confirms(hash, OLD));
        table.learn(hash, OLD, at(3), at(4));
        assert!(table.confirms(hash, OLD));
    }

    #[test]
    fn missing_keys_evict_no_object() {
        let (table, hash, at) = table_with(OLD);
        let others = |prefix: &str| {
            (0..50_000).map(|n| table.hash(id(0, &format!("{prefix}{n}")))).collect()
        };
        let missing: Vec<u64> = others("missing");
        let learn = |hashes: &[u64], fingerprint| {
            for (n, &hash) in hashes.iter().enumerate() {
                table.learn(hash, fingerprint, at(n as u64), at(n as u64));
            }
        };
        learn(&missing, GONE);
        assert!(table.confirms(hash, OLD));
        assert!(missing.iter().any(|&missing| table.confirms(missing, GONE)));
        let objects: Vec<u64> = others("object");
        learn(&objects, OLD);
        assert!(!missing.iter().any(|&missing| table.confirms(missing, GONE)));
        assert!(objects.iter().rev().take(100).all(|&object| table.confirms(object, OLD)));
    }

    #[test]
    fn a_fingerprint_is_that_of_etag_size_and_date() {
        let table = Latest::new(100);
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
