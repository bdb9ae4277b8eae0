//! Caches of what S3 has said: metadata, and requests that several clients wait for.

pub(crate) mod latest;
pub(crate) mod metadata;
mod negative;
pub(crate) mod single_flight;
