//! What one core remembers of S3.

pub mod flight;
pub mod metadata;
