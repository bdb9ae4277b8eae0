//! Connections to S3: opened, pooled and given back on one core.

/// A server that connections are opened to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Host name or IP address, as in a URL but without the brackets of IPv6.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What an operator may set about upstream connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections that one core may have open at once, busy and idle. Beyond it a request is
    /// answered 503.
    pub max_connections: usize,
    /// Idle connections that one core keeps.
    pub max_idle_connections: usize,
    /// An idle connection is closed after this time. S3 closes its own side after some 20 s.
    pub idle_timeout_ms: u64,
    /// Time for a TCP connection to be established.
    pub connect_timeout_ms: u64,
    /// Time from a request sent to the first byte of its answer.
    pub first_byte_timeout_ms: u64,
    /// Longest silence of S3 in the middle of a body.
    pub stall_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_connections: 1024,
            max_idle_connections: 128,
            idle_timeout_ms: 15_000,
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 30_000,
            stall_timeout_ms: 30_000,
        }
    }
}
