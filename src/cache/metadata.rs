//! The metadata cache of one worker: what S3 said about a key, used until its time to live is over.
//!
//! An entry's age counts from the moment its request was sent, so that nothing served from here is
//! older than the time to live, however slow S3 was. A response to a request that was sent before the
//! one that the entry came from is not stored. A response that another worker has received since can
//! make an entry invalid; [`Latest`] tells.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::cache::latest::{Fingerprint, Latest};
use crate::cache::negative::NegativeEntries;
use crate::s3::object::Metadata;
use crate::s3::object_name::{ObjectId, OwnedObjectId};

pub(crate) use crate::cache::negative::Negative;

/// Settings of the metadata cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an object's metadata is used; 0 asks S3 every time.
    pub ttl: Duration,
    /// How long "no such key" and "access denied" are used; never longer than `ttl`.
    pub negative_ttl: Duration,
    /// Objects in the cache of each worker.
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
    /// The object exists.
    Object(Rc<Metadata>),
    /// S3 has no object to serve.
    Negative(Negative),
}

/// The cache. When it is full, objects that have not been asked for in a while are evicted (the CLOCK
/// algorithm). Negative entries have room of their own.
pub struct MetadataMap {
    settings: Settings,
    latest: Arc<Latest>,
    /// Positions in `objects`.
    table: HashTable<usize>,
    objects: Vec<Entry>,
    hand: usize,
    negative: NegativeEntries,
}

struct Entry {
    hash: u64,
    id: OwnedObjectId,
    metadata: Rc<Metadata>,
    fingerprint: Fingerprint,
    /// When the request for it was sent; `None` once the entry is invalid.
    asked: Option<Instant>,
    /// There was a hit since the hand passed.
    used: bool,
}

