//! The name of an object in its bucket: its key, and its version if the client asks for one.

use std::fmt;

use hashbrown::Equivalent;

use crate::http1::target::{DecodeError, percent_decode};
use crate::limits;
use crate::s3::bucket::BucketId;

/// The query parameter that names a version (Amazon S3 API Reference, `GetObject`).
const VERSION_ID: &str = "versionId";

/// The object that a request is for. Its memory is reused from request to request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectName {
    key: String,
    /// Empty for the latest version; a version id is never empty.
    version_id: String,
}

/// Identifies an object version in the caches of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId<'a> {
    /// The bucket.
    pub bucket: BucketId,
    /// The key, decoded.
    pub key: &'a str,
    /// `None` is the latest version.
    pub version_id: Option<&'a str>,
}

/// An [`ObjectId`] that owns its text. Both have the same hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnedObjectId {
    bucket: BucketId,
    key: Box<str>,
    version_id: Option<Box<str>>,
}

impl OwnedObjectId {
    /// The borrowed form, for comparisons.
    pub fn borrow(&self) -> ObjectId<'_> {
        ObjectId { bucket: self.bucket, key: &self.key, version_id: self.version_id.as_deref() }
    }
}

impl From<ObjectId<'_>> for OwnedObjectId {
    fn from(id: ObjectId<'_>) -> OwnedObjectId {
        let ObjectId { bucket, key, version_id } = id;
        OwnedObjectId { bucket, key: key.into(), version_id: version_id.map(Box::from) }
    }
}

/// Finds owned ids in a map without copying the text.
impl Equivalent<OwnedObjectId> for ObjectId<'_> {
    fn equivalent(&self, owned: &OwnedObjectId) -> bool {
        *self == owned.borrow()
    }
}

impl ObjectId<'_> {
    /// Length of key and version id, in bytes.
    pub fn text_bytes(&self) -> usize {
        self.key.len() + self.version_id.map_or(0, str::len)
    }
}

/// An invalid `versionId` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionIdError {
    /// Given more than once.
    #[error("versionId is given more than once")]
    Repeated,
    /// Without a value.
    #[error("versionId is empty")]
    Empty,
    /// Longer than [`limits::VERSION_ID_BYTES`].
    #[error("versionId is longer than 1024 bytes")]
    TooLong,
    /// Not "URL-ready", as S3's documents call it: contains other characters than visible ASCII, or
    /// an invalid `%`.
    #[error("versionId must consist of visible ASCII characters")]
    Malformed,
}

impl ObjectName {
    /// Clears the name; the caller writes the key into the returned empty string.
    pub fn start(&mut self) -> &mut String {
        self.version_id.clear();
        self.key.clear();
        &mut self.key
    }

    /// Reads the version from a query. Call it once after each [`start`](Self::start). Other
    /// parameters are ignored.
    ///
    /// # Errors
    /// See [`VersionIdError`]; the name must then not be used.
    pub fn read_version_id(&mut self, query: &str) -> Result<(), VersionIdError> {
        let mut values = query.split('&').filter_map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (name == VERSION_ID).then_some(value)
        });
        let Some(encoded) = values.next() else { return Ok(()) };
        if values.next().is_some() {
            return Err(VersionIdError::Repeated);
        }
        percent_decode(encoded, limits::VERSION_ID_BYTES, &mut self.version_id).map_err(
            |error| match error {
                DecodeError::TooLong => VersionIdError::TooLong,
                DecodeError::PercentSign | DecodeError::Utf8 | DecodeError::Nul => {
                    VersionIdError::Malformed
                }
            },
        )?;
        if self.version_id.is_empty() {
            return Err(VersionIdError::Empty);
        }
        if !self.version_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(VersionIdError::Malformed);
        }
        Ok(())
    }

    /// The key, as the bytes S3 stores it under.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The requested version, decoded; `None` for the latest.
    pub fn version_id(&self) -> Option<&str> {
        Some(&*self.version_id).filter(|version_id| !version_id.is_empty())
    }

    /// The object's key in caches.
    pub fn id(&self, bucket: BucketId) -> ObjectId<'_> {
        ObjectId { bucket, key: self.key(), version_id: self.version_id() }
    }
}

/// For the log: `"runs/a.bam" (version 3HL4kqtJlcpXroDTDmJ)`.
impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.key())?;
        match self.version_id() {
            Some(version_id) => write!(f, " (version {version_id})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    fn name(key: &str, query: &str) -> Result<ObjectName, VersionIdError> {
        let mut name = ObjectName::default();
        name.start().push_str(key);
        name.read_version_id(query).map(|()| name)
    }

    fn version_id(query: &str) -> Result<Option<String>, VersionIdError> {
        name("a.bam", query).map(|name| name.version_id().map(str::to_owned))
    }

    #[test]
    fn the_version_is_found_among_other_parameters() {
        for query in ["", "x=1", "versionid=v", "VersionId=v", "xversionId=v", "acl&versionId2=v"] {
            assert_eq!(version_id(query), Ok(None), "{query}");
        }
        let given = |id: &str| Ok(Some(id.to_owned()));
        assert_eq!(version_id("versionId=null"), given("null"));
        assert_eq!(version_id("acl&versionId=v.1_-~&uploads"), given("v.1_-~"));
        assert_eq!(version_id("versionId=a%2Fb%3d+="), given("a/b=+="));
    }

    #[test]
    fn a_version_id_that_s3_never_assigns_is_rejected() {
        use VersionIdError::{Empty, Malformed, Repeated, TooLong};
        for (query, error) in [
            ("versionId", Empty),
            ("versionId=", Empty),
            ("versionId=a&versionId=a", Repeated),
            ("versionId&x&versionId=a", Repeated),
            ("versionId=a%20b", Malformed),
            ("versionId=a%00", Malformed),
            ("versionId=%0D%0A", Malformed),
            ("versionId=%C3%A9", Malformed),
            ("versionId=%FF", Malformed),
            ("versionId=%4", Malformed),
        ] {
            assert_eq!(version_id(query), Err(error), "{query}");
        }
        assert_eq!(version_id(&format!("versionId={}", "v".repeat(1025))), Err(TooLong));
        assert!(version_id(&format!("versionId={}", "v".repeat(1024))).is_ok());
    }

    #[test]
    fn each_version_has_its_own_id() {
        let names = [("a", ""), ("a", "versionId=1"), ("a", "versionId=2"), ("a1", "versionId=2")];
        let names = names.map(|(key, query)| name(key, query).unwrap());
        let ids = names.each_ref().map(|name| name.id(BucketId::for_test(0)));
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id));
            assert_ne!(*id, names[index].id(BucketId::for_test(1)), "another bucket");
        }
        assert_eq!((names[1].key(), names[1].version_id()), ("a", Some("1")));
        assert_eq!(format!("{:?} {:?}", names[0], names[1]), "\"a\" \"a\" (version 1)");
    }

    #[test]
    fn an_owned_id_is_found_by_a_borrowed_one() {
        let hasher = foldhash::quality::RandomState::default();
        for query in ["", "versionId=1"] {
            let name = name("a", query).unwrap();
            let id = name.id(BucketId::for_test(7));
            let owned = OwnedObjectId::from(id);
            assert!(owned.borrow() == id && id.equivalent(&owned));
            assert_eq!(hasher.hash_one(id), hasher.hash_one(&owned));
        }
    }

    #[test]
    fn a_restarted_name_keeps_nothing_of_the_old_one() {
        let mut name = name("a.bam", "versionId=1").unwrap();
        name.start().push('b');
        assert_eq!((name.key(), name.version_id()), ("b", None));
    }
}
