//! Mounts: the mapping from URL paths to buckets and keys.

use std::sync::Arc;

use crate::http1::target::{DecodeError, hex_pair};
use crate::limits;
use crate::s3::bucket::Bucket;

/// A bucket, or a prefix of it, that is served below a URL path.
#[derive(Debug)]
pub struct Mount {
    /// The URL path, starting and ending with `/`, for example `/files/`.
    pub path: String,
    /// Prepended to every key, unchanged; empty for the whole bucket.
    pub prefix: String,
    /// The bucket with its endpoint and credentials.
    pub bucket: Arc<Bucket>,
    /// Whether clients may select a version of an object by `versionId`.
    pub allow_version_id: bool,
    /// Whether a key that S3 denies access to is treated as one that does not exist.
    pub denied_is_missing: bool,
    /// `Cache-Control` of objects that are stored without one; `None` sends none.
    pub cache_control: Option<String>,
}

/// Why a path does not name an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// It is not below any mount's path.
    NotMounted,
    /// It is a mount's path, with or without the slash at its end, so the key is empty.
    NoKey,
}

/// Finds the mount of a path, and the rest of the path, still percent-encoded. `mounts` must be
/// ordered by length of their paths, longest first, so that the first match is the most specific
/// one.
///
/// # Errors
/// See [`NoRoute`].
pub(crate) fn route<'m, 'p>(
    mounts: &'m [Arc<Mount>],
    path: &'p str,
) -> Result<(&'m Arc<Mount>, &'p str), NoRoute> {
    let found = mounts.iter().find_map(|mount| Some((mount, rest_after(path, &mount.path)?)));
    match found {
        Some((_, "")) => Err(NoRoute::NoKey),
        Some(found) => Ok(found),
        None if is_mount_without_slash(mounts, path) => Err(NoRoute::NoKey),
        None => Err(NoRoute::NotMounted),
    }
}

fn is_mount_without_slash(mounts: &[Arc<Mount>], path: &str) -> bool {
    let without_slash = |mount: &Arc<Mount>| rest_after(path, mount.path.trim_end_matches('/'));
    path != "/" && mounts.iter().any(|mount| without_slash(mount) == Some(""))
}

/// The rest of `path` after `mount`. A percent-encoded character equals the character itself (RFC
/// 3986 §6.2.2.2), except for the slash, which is a delimiter only if it is not encoded (§2.2).
fn rest_after<'p>(path: &'p str, mount: &str) -> Option<&'p str> {
    if let Some(rest) = path.strip_prefix(mount) {
        return Some(rest);
    }
    let mut position = 0;
    for &wanted in mount.as_bytes() {
        match &path.as_bytes()[position..] {
            [byte, ..] if *byte == wanted => position += 1,
            [b'%', high, low, ..] if wanted != b'/' && hex_pair(*high, *low) == Some(wanted) => {
                position += 3;
            }
            _ => return None,
        }
    }
    path.get(position..)
}

impl Mount {
    /// Prepends the mount's prefix to a key.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] if both together exceed [`limits::KEY_BYTES`].
    pub fn prepend_prefix(&self, key: &mut String) -> Result<(), DecodeError> {
        key.insert_str(0, &self.prefix);
        if key.len() > limits::KEY_BYTES { Err(DecodeError::TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::endpoint::{Addressing, Aws, Endpoint};

    fn mount(path: &str, prefix: &str) -> Arc<Mount> {
        let endpoint = Endpoint::Aws(Aws::default());
        let bucket = Bucket::new("lab".to_owned(), "us-east-1", endpoint, Addressing::Path, None);
        let (path, prefix) = (path.to_owned(), prefix.to_owned());
        Arc::new(Mount {
            path,
            prefix,
            bucket: Arc::new(bucket),
            allow_version_id: false,
            denied_is_missing: false,
            cache_control: None,
        })
    }

    fn with_prefix(mount: &Mount, key: &str) -> Result<String, DecodeError> {
        let mut key = key.to_owned();
        mount.prepend_prefix(&mut key).map(|()| key)
    }

    #[test]
    fn the_longest_matching_mount_wins() {
        let mounts = [mount("/files/runs/", ""), mount("/files/", "")];
        let found = |path| route(&mounts, path).map(|(mount, rest)| (mount.path.as_str(), rest));
        assert_eq!(found("/files/runs/a"), Ok(("/files/runs/", "a")));
        assert_eq!(found("/files/a"), Ok(("/files/", "a")));
        assert_eq!(found("/files//runs/"), Ok(("/files/", "/runs/")));
        for path in ["/", "", "/file", "/files2", "/Files/a", "/x/files/a"] {
            assert_eq!(found(path), Err(NoRoute::NotMounted), "{path}");
        }
        for path in ["/files", "/%66iles", "/files/", "/files/runs/"] {
            assert_eq!(found(path), Err(NoRoute::NoKey), "{path}");
        }
        assert_eq!(found("/files/runs"), Ok(("/files/", "runs")));
    }

    #[test]
    fn an_encoded_character_equals_the_character_itself_except_for_the_slash() {
        let mounts = [mount("/files/r-1_a/", ""), mount("/files/", ""), mount("/", "")];
        let found = |path| route(&mounts, path).map(|(mount, rest)| (mount.path.as_str(), rest));
        for path in ["/%66iles/a%2Fb", "/%66%69%6C%65%73/a%2Fb", "/%66%69%6c%65%73/a%2Fb"] {
            assert_eq!(found(path), Ok(("/files/", "a%2Fb")), "{path}");
        }
        assert_eq!(found("/files/r%2D1%5fa/%66"), Ok(("/files/r-1_a/", "%66")));
        for path in ["/files%2Fa", "%2Ffiles/a", "/%46iles/a", "/%6files/a", "/%6", "/files%"] {
            let is_inner = matches!(found(path), Ok((mount, _)) if mount != "/");
            assert!(!is_inner, "{path}");
        }
    }

    #[test]
    fn the_limit_counts_prefix_and_key_together() {
        let mount = mount("/f/", "runs/");
        assert_eq!(with_prefix(&mount, "a.bam").unwrap(), "runs/a.bam");
        assert_eq!(with_prefix(&mount, &"k".repeat(1019)).unwrap().len(), 1024);
        assert_eq!(with_prefix(&mount, &"k".repeat(1020)), Err(DecodeError::TooLong));
    }
}
