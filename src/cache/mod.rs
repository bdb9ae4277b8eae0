//! What is remembered of S3.

pub mod flight;
pub mod latest;
pub mod metadata;
mod misses;
