//! Where a bucket is and how its objects are addressed.

use std::sync::Arc;

use crate::s3::source::Source;
use crate::upstream::Origin;

/// How the bucket's name is put into a request (Amazon S3 User Guide, "Virtual hosting of
/// general purpose buckets").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `http://endpoint/bucket/key`.
    Path,
    /// `http://bucket.endpoint/key`.
    Virtual,
}

/// One bucket, with all that is needed to sign and send a request for an object of it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The bucket's name.
    pub name: String,
    /// The region that goes into the signature.
    pub region: String,
    /// The server that is connected to; with [`Addressing::Virtual`] its host already starts
    /// with the bucket's name.
    pub origin: Arc<Origin>,
    /// Whether the bucket's name is part of the path or of the host.
    pub addressing: Addressing,
    /// `None` sends requests unsigned (`credentials: anonymous`).
    pub credentials: Option<Arc<Source>>,
}
