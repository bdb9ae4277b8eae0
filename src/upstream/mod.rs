//! Connections to S3: opened, pooled and given back on one core.

pub mod addresses;
pub mod connection;
pub mod error;
mod named;
pub mod permits;
pub mod pool;
pub mod proxy;
pub mod resolve;
mod tunnel;

use std::fmt;
use std::time::Duration;

/// A server that connections are opened to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether TLS is spoken: `https` in a URL.
    pub tls: bool,
    /// Host name or IP address, as in a URL but without the brackets of IPv6.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Origin {
    /// The value of a `Host` field: without the port where it is the scheme's own, as every HTTP
    /// library sends it (RFC 9110 §7.2).
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { self.url_host() } else { self.host_and_port() }
    }

    /// The same with the port in any case.
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

/// What an operator may set about upstream connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections that one core may have open at once, busy and idle.
    pub max_connections: usize,
    /// Requests of one core that may wait for one of them to become free. Beyond it a request is
    /// answered 503.
    pub max_waiting: usize,
    /// How long they may wait.
    pub wait_timeout: Duration,
    /// Idle connections that one core keeps.
    pub max_idle_connections: usize,
    /// An idle connection is closed after this time. S3 closes its own side after some 20 s.
    pub idle_timeout: Duration,
    /// Time for a TCP connection to be established with one of the server's addresses.
    pub connect_timeout: Duration,
    /// Time for the TLS handshake on it.
    pub tls_timeout: Duration,
    /// Time from a request sent to the first byte of its answer.
    pub first_byte_timeout: Duration,
    /// Longest silence of S3 in the middle of a body.
    pub stall_timeout: Duration,
    /// How far S3 may send ahead of a client that may leave at any moment, in bytes.
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
