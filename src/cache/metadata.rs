//! The metadata cache of one worker: object metadata and negative entries, each with a time to
//! live.
//!
//! An entry's age counts from the moment when its request was sent, so metadata is never used for
//! longer than its time to live, however slow S3 was. A response is not stored if its request was
//! sent before that of the current entry. A later response to another worker can make an entry
//! invalid: [`LatestResponses`] must confirm each hit.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::cache::latest::{Fingerprint, LatestResponses};
use crate::cache::negative::NegativeEntries;
use crate::s3::object::Metadata;
use crate::s3::object_name::{ObjectId, OwnedObjectId};

pub(crate) use crate::cache::negative::Negative;

/// Limits of a worker's metadata cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an object's metadata is used; 0 disables the cache.
    pub ttl: Duration,
    /// How long a 404 or 403 is used; never longer than `ttl`.
    pub negative_ttl: Duration,
    /// Largest number of objects in each worker's cache. Negative entries have a limit of their
    /// own.
    pub max_entries: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(5),
            max_entries: 65_536,
        }
    }
}

/// A cache hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    Object(Rc<Metadata>),
    Negative(Negative),
}

/// A full cache evicts objects without a recent hit (the CLOCK algorithm). Negative entries are
/// stored separately and never evict objects.
pub struct MetadataCache {
    settings: Settings,
    latest: Arc<LatestResponses>,
    /// Positions in `objects`.
    table: HashTable<usize>,
    objects: Vec<Entry>,
    /// The next candidate for eviction: a position in `objects`.
    hand: usize,
    negative: NegativeEntries,
}

struct Entry {
    hash: u64,
    id: OwnedObjectId,
    metadata: Rc<Metadata>,
    fingerprint: Fingerprint,
    /// When the request was sent; `None` once the entry is invalid.
    sent_at: Option<Instant>,
    /// Whether there was a hit since the hand passed.
    used: bool,
}

impl MetadataCache {
    /// An empty cache. `latest` is shared with the other workers.
    pub fn new(settings: Settings, latest: Arc<LatestResponses>) -> MetadataCache {
        MetadataCache {
            negative: NegativeEntries::new(settings.negative_ttl.min(settings.ttl)),
            settings,
            latest,
            table: HashTable::new(),
            objects: Vec::new(),
            hand: 0,
        }
    }

    /// The entry of a key, if it is valid at `now` and younger than `max_age`.
    pub fn get(&mut self, id: ObjectId<'_>, now: Instant, max_age: Duration) -> Option<Cached> {
        let hash = self.latest.hash(id);
        let younger =
            |sent_at, ttl: Duration| now.saturating_duration_since(sent_at) < ttl.min(max_age);
        if let Some(position) = self.position(hash, id)
            && let entry = &mut self.objects[position]
            && let Some(sent_at) = entry.sent_at
        {
            let is_hit = younger(sent_at, self.settings.ttl)
                && self.latest.confirms(hash, entry.fingerprint);
            entry.used |= is_hit;
            return is_hit.then(|| Cached::Object(Rc::clone(&entry.metadata)));
        }
        let (negative, sent_at) = self.negative.get(hash, id)?;
        let is_hit = younger(sent_at, self.negative.ttl())
            && self.latest.confirms(hash, Fingerprint::of_negative(negative));
        is_hit.then_some(Cached::Negative(negative))
    }

    /// Stores an object's metadata from a response. Clones it only if it differs from the entry.
    pub fn store_object(
        &mut self,
        id: ObjectId<'_>,
        metadata: &Metadata,
        sent_at: Instant,
        received_at: Instant,
    ) {
        let hash = self.latest.hash(id);
        let position = self.position(hash, id);
        let unchanged =
            position.map(|at| &self.objects[at]).filter(|entry| *entry.metadata == *metadata);
        let (fingerprint, changed) = match unchanged {
            Some(entry) => (entry.fingerprint, false),
            None => (self.latest.fingerprint(metadata), true),
        };
        self.latest.store(hash, fingerprint, sent_at, received_at);
        if self.settings.ttl.is_zero() || self.sent_at(position, hash, id) > Some(sent_at) {
            return;
        }
        self.negative.remove(hash, id);
        let sent_at = Some(sent_at);
        let Some(position) = position else {
            let (id, metadata) = (id.into(), Rc::new(metadata.clone()));
            return self.insert(Entry { hash, id, metadata, fingerprint, sent_at, used: false });
        };
        let entry = &mut self.objects[position];
        entry.sent_at = sent_at;
        if changed {
            (entry.metadata, entry.fingerprint) = (Rc::new(metadata.clone()), fingerprint);
        }
    }

