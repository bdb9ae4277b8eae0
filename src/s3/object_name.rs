//! The name of an object in its bucket: its key, and its version where one is asked for.

use std::fmt;

use crate::http1::target::{DecodeError, percent_decode};
use crate::limits;

/// The query parameter that names a version (Amazon S3 API Reference, `GetObject`).
const VERSION_ID: &str = "versionId";

/// A key and perhaps a version, in one text whose memory serves one request after the other.
///
/// A NUL stands between the two. Neither can hold one: `%00` is refused in both, and so is a NUL
/// in what the configuration puts into keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectName {
    text: String,
    /// Where the key ends, if a version follows.
    key_end: Option<usize>,
}

/// Why a `versionId` is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionIdError {
    /// It is given more than once.
    #[error("versionId is given more than once")]
    Repeated,
    /// It has no value.
    #[error("versionId is empty")]
    Empty,
    /// Longer than S3's are.
    #[error("versionId is longer than 1024 bytes")]
    TooLong,
    /// Not what S3 calls "URL-ready": something else than visible ASCII, or a `%` out of place.
    #[error("versionId holds something else than visible ASCII characters")]
    Malformed,
}

impl ObjectName {
    /// Starts a new name: the key is to be written into the empty text.
    pub fn start(&mut self) -> &mut String {
        self.key_end = None;
        self.text.clear();
        &mut self.text
    }

    /// Adds the version that a query asks for, if it asks for one. Called when the key is
    /// complete. All other parameters are passed over.
    ///
    /// # Errors
    /// See [`VersionIdError`]; the name is then of no use any more.
    pub fn read_version_id(&mut self, query: &str) -> Result<(), VersionIdError> {
        let mut values = query.split('&').filter_map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (name == VERSION_ID).then_some(value)
        });
        let Some(encoded) = values.next() else { return Ok(()) };
        if values.next().is_some() {
            return Err(VersionIdError::Repeated);
        }
        let key_end = self.text.len();
        self.text.push('\0');
        percent_decode(encoded, limits::VERSION_ID_BYTES, &mut self.text).map_err(|error| {
            match error {
                DecodeError::TooLong => VersionIdError::TooLong,
                DecodeError::PercentSign | DecodeError::Utf8 | DecodeError::Nul => {
                    VersionIdError::Malformed
                }
            }
        })?;
        let version_id = &self.text[key_end + 1..];
        if version_id.is_empty() {
            return Err(VersionIdError::Empty);
        }
        if !version_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(VersionIdError::Malformed);
        }
        self.key_end = Some(key_end);
        Ok(())
    }

    /// The key, as the bytes S3 stores it under.
    pub fn key(&self) -> &str {
        &self.text[..self.key_end.unwrap_or(self.text.len())]
    }

    /// The version that is asked for, decoded; `None` is the latest.
    pub fn version_id(&self) -> Option<&str> {
        Some(&self.text[self.key_end? + 1..])
    }

    /// Key and version in one, different for each pair of them: what an object is remembered
    /// under.
    pub fn as_str(&self) -> &str {
        &self.text
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
    fn a_version_is_taken_from_among_all_parameters() {
        for query in ["", "x=1", "versionid=v", "VersionId=v", "xversionId=v", "acl&versionId2=v"] {
            assert_eq!(version_id(query), Ok(None), "{query}");
        }
        let given = |id: &str| Ok(Some(id.to_owned()));
        assert_eq!(version_id("versionId=null"), given("null"));
        assert_eq!(version_id("acl&versionId=v.1_-~&uploads"), given("v.1_-~"));
        assert_eq!(version_id("versionId=a%2Fb%3d+="), given("a/b=+="));
    }

    #[test]
    fn a_version_that_s3_cannot_have_given_is_refused() {
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
    fn each_version_has_a_name_of_its_own() {
        let names = [("a", ""), ("a", "versionId=1"), ("a", "versionId=2"), ("a1", "versionId=2")];
        let names = names.map(|(key, query)| name(key, query).unwrap());
        for (index, one) in names.iter().enumerate() {
            assert!(names[..index].iter().all(|other| other.as_str() != one.as_str()));
        }
        assert_eq!((names[1].key(), names[1].version_id()), ("a", Some("1")));
        assert_eq!(format!("{:?} {:?}", names[0], names[1]), "\"a\" \"a\" (version 1)");
    }

    #[test]
    fn a_name_that_is_started_anew_has_nothing_of_the_old_one() {
        let mut name = name("a.bam", "versionId=1").unwrap();
        name.start().push('b');
        assert_eq!((name.key(), name.version_id(), name.as_str()), ("b", None, "b"));
    }
}
