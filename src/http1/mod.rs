//! HTTP/1.1 on bytes (RFC 9110, RFC 9112): no sockets, no S3, no clock.

pub(crate) mod authority;
pub(crate) mod cache_control;
pub(crate) mod chunked;
pub(crate) mod conditional;
pub(crate) mod framing;
pub(crate) mod range;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod target;
