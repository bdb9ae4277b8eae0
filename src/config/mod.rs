//! The configuration as the program uses it: typed, complete, and checked.
//!
//! [`file`](self::file) holds it as the user wrote it.

use std::path::PathBuf;

use crate::sys::driver;
use crate::sys::socket::ListenAddress;
use crate::{cache, cors, mount, rewrite, server, upstream};

/// Everything that a run is told from outside.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on, at least one.
    pub listen: Vec<ListenAddress>,
    /// Worker threads; `None` is one per usable core.
    pub workers: Option<usize>,
    /// The event loop.
    pub driver: driver::Choice,
    /// The mounts, at least one.
    pub mounts: Vec<mount::Mount>,
    /// `rewrite_rules`.
    pub rewrite_rules: rewrite::Rules,
    /// CORS.
    pub cors: cors::Policy,
    /// Client connections.
    pub server: server::Settings,
    /// Connections to S3.
    pub upstream: upstream::Settings,
    /// The metadata map.
    pub metadata: cache::metadata::Settings,
    /// Suffixes of keys whose stored `Content-Encoding` is not passed on.
    pub genomic_suffixes: Vec<String>,
    /// Least severe level that is logged.
    pub log_level: log::LevelFilter,
    /// Where the log goes; `None` is standard error.
    pub log_file: Option<PathBuf>,
    /// One log line per request.
    pub access_log: bool,
}
