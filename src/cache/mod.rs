//! What one core remembers of S3.

pub mod metadata;
