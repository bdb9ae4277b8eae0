//! The HTTP server: workers, their connections, and each connection's requests.

pub mod accept;
pub mod check;
pub mod connection;
pub mod context;
mod delivery;
pub mod error_mapping;
pub mod failure;
pub mod get;
pub mod handler;
pub mod live;
pub mod lookup;
pub mod object;
pub mod response;
mod resume;
pub mod settings;
mod startup;
mod upkeep;
pub mod worker;

pub use startup::{Running, StartError, open_log, start};
