//! A request for an object. There is only GET and HEAD, so that nothing that writes can be sent.

use crate::http1::conditional::Preconditions;
use crate::http1::range::ByteRange;

/// An S3 operation on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GetObject`.
    Get,
    /// `HeadObject`.
    Head,
}

impl Operation {
    pub(super) fn method(self) -> &'static str {
        match self {
            Operation::Get => "GET",
            Operation::Head => "HEAD",
        }
    }
}

/// A request for one object of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRequest<'a> {
    /// GET or HEAD.
    pub operation: Operation,
    /// The key, as the bytes S3 stores it under.
    pub key: &'a str,
    /// The version, decoded; `None` is the latest.
    pub version_id: Option<&'a str>,
    /// `Range`.
    pub range: Option<ByteRange>,
    /// The conditions that S3 evaluates.
    pub conditions: Preconditions<'a>,
    /// Receive little of the body together with the head: only bytes that are still in the socket
    /// can be spliced.
    pub leave_body_in_socket: bool,
}

/// There are no credentials to sign with: none were obtained yet, or the last have expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no valid credentials at the moment")]
pub struct NoCredentials;

/// Time and credentials of a signature; zero for an anonymous request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// The time of the signature, in seconds since 1970.
    pub at: u64,
    /// The generation of the credentials.
    pub generation: u64,
}
