//! HTTP/1.1 syntax and semantics on byte slices (RFC 9110, RFC 9112), without I/O, S3 or a clock.

pub(crate) mod authority;
pub(crate) mod cache_control;
pub(crate) mod chunked;
pub(crate) mod conditional;
pub(crate) mod framing;
pub(crate) mod range;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod target;
