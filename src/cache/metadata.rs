//! The metadata map of one core: what S3 said about a key, for as long as it is believed.
//!
//! An entry's age counts from the moment its request was sent, so that what is served from here
//! is never older than the time to live, however slow S3 was. An answer that was asked for
//! earlier than the one already known is not learned.

use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::s3::client::BucketId;
use crate::s3::object::Metadata;

/// What an operator may set about the metadata map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an object's metadata is believed; 0 asks S3 every time.
    pub ttl: Duration,
    /// How long "no such key" and "access denied" are believed; never longer than `ttl`.
    pub negative_ttl: Duration,
    /// Objects remembered per core.
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
    /// S3 has no such key.
    NotFound,
    /// S3 does not let the proxy read it.
    AccessDenied,
}

/// The map. Full, it forgets what has not been asked for in a while (the CLOCK algorithm).
pub struct MetadataMap {
    settings: Settings,
    hasher: RandomState,
    /// Positions in `entries`.
    table: HashTable<usize>,
    entries: Vec<Entry>,
    hand: usize,
}

struct Entry {
    bucket: BucketId,
    key: Box<str>,
    known: Known,
    /// When the request was sent that it was learned from; `None` once it is known to be wrong.
    asked: Option<Instant>,
    /// Asked for since the hand passed.
    used: bool,
}

impl MetadataMap {
    /// An empty map.
    pub fn new(settings: Settings) -> MetadataMap {
        MetadataMap {
            settings,
            hasher: RandomState::default(),
            table: HashTable::new(),
            entries: Vec::new(),
            hand: 0,
        }
    }

    /// What is known of a key and still believed at `now`.
    pub fn get(&mut self, bucket: BucketId, key: &str, now: Instant) -> Option<Known> {
        let position = self.position(bucket, key)?;
        let entry = &mut self.entries[position];
        let ttl = match entry.known {
            Known::Object(_) => self.settings.ttl,
            Known::NotFound | Known::AccessDenied => {
                self.settings.negative_ttl.min(self.settings.ttl)
            }
        };
        let age = |asked| now.saturating_duration_since(asked);
        let fresh = entry.asked.is_some_and(|asked| age(asked) < ttl);
        entry.used |= fresh;
        fresh.then(|| entry.known.clone())
    }

    /// Learns an object's metadata from an answer to a request sent at `asked`. Copies it only
    /// where it differs from what is known.
    pub fn learn_object(
        &mut self,
        bucket: BucketId,
        key: &str,
        metadata: &Metadata,
        asked: Instant,
    ) {
        if let Some(position) = self.position(bucket, key)
            && let entry = &mut self.entries[position]
            && matches!(&entry.known, Known::Object(known) if **known == *metadata)
        {
            entry.asked = entry.asked.max(Some(asked));
            return;
        }
        self.learn(bucket, key, Known::Object(Rc::new(metadata.clone())), asked);
    }

    /// Learns what is known of a key from an answer to a request sent at `asked`.
    pub fn learn(&mut self, bucket: BucketId, key: &str, known: Known, asked: Instant) {
        if self.settings.ttl.is_zero() || self.settings.max_entries == 0 {
            return;
        }
        if let Some(position) = self.position(bucket, key) {
            let entry = &mut self.entries[position];
            if entry.asked <= Some(asked) {
                (entry.known, entry.asked) = (known, Some(asked));
            }
            return;
        }
        let asked = Some(asked);
        let entry = Entry { bucket, key: key.into(), known, asked, used: false };
        let position = self.make_room(entry);
        let hash = self.hash(bucket, key);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.table.insert_unique(hash, position, |&position| {
            let entry = &entries[position];
            hasher.hash_one((entry.bucket, &*entry.key))
        });
    }

    /// Believes what is known of a key no longer, since S3 has said otherwise.
    pub fn forget(&mut self, bucket: BucketId, key: &str) {
        if let Some(position) = self.position(bucket, key) {
            self.entries[position].asked = None;
        }
    }

    /// Puts an entry where there is room and answers where; forgets another one when full.
    fn make_room(&mut self, entry: Entry) -> usize {
        if self.entries.len() < self.settings.max_entries {
            self.entries.push(entry);
            return self.entries.len() - 1;
        }
        // Ends within two rounds: the first clears every mark at the latest.
        while std::mem::take(&mut self.entries[self.hand].used) {
            self.hand = (self.hand + 1) % self.entries.len();
        }
        let position = self.hand;
        self.hand = (self.hand + 1) % self.entries.len();
        let old = std::mem::replace(&mut self.entries[position], entry);
        let hash = self.hash(old.bucket, &old.key);
        if let Ok(occupied) = self.table.find_entry(hash, |&other| other == position) {
            occupied.remove();
        }
        position
    }

