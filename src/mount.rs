//! Mounts: which part of the URL space belongs to which bucket.

use crate::s3::bucket::Bucket;

/// One bucket (or a prefix of it) behind one part of the URL space.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The URL path, starting and ending with `/`, for example `/files/`.
    pub path: String,
    /// Put in front of every key, as is; empty for the whole bucket.
    pub prefix: String,
    /// Where the objects are.
    pub bucket: Bucket,
}
