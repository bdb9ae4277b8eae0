//! The HTTP server of one core.

/// What an operator may set about client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Client connections that one core holds at once; beyond it new ones wait in the backlog.
    pub max_connections: usize,
    /// Time from a connection's or request's first byte to the end of its head.
    pub head_timeout_ms: u64,
    /// An idle keep-alive connection is closed after this time.
    pub keep_alive_timeout_ms: u64,
    /// A client that takes no byte for this long is given up. Long by default: htslib parks a
    /// connection while it reads on another.
    pub client_stall_timeout_ms: u64,
    /// After SIGTERM, running transfers get this long to finish.
    pub drain_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_connections: 8192,
            head_timeout_ms: 30_000,
            keep_alive_timeout_ms: 75_000,
            client_stall_timeout_ms: 600_000,
            drain_timeout_ms: 30_000,
        }
    }
}