    fn position(&self, bucket: BucketId, key: &str) -> Option<usize> {
        let is_it = |&position: &usize| {
            let entry = &self.entries[position];
            entry.bucket == bucket && *entry.key == *key
        };
        self.table.find(self.hash(bucket, key), is_it).copied()
    }

    fn hash(&self, bucket: BucketId, key: &str) -> u64 {
        self.hasher.hash_one((bucket, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: BucketId = BucketId(0);

    fn map(max_entries: usize) -> MetadataMap {
        MetadataMap::new(Settings { max_entries, ..Settings::default() })
    }

    fn object(size: u64) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.size = size;
        metadata
    }

    fn size(known: Option<Known>) -> Option<u64> {
        match known? {
            Known::Object(metadata) => Some(metadata.size),
            _ => None,
        }
    }

    #[test]
    fn an_object_is_believed_for_its_time_to_live_and_not_a_moment_longer() {
        let (mut map, start) = (map(10), Instant::now());
        map.learn_object(BUCKET, "a", &object(1), start);
        let last = start + Duration::from_secs(300) - Duration::from_nanos(1);
        assert_eq!(size(map.get(BUCKET, "a", last)), Some(1));
        assert_eq!(map.get(BUCKET, "a", start + Duration::from_secs(300)), None);
    }

    #[test]
    fn a_missing_key_is_believed_for_a_shorter_time() {
        let (mut map, start) = (map(10), Instant::now());
        map.learn(BUCKET, "a", Known::NotFound, start);
        assert_eq!(map.get(BUCKET, "a", start), Some(Known::NotFound));
        assert_eq!(map.get(BUCKET, "a", start + Duration::from_secs(5)), None);
    }

    #[test]
    fn keys_of_different_buckets_are_different() {
        let (mut map, now) = (map(10), Instant::now());
        map.learn_object(BUCKET, "a", &object(1), now);
        assert_eq!(map.get(BucketId(1), "a", now), None);
    }

    #[test]
    fn a_changed_object_replaces_the_old_one_and_the_same_one_only_its_age() {
        let (mut map, start) = (map(10), Instant::now());
        let later = start + Duration::from_secs(200);
        map.learn_object(BUCKET, "a", &object(1), start);
        map.learn_object(BUCKET, "a", &object(1), later);
        assert_eq!(size(map.get(BUCKET, "a", start + Duration::from_secs(400))), Some(1));
        map.learn_object(BUCKET, "a", &object(2), later);
        assert_eq!(size(map.get(BUCKET, "a", later)), Some(2));
    }

    #[test]
    fn an_answer_that_was_overtaken_is_not_learned() {
        let (mut map, start) = (map(10), Instant::now());
        map.learn_object(BUCKET, "a", &object(2), start + Duration::from_secs(1));
        map.learn_object(BUCKET, "a", &object(1), start);
        map.learn(BUCKET, "a", Known::NotFound, start);
        assert_eq!(size(map.get(BUCKET, "a", start + Duration::from_secs(1))), Some(2));
    }

    #[test]
    fn what_is_forgotten_can_be_learned_again() {
        let (mut map, now) = (map(10), Instant::now());
        map.learn_object(BUCKET, "a", &object(1), now);
        map.forget(BUCKET, "a");
        assert_eq!(map.get(BUCKET, "a", now), None);
        map.learn_object(BUCKET, "a", &object(1), now);
        assert_eq!(size(map.get(BUCKET, "a", now)), Some(1));
    }

    #[test]
    fn a_full_map_forgets_what_nobody_asks_for() {
        let (mut map, now) = (map(4), Instant::now());
        for key in ["a", "b", "c", "d"] {
            map.learn_object(BUCKET, key, &object(1), now);
        }
        map.get(BUCKET, "a", now);
        map.get(BUCKET, "c", now);
        map.learn_object(BUCKET, "e", &object(1), now);
        map.learn_object(BUCKET, "f", &object(1), now);
        let known: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .into_iter()
            .filter(|key| map.get(BUCKET, key, now).is_some())
            .collect();
        assert_eq!(known, ["a", "c", "e", "f"]);
        assert_eq!(map.table.len(), 4);
    }

    #[test]
    fn a_time_to_live_of_zero_remembers_nothing() {
        let mut map = MetadataMap::new(Settings { ttl: Duration::ZERO, ..Settings::default() });
        let now = Instant::now();
        map.learn_object(BUCKET, "a", &object(1), now);
        assert_eq!(map.get(BUCKET, "a", now), None);
    }
}