impl MetadataMap {
    /// An empty cache, whose entries are valid as long as `latest` confirms them.
    pub fn new(settings: Settings, latest: Arc<Latest>) -> MetadataMap {
        MetadataMap {
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
            |asked, ttl: Duration| now.saturating_duration_since(asked) < ttl.min(max_age);
        if let Some(position) = self.position(hash, id)
            && let entry = &mut self.objects[position]
            && let Some(asked) = entry.asked
        {
            let is_hit =
                younger(asked, self.settings.ttl) && self.latest.confirms(hash, entry.fingerprint);
            entry.used |= is_hit;
            return is_hit.then(|| Cached::Object(Rc::clone(&entry.metadata)));
        }
        let (negative, asked) = self.negative.get(hash, id)?;
        let is_hit = younger(asked, self.negative.ttl())
            && self.latest.confirms(hash, Fingerprint::of_negative(negative));
        is_hit.then_some(Cached::Negative(negative))
    }

    /// Stores an object's metadata from a response that arrived at `now`, to a request sent at
    /// `asked`. Copies it only if it differs from the entry.
    pub fn learn_object(
        &mut self,
        id: ObjectId<'_>,
        metadata: &Metadata,
        asked: Instant,
        now: Instant,
    ) {
        let hash = self.latest.hash(id);
        let position = self.position(hash, id);
        let same =
            position.map(|at| &self.objects[at]).filter(|entry| *entry.metadata == *metadata);
        let (fingerprint, changed) = match same {
            Some(entry) => (entry.fingerprint, false),
            None => (self.latest.fingerprint(metadata), true),
        };
        self.latest.learn(hash, fingerprint, asked, now);
        if self.settings.ttl.is_zero() || self.asked(position, hash, id) > Some(asked) {
            return;
        }
        self.negative.remove(hash, id);
        let asked = Some(asked);
        let Some(position) = position else {
            let (id, metadata) = (id.into(), Rc::new(metadata.clone()));
            return self.insert(Entry { hash, id, metadata, fingerprint, asked, used: false });
        };
        let entry = &mut self.objects[position];
        entry.asked = asked;
        if changed {
            (entry.metadata, entry.fingerprint) = (Rc::new(metadata.clone()), fingerprint);
        }
    }

    /// Stores that S3 has no object to serve, from a response that arrived at `now`, to a request sent
    /// at `asked`.
    pub fn learn_negative(
        &mut self,
        id: ObjectId<'_>,
        negative: Negative,
        asked: Instant,
        now: Instant,
    ) {
        let hash = self.latest.hash(id);
        self.latest.learn(hash, Fingerprint::of_negative(negative), asked, now);
        let position = self.position(hash, id);
        if self.settings.ttl.is_zero() || self.asked(position, hash, id) > Some(asked) {
            return;
        }
        if let Some(position) = position {
            self.objects[position].asked = None;
        }
        self.negative.insert(hash, id, negative, (asked, now));
    }

    /// Invalidates the entries of a key in all workers, since a response of S3 contradicts them.
    pub fn invalidate(&mut self, id: ObjectId<'_>, now: Instant) {
        let hash = self.latest.hash(id);
        self.latest.doubt(hash, now);
        if let Some(position) = self.position(hash, id) {
            self.objects[position].asked = None;
        }
        self.negative.remove(hash, id);
    }

    /// Frees expired negative entries; to be called a few times a second.
    pub fn sweep(&mut self, now: Instant) {
        self.negative.free_expired(now);
    }

    /// When the request was sent that the entry of a key came from.
    fn asked(&self, position: Option<usize>, hash: u64, id: ObjectId<'_>) -> Option<Instant> {
        let object = position.and_then(|at| self.objects[at].asked);
        object.or_else(|| Some(self.negative.get(hash, id)?.1))
    }

    /// Adds an entry; evicts another one when full.
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

    /// Evicts an entry without a recent hit, puts another in its place and returns where that is.
    fn replace(&mut self, entry: Entry) -> usize {
        // Ends within two rounds: the first clears every mark at the latest.
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

    fn map(max_entries: usize) -> MetadataMap {
        MetadataMap::new(Settings { max_entries, ..Settings::default() }, table())
    }

    fn table() -> Arc<Latest> {
        Arc::new(Latest::new(1000))
    }

    /// The valid entry of a key, however old.
    fn get(map: &mut MetadataMap, key: &str, now: Instant) -> Option<Cached> {
        map.get(id(key), now, Duration::MAX)
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
    fn an_object_is_cached_for_its_time_to_live_and_not_a_moment_longer() {
        let (mut map, start) = (map(10), Instant::now());
        map.learn_object(id("a"), &object(1), start, start);
        let last = start + Duration::from_secs(300) - Duration::from_nanos(1);
        assert_eq!(size(get(&mut map, "a", last)), Some(1));
        assert_eq!(get(&mut map, "a", start + Duration::from_secs(300)), None);
    }

    #[test]
    fn a_missing_key_is_cached_for_a_shorter_time() {
        let (mut map, start) = (map(10), Instant::now());
        map.learn_negative(id("a"), Negative::NotFound, start, start);
        assert_eq!(get(&mut map, "a", start), Some(NOT_FOUND));
        assert_eq!(get(&mut map, "a", start + Duration::from_secs(5)), None);
    }

    #[test]
    fn keys_of_different_buckets_are_different() {
        let (mut map, now) = (map(10), Instant::now());
        map.learn_object(id("a"), &object(1), now, now);
        let other = ObjectId { bucket: BucketId::for_test(1), ..id("a") };
        assert_eq!(map.get(other, now, Duration::MAX), None);
    }

    #[test]
    fn a_changed_object_replaces_the_old_one_and_the_same_one_only_its_age() {
        let (mut map, start) = (map(10), Instant::now());
        let later = start + Duration::from_secs(200);
        map.learn_object(id("a"), &object(1), start, start);
        map.learn_object(id("a"), &object(1), later, later);
        assert_eq!(size(get(&mut map, "a", start + Duration::from_secs(400))), Some(1));
        map.learn_object(id("a"), &object(2), later, later);
        assert_eq!(size(get(&mut map, "a", later)), Some(2));
    }

    #[test]
    fn an_overtaken_response_is_not_stored_and_puts_the_other_in_doubt() {
        let (mut map, start) = (map(10), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        map.learn_object(id("a"), &object(2), at(1), at(2));
        map.learn_object(id("a"), &object(1), at(0), at(3));
        assert_eq!(get(&mut map, "a", at(3)), None);
        map.learn_object(id("a"), &object(2), at(3), at(4));
        assert_eq!(size(get(&mut map, "a", at(4))), Some(2));
        map.learn_negative(id("a"), Negative::NotFound, at(2), at(5));
        assert_eq!(get(&mut map, "a", at(5)), None);
    }

    #[test]
    fn an_entry_older_than_the_client_accepts_is_not_a_hit() {
        let (mut map, start) = (map(10), Instant::now());
        let (later, second) = (start + Duration::from_secs(2), Duration::from_secs(1));
        map.learn_object(id("a"), &object(1), start, start);
        map.learn_negative(id("b"), Negative::NotFound, start, start);
        for key in ["a", "b"] {
            assert_eq!(map.get(id(key), later, 2 * second), None);
            assert!(map.get(id(key), later, 3 * second).is_some());
            assert_eq!(map.get(id(key), start, Duration::ZERO), None);
        }
    }

    #[test]
    fn a_response_to_one_worker_invalidates_the_entries_of_the_others() {
        let table = table();
        let worker = || MetadataMap::new(Settings::default(), Arc::clone(&table));
        let (mut one, mut two, now) = (worker(), worker(), Instant::now());
        one.learn_object(id("a"), &object(1), now, now);
        assert_eq!(size(get(&mut one, "a", now)), Some(1));
        // This one never had the old object.
        two.learn_object(id("a"), &object(2), now, now);
        assert_eq!(get(&mut one, "a", now), None);
        one.learn_object(id("a"), &object(2), now, now);
        assert_eq!(size(get(&mut one, "a", now)), Some(2));
        assert_eq!(size(get(&mut two, "a", now)), Some(2));
        two.learn_negative(id("a"), Negative::NotFound, now, now);
        assert_eq!(get(&mut one, "a", now), None);
        one.learn_object(id("a"), &object(1), now, now);
        assert_eq!(get(&mut two, "a", now), None, "it was created again");
        one.invalidate(id("a"), now);
        two.learn_object(id("b"), &object(2), now, now);
        assert_eq!(get(&mut two, "a", now), None);
        assert_eq!(size(get(&mut two, "b", now)), Some(2));
    }

    #[test]
    fn an_invalidated_key_can_be_stored_again() {
        let (mut map, now) = (map(10), Instant::now());
        map.learn_object(id("a"), &object(1), now, now);
        map.invalidate(id("a"), now);
        assert_eq!(get(&mut map, "a", now), None);
        map.learn_object(id("a"), &object(1), now, now);
        assert_eq!(size(get(&mut map, "a", now)), Some(1));
    }

    #[test]
    fn a_full_cache_evicts_what_nobody_asks_for() {
        let (mut map, now) = (map(4), Instant::now());
        for key in ["a", "b", "c", "d"] {
            map.learn_object(id(key), &object(1), now, now);
        }
        get(&mut map, "a", now);
        get(&mut map, "c", now);
        map.learn_object(id("e"), &object(1), now, now);
        map.learn_object(id("f"), &object(1), now, now);
        let cached: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .into_iter()
            .filter(|key| get(&mut map, key, now).is_some())
            .collect();
        assert_eq!(cached, ["a", "c", "e", "f"]);
        assert_eq!(map.table.len(), 4);
    }

    #[test]
    fn negative_entries_evict_no_object() {
        let (mut map, now) = (map(4), Instant::now());
        map.learn_object(id("a"), &object(1), now, now);
        for number in 0..70_000 {
            map.learn_negative(id(&format!("missing{number}")), Negative::NotFound, now, now);
        }
        assert_eq!(size(get(&mut map, "a", now)), Some(1));
        assert_eq!(map.objects.len(), 1);
    }

    #[test]
    fn a_time_to_live_of_zero_caches_nothing() {
        let mut map =
            MetadataMap::new(Settings { ttl: Duration::ZERO, ..Settings::default() }, table());
        let now = Instant::now();
        map.learn_object(id("a"), &object(1), now, now);
        assert_eq!(get(&mut map, "a", now), None);
    }
}
