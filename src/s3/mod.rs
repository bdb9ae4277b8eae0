//! The S3 protocol: what is asked, how it is signed, and what the answers mean.

pub mod answer;
pub mod bucket;
pub mod client;
pub mod clock;
mod correct;
pub mod credentials;
pub mod customer_key;
pub mod endpoint;
pub mod error;
pub mod login;
pub mod name;
pub mod object;
pub mod refresh;
mod refusal;
pub mod request;
pub mod resume;
pub mod retry;
pub mod sigv4;
pub mod source;
