//! The S3 protocol: what is asked, how it is signed, and what the answers mean.

pub mod bucket;
pub mod client;
pub mod credentials;
pub mod error;
pub mod login;
pub mod object;
pub mod refresh;
pub mod request;
pub mod sigv4;
pub mod source;