    /// Stores a negative entry.
    pub fn store_negative(
        &mut self,
        id: ObjectId<'_>,
        negative: Negative,
        sent_at: Instant,
        received_at: Instant,
    ) {
        let hash = self.latest.hash(id);
        self.latest.store(hash, Fingerprint::of_negative(negative), sent_at, received_at);
        let position = self.position(hash, id);
        if self.settings.ttl.is_zero() || self.sent_at(position, hash, id) > Some(sent_at) {
            return;
        }
        if let Some(position) = position {
            self.objects[position].sent_at = None;
        }
        self.negative.insert(hash, id, negative, (sent_at, received_at));
    }

    /// Invalidates a key's entries in all workers, since a response of S3 contradicts them.
    pub fn invalidate(&mut self, id: ObjectId<'_>, now: Instant) {
        let hash = self.latest.hash(id);
        self.latest.put_in_doubt(hash, now);
        if let Some(position) = self.position(hash, id) {
            self.objects[position].sent_at = None;
        }
        self.negative.remove(hash, id);
    }

    /// Frees expired negative entries; called a few times a second.
    pub fn sweep(&mut self, now: Instant) {
        self.negative.free_expired(now);
    }

    /// When the request for a key's entry was sent.
    fn sent_at(&self, position: Option<usize>, hash: u64, id: ObjectId<'_>) -> Option<Instant> {
        let object = position.and_then(|at| self.objects[at].sent_at);
        object.or_else(|| Some(self.negative.get(hash, id)?.1))
    }

    fn insert(&mut self, entry: Entry) {
        let hash = entry.hash;
        let position = if self.objects.len() < self.settings.max_entries {
            self.objects.push(entry);
            self.objects.len() - 1
        } else {
            self.replace(entry)
        };
        let objects = &self.objects;
        self.table.insert_unique(hash, position, |&position| objects[position].hash);
    }

    /// Replaces an entry that had no recent hit, and returns its position.
    fn replace(&mut self, entry: Entry) -> usize {
        // Ends within two rounds, since the first clears `used` in every entry.
        while std::mem::take(&mut self.objects[self.hand].used) {
            self.hand = (self.hand + 1) % self.objects.len();
        }
        let position = self.hand;
        self.hand = (self.hand + 1) % self.objects.len();
        let old = std::mem::replace(&mut self.objects[position], entry);
        if let Ok(occupied) = self.table.find_entry(old.hash, |&other| other == position) {
            occupied.remove();
        }
        position
    }

    fn position(&self, hash: u64, id: ObjectId<'_>) -> Option<usize> {
        let is_it = |&position: &usize| self.objects[position].id.borrow() == id;
        self.table.find(hash, is_it).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::bucket::BucketId;

    fn id(key: &str) -> ObjectId<'_> {
        ObjectId { bucket: BucketId::for_test(0), key, version_id: None }
    }

    fn cache(max_entries: usize) -> MetadataCache {
        MetadataCache::new(Settings { max_entries, ..Settings::default() }, table())
    }

    fn table() -> Arc<LatestResponses> {
        Arc::new(LatestResponses::new(1000))
    }

    /// A key's valid entry, whatever its age.
    fn get(cache: &mut MetadataCache, key: &str, now: Instant) -> Option<Cached> {
        cache.get(id(key), now, Duration::MAX)
    }

    const NOT_FOUND: Cached = Cached::Negative(Negative::NotFound);

