//! The S3 protocol: requests, signatures, responses and retries. It knows no client: the body of
//! a response can be read by anyone.

pub mod body;
pub mod bucket;
pub mod client;
pub mod clock;
mod corrections;
pub mod credentials;
pub mod endpoint;
pub mod error;
pub mod object;
pub mod object_name;
mod refusal;
pub mod request;
pub mod response;
pub mod retry;
pub mod sigv4;
pub mod sse_c;
