//! What is decided about a request before S3 is asked: its mount, its key, and who may read the response.

pub(crate) mod cors;
pub(crate) mod rewrite;
pub(crate) mod route;