    fn object(size: u64) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.size = size;
        metadata
    }

    fn size(hit: Option<Cached>) -> Option<u64> {
        match hit? {
            Cached::Object(metadata) => Some(metadata.size),
            Cached::Negative(_) => None,
        }
    }

    #[test]
    fn an_object_is_cached_for_exactly_its_time_to_live() {
        let (mut cache, start) = (cache(10), Instant::now());
        cache.store_object(id("a"), &object(1), start, start);
        let last = start + Duration::from_secs(300) - Duration::from_nanos(1);
        assert_eq!(size(get(&mut cache, "a", last)), Some(1));
        assert_eq!(get(&mut cache, "a", start + Duration::from_secs(300)), None);
    }

    #[test]
    fn a_missing_key_is_cached_for_a_shorter_time() {
        let (mut cache, start) = (cache(10), Instant::now());
        cache.store_negative(id("a"), Negative::NotFound, start, start);
        assert_eq!(get(&mut cache, "a", start), Some(NOT_FOUND));
        assert_eq!(get(&mut cache, "a", start + Duration::from_secs(5)), None);
    }

    #[test]
    fn equal_keys_of_different_buckets_have_separate_entries() {
        let (mut cache, now) = (cache(10), Instant::now());
        cache.store_object(id("a"), &object(1), now, now);
        let other = ObjectId { bucket: BucketId::for_test(1), ..id("a") };
        assert_eq!(cache.get(other, now, Duration::MAX), None);
    }

    #[test]
    fn a_changed_object_replaces_the_entry_and_an_unchanged_one_renews_it() {
        let (mut cache, start) = (cache(10), Instant::now());
        let later = start + Duration::from_secs(200);
        cache.store_object(id("a"), &object(1), start, start);
        cache.store_object(id("a"), &object(1), later, later);
        assert_eq!(size(get(&mut cache, "a", start + Duration::from_secs(400))), Some(1));
        cache.store_object(id("a"), &object(2), later, later);
        assert_eq!(size(get(&mut cache, "a", later)), Some(2));
    }

    #[test]
    fn an_overtaken_response_is_not_stored_and_puts_the_key_in_doubt() {
        let (mut cache, start) = (cache(10), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        cache.store_object(id("a"), &object(2), at(1), at(2));
        cache.store_object(id("a"), &object(1), at(0), at(3));
        assert_eq!(get(&mut cache, "a", at(3)), None);
        cache.store_object(id("a"), &object(2), at(3), at(4));
        assert_eq!(size(get(&mut cache, "a", at(4))), Some(2));
        cache.store_negative(id("a"), Negative::NotFound, at(2), at(5));
        assert_eq!(get(&mut cache, "a", at(5)), None);
    }

    #[test]
    fn an_entry_older_than_the_client_accepts_is_not_a_hit() {
        let (mut cache, start) = (cache(10), Instant::now());
        let (later, second) = (start + Duration::from_secs(2), Duration::from_secs(1));
        cache.store_object(id("a"), &object(1), start, start);
        cache.store_negative(id("b"), Negative::NotFound, start, start);
        for key in ["a", "b"] {
            assert_eq!(cache.get(id(key), later, 2 * second), None);
            assert!(cache.get(id(key), later, 3 * second).is_some());
            assert_eq!(cache.get(id(key), start, Duration::ZERO), None);
        }
    }

    #[test]
    fn a_response_to_one_worker_invalidates_the_entries_of_the_others() {
        let table = table();
        let worker = || MetadataCache::new(Settings::default(), Arc::clone(&table));
        let (mut one, mut two, now) = (worker(), worker(), Instant::now());
        one.store_object(id("a"), &object(1), now, now);
        assert_eq!(size(get(&mut one, "a", now)), Some(1));
        // This worker never cached the old object.
        two.store_object(id("a"), &object(2), now, now);
        assert_eq!(get(&mut one, "a", now), None);
        one.store_object(id("a"), &object(2), now, now);
        assert_eq!(size(get(&mut one, "a", now)), Some(2));
        assert_eq!(size(get(&mut two, "a", now)), Some(2));
        two.store_negative(id("a"), Negative::NotFound, now, now);
        assert_eq!(get(&mut one, "a", now), None);
        one.store_object(id("a"), &object(1), now, now);
        assert_eq!(get(&mut two, "a", now), None, "the object was created again");
        one.invalidate(id("a"), now);
        two.store_object(id("b"), &object(2), now, now);
        assert_eq!(get(&mut two, "a", now), None);
        assert_eq!(size(get(&mut two, "b", now)), Some(2));
    }

    #[test]
    fn an_invalidated_key_can_be_stored_again() {
        let (mut cache, now) = (cache(10), Instant::now());
        cache.store_object(id("a"), &object(1), now, now);
        cache.invalidate(id("a"), now);
        assert_eq!(get(&mut cache, "a", now), None);
        cache.store_object(id("a"), &object(1), now, now);
        assert_eq!(size(get(&mut cache, "a", now)), Some(1));
    }

    #[test]
    fn a_full_cache_evicts_entries_without_hits() {
        let (mut cache, now) = (cache(4), Instant::now());
        for key in ["a", "b", "c", "d"] {
            cache.store_object(id(key), &object(1), now, now);
        }
        get(&mut cache, "a", now);
        get(&mut cache, "c", now);
        cache.store_object(id("e"), &object(1), now, now);
        cache.store_object(id("f"), &object(1), now, now);
        let cached: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .into_iter()
            .filter(|key| get(&mut cache, key, now).is_some())
            .collect();
        assert_eq!(cached, ["a", "c", "e", "f"]);
        assert_eq!(cache.table.len(), 4);
    }

    #[test]
    fn negative_entries_never_evict_objects() {
        let (mut cache, now) = (cache(4), Instant::now());
        cache.store_object(id("a"), &object(1), now, now);
        for number in 0..70_000 {
            cache.store_negative(id(&format!("missing{number}")), Negative::NotFound, now, now);
        }
        assert_eq!(size(get(&mut cache, "a", now)), Some(1));
        assert_eq!(cache.objects.len(), 1);
    }

    #[test]
    fn a_time_to_live_of_zero_disables_the_cache() {
        let mut cache =
            MetadataCache::new(Settings { ttl: Duration::ZERO, ..Settings::default() }, table());
        let now = Instant::now();
        cache.store_object(id("a"), &object(1), now, now);
        assert_eq!(get(&mut cache, "a", now), None);
    }
}
