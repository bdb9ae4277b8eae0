//! The S3 protocol: what is asked, how it is signed, and what the answers mean.

pub mod bucket;
pub mod credentials;
