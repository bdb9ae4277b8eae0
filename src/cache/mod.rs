//! The metadata caches of the workers, and the coalescing of concurrent requests for one object.

pub(crate) mod latest;
pub(crate) mod metadata;
mod negative;
pub(crate) mod single_flight;
