//! The metadata map of one worker: what S3 said about a key, for as long as it is believed.
//!
//! An entry's age counts from the moment its request was sent, so that what is served from here
//! is never older than the time to live, however slow S3 was. A response to a request that was sent
//! before the one already known is not learned. What another worker has learned since makes an
//! entry void; [`Latest`] tells.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::cache::latest::{Fingerprint, Latest};
use crate::cache::misses::Misses;
use crate::s3::object::Metadata;
use crate::s3::object_name::{ObjectId, OwnedObjectId};

pub use crate::cache::misses::Miss;

/// What an operator may set about the metadata map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an object's metadata is believed; 0 asks S3 every time.
    pub ttl: Duration,
    /// How long "no such key" and "access denied" are believed; never longer than `ttl`.
    pub negative_ttl: Duration,
    /// Objects remembered per worker.
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

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The object exists.
    Object(Rc<Metadata>),
    /// There is nothing to serve.
    Miss(Miss),
}

/// The map. Full, it forgets the objects that have not been asked for in a while (the CLOCK
/// algorithm). Misses have room of their own.
pub struct MetadataMap {
    settings: Settings,
    latest: Arc<Latest>,
    /// Positions in `objects`.
    table: HashTable<usize>,
    objects: Vec<Entry>,
    hand: usize,
    misses: Misses,
}

struct Entry {
    hash: u64,
    id: OwnedObjectId,
    metadata: Rc<Metadata>,
    fingerprint: Fingerprint,
    /// When the request was sent that it was learned from; `None` once it is known to be wrong.
    asked: Option<Instant>,
    /// Asked for since the hand passed.
    used: bool,
}

impl MetadataMap {
    /// An empty map, whose entries count as long as `latest` confirms them.
    pub fn new(settings: Settings, latest: Arc<Latest>) -> MetadataMap {
        MetadataMap {
            misses: Misses::new(settings.negative_ttl.min(settings.ttl)),
            settings,
            latest,
            table: HashTable::new(),
            objects: Vec::new(),
            hand: 0,
        }
    }

    /// What is known of a key and still believed at `now`, if it is younger than `max_age`.
    pub fn get(&mut self, id: ObjectId<'_>, now: Instant, max_age: Duration) -> Option<Known> {
        let hash = self.latest.hash(id);
        let younger =
            |asked, ttl: Duration| now.saturating_duration_since(asked) < ttl.min(max_age);
        if let Some(position) = self.position(hash, id)
            && let entry = &mut self.objects[position]
            && let Some(asked) = entry.asked
        {
            let believed =
                younger(asked, self.settings.ttl) && self.latest.confirms(hash, entry.fingerprint);
            entry.used |= believed;
            return believed.then(|| Known::Object(Rc::clone(&entry.metadata)));
        }
        let (miss, asked) = self.misses.get(hash, id)?;
        let believed = younger(asked, self.misses.ttl())
            && self.latest.confirms(hash, Fingerprint::of_miss(miss));
        believed.then_some(Known::Miss(miss))
    }

    /// Learns an object's metadata from a response that arrived at `now`, to a request sent at
    /// `asked`. Copies it only if it differs from what is known.
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
        self.misses.remove(hash, id);
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

    /// Learns that there is nothing to serve, from a response that arrived at `now`, to a request
    /// sent at `asked`.
    pub fn learn_miss(&mut self, id: ObjectId<'_>, miss: Miss, asked: Instant, now: Instant) {
        let hash = self.latest.hash(id);
        self.latest.learn(hash, Fingerprint::of_miss(miss), asked, now);
        let position = self.position(hash, id);
        if self.settings.ttl.is_zero() || self.asked(position, hash, id) > Some(asked) {
            return;
        }
        if let Some(position) = position {
            self.objects[position].asked = None;
        }
        self.misses.insert(hash, id, miss, (asked, now));
    }

    /// Believes what is known of a key no longer, since S3 has said otherwise; nor do the other
    /// workers.
    pub fn forget(&mut self, id: ObjectId<'_>, now: Instant) {
        let hash = self.latest.hash(id);
        self.latest.doubt(hash, now);
        if let Some(position) = self.position(hash, id) {
            self.objects[position].asked = None;
        }
        self.misses.remove(hash, id);
    }

    /// Frees the memory of what has expired; to be called a few times a second.
    pub fn sweep(&mut self, now: Instant) {
        self.misses.free_expired(now);
    }

    /// When the request was sent that what is known of a key was learned from.
    fn asked(&self, position: Option<usize>, hash: u64, id: ObjectId<'_>) -> Option<Instant> {
        let object = position.and_then(|at| self.objects[at].asked);
        object.or_else(|| Some(self.misses.get(hash, id)?.1))
    }

    /// Puts an entry where there is room; forgets another one when full.
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

    /// Puts an entry in the place of one that has not been asked for, and returns where.
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

    /// What a map believes, however old it may be.
    fn get(map: &mut MetadataMap, key: &str, now: Instant) -> Option<Known> {
        map.get(id(key), now, Duration::MAX)
    }

    const NOT_FOUND: Known = Known::Miss(Miss::NotFound);

