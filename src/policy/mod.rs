//! Decisions about a request that need no S3: its mount, its key, and which web origins may read
//! the response.

pub(crate) mod cors;
pub(crate) mod rewrite;
pub(crate) mod route;
