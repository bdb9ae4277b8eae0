//! Caches of what S3 has said: metadata, and requests that several clients wait for.

pub mod latest;
pub mod metadata;
mod negative;
pub mod single_flight;
