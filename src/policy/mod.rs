//! What is decided about a request before S3 is asked: its mount, its key, and who may read the response.

pub mod cors;
pub mod rewrite;
pub mod route;
