//! Mounts: which part of the URL space belongs to which bucket, and what the key is.

use crate::http1::target::DecodeError;
use crate::limits;
use crate::s3::bucket::Bucket;
use crate::s3::client::BucketId;

/// One bucket (or a prefix of it) behind one part of the URL space.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The URL path, starting and ending with `/`, for example `/files/`.
    pub path: String,
    /// Put in front of every key, as is; empty for the whole bucket.
    pub prefix: String,
    /// Where the objects are.
    pub bucket: Bucket,
    /// Whether clients may ask for a version of an object.
    pub allow_version_id: bool,
}

/// Finds the mount of a path, and the part of the path behind it. `mounts` start with the
/// longest path, so the first that fits is the most specific one.
pub fn route<'m, 'p>(mounts: &'m [Mount], path: &'p str) -> Option<(BucketId, &'m Mount, &'p str)> {
    mounts.iter().enumerate().find_map(|(index, mount)| {
        let rest = path.strip_prefix(mount.path.as_str())?;
        Some((BucketId(index), mount, rest))
    })
}

impl Mount {
    /// Puts the mount's prefix in front of a key.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] where both together are longer than a key may be.
    pub fn prepend_prefix(&self, key: &mut String) -> Result<(), DecodeError> {
        key.insert_str(0, &self.prefix);
        if key.len() > limits::KEY_BYTES { Err(DecodeError::TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::endpoint::{Addressing, Aws, Endpoint};

    fn mount(path: &str, prefix: &str) -> Mount {
        let endpoint = Endpoint::Aws(Aws::default());
        let bucket = Bucket::new("lab".to_owned(), "us-east-1", endpoint, Addressing::Path, None);
        let (path, prefix) = (path.to_owned(), prefix.to_owned());
        Mount { path, prefix, bucket, allow_version_id: false }
    }

    fn with_prefix(mount: &Mount, key: &str) -> Result<String, DecodeError> {
        let mut key = key.to_owned();
        mount.prepend_prefix(&mut key).map(|()| key)
    }

    #[test]
    fn the_longest_mount_wins_and_the_outside_is_nowhere() {
        let mounts = [mount("/files/runs/", ""), mount("/files/", "")];
        let found = |path| route(&mounts, path).map(|(id, _, rest)| (id.0, rest));
        assert_eq!(found("/files/runs/a"), Some((0, "a")));
        assert_eq!(found("/files/a"), Some((1, "a")));
        assert_eq!(found("/files//runs/"), Some((1, "/runs/")));
        for path in ["/", "/files", "/Files/a", "/%66iles/a", "/x/files/a"] {
            assert_eq!(found(path), None, "{path}");
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
