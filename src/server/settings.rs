//! The settings that are fixed while the server runs: sockets, threads, and each worker's
//! resources. [`live`](super::live) has the others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::metadata;
use crate::sys::event_loop;
use crate::sys::socket::ListenAddress;
use crate::transport::trust;
use crate::upstream::proxy::Proxies;
use crate::{relay, upstream};

/// The settings that a running server cannot change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on, at least one.
    pub listen: Vec<ListenAddress>,
    /// Worker threads; `None` is one per usable core.
    pub workers: Option<usize>,
    /// `auto`, `io_uring` or `epoll`.
    pub driver: event_loop::Choice,
    /// Connections to S3.
    pub upstream: upstream::Settings,
    /// HTTP proxies between this process and S3.
    pub proxies: Arc<Proxies>,
    /// Trusted certificate authorities.
    pub trust: trust::Settings,
    /// How bodies are moved: spliced or copied.
    pub relay: relay::Settings,
    /// Each worker's metadata cache.
    pub metadata: metadata::Settings,
    /// Least severe level that is logged.
    pub log_level: log::LevelFilter,
    /// `None` logs to standard error.
    pub log_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            // As in the 2014 application.
            listen: vec![ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 5000)))],
            workers: None,
            driver: event_loop::Choice::Auto,
            upstream: upstream::Settings::default(),
            proxies: Arc::default(),
            trust: trust::Settings::default(),
            relay: relay::Settings::default(),
            metadata: metadata::Settings::default(),
            log_level: log::LevelFilter::Info,
            log_file: None,
        }
    }
}
