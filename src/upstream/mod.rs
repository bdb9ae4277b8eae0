//! Connections to S3 and to HTTP proxies: name resolution, connecting, and the pool.

pub(crate) mod addresses;
pub(crate) mod connection;
pub(crate) mod error;
mod lookup_history;
pub(crate) mod permits;
pub(crate) mod pool;
pub(crate) mod proxy;
pub(crate) mod resolve;
mod tunnel;

use std::fmt;
use std::time::Duration;

/// A server that connections are opened to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// Host name or IP address, as in a URL but without the brackets of IPv6.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Origin {
    /// The value of a `Host` field: without the port if it is the scheme's default, as every HTTP
    /// library sends it (RFC 9110 §7.2).
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { self.url_host() } else { self.host_and_port() }
    }

    /// Always with the port.
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.url_host(), self.port)
    }

    fn url_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// As a URL: `https://s3.us-east-1.amazonaws.com`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.tls { "s" } else { "" }, self.authority())
    }
}

/// The settings of upstream connections; limits are per worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections open at once, busy and idle.
    pub max_connections: usize,
    /// Requests that may wait for a connection. Further ones get a 503 response.
    pub max_waiting: usize,
    /// How long a request may wait for a connection.
    pub wait_timeout: Duration,
    /// Idle connections that are kept.
    pub max_idle_connections: usize,
    /// How long an idle connection is kept. S3 closes it after some 20 s.
    pub idle_timeout: Duration,
    /// Limit for a TCP connection to one of the server's addresses, and for a proxy's tunnel.
    pub connect_timeout: Duration,
    /// Limit for the TLS handshake.
    pub tls_timeout: Duration,
    /// Limit from sending a request to the first byte of its response.
    pub first_byte_timeout: Duration,
    /// Longest pause of S3 within a response.
    pub stall_timeout: Duration,
    /// Bytes that S3 may send ahead of a client that may leave at any moment.
    pub read_ahead: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_connections: 1024,
            max_waiting: 1024,
            wait_timeout: Duration::from_secs(5),
            max_idle_connections: 1024,
            idle_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            tls_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            read_ahead: 128 * 1024,
        }
    }
}
