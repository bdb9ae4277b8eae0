//! The S3 protocol: signed requests, responses, errors, retries and credentials. Independent of the
//! proxy's clients: `server::delivery` moves the bodies.

pub(crate) mod body;
pub(crate) mod bucket;
pub(crate) mod client;
pub(crate) mod clock;
mod corrections;
pub(crate) mod credentials;
pub(crate) mod endpoint;
pub(crate) mod error;
mod error_response;
pub(crate) mod object;
pub(crate) mod object_name;
pub(crate) mod request;
pub(crate) mod request_writer;
pub(crate) mod response;
pub(crate) mod retry;
pub(crate) mod sigv4;
pub(crate) mod sse_c;
