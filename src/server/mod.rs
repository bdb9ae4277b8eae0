//! The HTTP server: workers, their connections, and each connection's requests.

pub mod answer;
pub mod check;
pub mod conn;
pub mod core;
pub mod explain;
pub mod fetch;
pub mod handler;
pub mod known;
pub mod worker;
pub mod writer;

mod running;
pub use running::{Running, StartError, open_log, start};
