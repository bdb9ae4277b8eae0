//! s3proxy puts private S3 objects behind plain URLs, read-only, for programs that cannot sign.
//!
//! Read one request in this order: [`server::accept`] accepts, [`server::connection`] reads a head,
//! [`server::handler`] serves it; below them [`s3::client`] signs and sends over an
//! [`upstream`] connection, and [`relay`] moves the body.
//!
//! The folders are layers; an import points to a lower layer only (`tests/layers.rs` checks it):
//!
//! | layer | modules |
//! |---|---|
//! | 8 | `cli` |
//! | 7 | `config` |
//! | 6 | `server` |
//! | 5 | `policy`, `access_log`, `cache` |
//! | 4 | `s3`, `relay` |
//! | 3 | `upstream` |
//! | 2 | `http1`, `transport` |
//! | 1 | `sys`, `metrics`, `logging` |
//! | 0 | `limits`, `clock` |

pub mod access_log;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http1;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod policy;
pub mod relay;
pub mod s3;
pub mod server;
pub mod sys;
pub mod transport;
pub mod upstream;
