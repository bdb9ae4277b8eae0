//! What is remembered of S3.

pub mod latest;
pub mod metadata;
mod misses;
pub mod single_flight;
