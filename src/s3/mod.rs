//! The S3 protocol: requests, signatures, responses and retries. It knows no client: the body of
//! a response can be read by anyone.

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
