//! HTTP/1.1 on bytes (RFC 9110, RFC 9112): no sockets, no S3, no clock.

pub mod authority;
pub mod cache_control;
pub mod chunked;
pub mod conditional;
pub mod framing;
pub mod range;
pub mod request;
pub mod response;
pub mod target;