    fn object(size: u64) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.size = size;
        metadata
    }

    fn size(known: Option<Known>) -> Option<u64> {
        match known? {
            Known::Object(metadata) => Some(metadata.size),
            Known::Miss(_) => None,
        }
    }

    #[test]
    fn an_object_is_believed_for_its_time_to_live_and_not_a_moment_longer() {
        let (mut map, start) = (map(10), Instant::now());
        map.learn_object(id("a"), &object(1), start, start);
        let last = start + Duration::from_secs(300) - Duration::from_nanos(1);
        assert_eq!(size(get(&mut map, "a", last)), Some(1));
        assert_eq!(get(&mut map, "a", start + Duration::from_secs(300)), None);
    }

    #[test]
    fn a_missing_key_is_believed_for_a_shorter_time() {
        let (mut map, start) = (map(10), Instant::now());
        map.learn_miss(id("a"), Miss::NotFound, start, start);
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
    fn an_overtaken_response_is_not_learned_and_puts_the_other_in_doubt() {
        let (mut map, start) = (map(10), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        map.learn_object(id("a"), &object(2), at(1), at(2));
        map.learn_object(id("a"), &object(1), at(0), at(3));
        assert_eq!(get(&mut map, "a", at(3)), None);
        map.learn_object(id("a"), &object(2), at(3), at(4));
        assert_eq!(size(get(&mut map, "a", at(4))), Some(2));
        map.learn_miss(id("a"), Miss::NotFound, at(2), at(5));
        assert_eq!(get(&mut map, "a", at(5)), None);
    }

    #[test]
    fn what_is_older_than_the_client_accepts_is_not_given() {
        let (mut map, start) = (map(10), Instant::now());
        let (later, second) = (start + Duration::from_secs(2), Duration::from_secs(1));
        map.learn_object(id("a"), &object(1), start, start);
        map.learn_miss(id("b"), Miss::NotFound, start, start);
        for key in ["a", "b"] {
            assert_eq!(map.get(id(key), later, 2 * second), None);
            assert!(map.get(id(key), later, 3 * second).is_some());
            assert_eq!(map.get(id(key), start, Duration::ZERO), None);
        }
    }

    #[test]
    fn what_one_worker_learns_makes_the_memory_of_the_others_void() {
        let table = table();
        let worker = || MetadataMap::new(Settings::default(), Arc::clone(&table));
        let (mut one, mut two, now) = (worker(), worker(), Instant::now());
        one.learn_object(id("a"), &object(1), now, now);
        assert_eq!(size(get(&mut one, "a", now)), Some(1));
        // This one never knew the object as it was.
        two.learn_object(id("a"), &object(2), now, now);
        assert_eq!(get(&mut one, "a", now), None);
        one.learn_object(id("a"), &object(2), now, now);
        assert_eq!(size(get(&mut one, "a", now)), Some(2));
        assert_eq!(size(get(&mut two, "a", now)), Some(2));
        two.learn_miss(id("a"), Miss::NotFound, now, now);
        assert_eq!(get(&mut one, "a", now), None);
        one.learn_object(id("a"), &object(1), now, now);
        assert_eq!(get(&mut two, "a", now), None, "it was created again");
        one.forget(id("a"), now);
        two.learn_object(id("b"), &object(2), now, now);
        assert_eq!(get(&mut two, "a", now), None);
        assert_eq!(size(get(&mut two, "b", now)), Some(2));
    }

    #[test]
    fn what_is_forgotten_can_be_learned_again() {
        let (mut map, now) = (map(10), Instant::now());
        map.learn_object(id("a"), &object(1), now, now);
        map.forget(id("a"), now);
        assert_eq!(get(&mut map, "a", now), None);
        map.learn_object(id("a"), &object(1), now, now);
        assert_eq!(size(get(&mut map, "a", now)), Some(1));
    }

    #[test]
    fn a_full_map_forgets_what_nobody_asks_for() {
        let (mut map, now) = (map(4), Instant::now());
        for key in ["a", "b", "c", "d"] {
            map.learn_object(id(key), &object(1), now, now);
        }
        get(&mut map, "a", now);
        get(&mut map, "c", now);
        map.learn_object(id("e"), &object(1), now, now);
        map.learn_object(id("f"), &object(1), now, now);
        let known: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .into_iter()
            .filter(|key| get(&mut map, key, now).is_some())
            .collect();
        assert_eq!(known, ["a", "c", "e", "f"]);
        assert_eq!(map.table.len(), 4);
    }

    #[test]
    fn misses_push_out_no_object() {
        let (mut map, now) = (map(4), Instant::now());
        map.learn_object(id("a"), &object(1), now, now);
        for number in 0..70_000 {
            map.learn_miss(id(&format!("missing{number}")), Miss::NotFound, now, now);
        }
        assert_eq!(size(get(&mut map, "a", now)), Some(1));
        assert_eq!(map.objects.len(), 1);
    }

    #[test]
    fn a_time_to_live_of_zero_remembers_nothing() {
        let mut map =
            MetadataMap::new(Settings { ttl: Duration::ZERO, ..Settings::default() }, table());
        let now = Instant::now();
        map.learn_object(id("a"), &object(1), now, now);
        assert_eq!(get(&mut map, "a", now), None);
    }
}
