//! The HTTP server: workers, client connections, and the steps of a request. `src/lib.rs` lists the
//! files in the order in which a request passes through them.

pub(crate) mod accept;
pub(crate) mod check;
pub(crate) mod connection;
pub(crate) mod context;
mod delivery;
pub(crate) mod error_mapping;
pub(crate) mod failure;
pub(crate) mod get;
pub(crate) mod handler;
pub(crate) mod live;
pub(crate) mod lookup;
pub(crate) mod object;
pub(crate) mod response;
mod resume;
pub(crate) mod settings;
mod startup;
mod upkeep;
pub(crate) mod worker;

pub use startup::{Running, open_log, start};
