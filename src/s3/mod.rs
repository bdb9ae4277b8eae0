//! The S3 protocol: what is asked, how it is signed, and what the answers mean.

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
pub mod resume;
pub mod retry;
pub mod sigv4;
pub mod sse_c;
