//! Connections to S3: opened, pooled and given back on one core.

pub mod conn;
pub mod pool;
pub mod resolve;

use std::fmt;
use std::time::Duration;

/// A server that connections are opened to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Host name or IP address, as in a URL but without the brackets of IPv6.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// An origin's position in the list that all cores share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginId(pub usize);

/// As in a `Host` field, without the port (RFC 9110 §7.2).
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]", self.host) } else { f.write_str(&self.host) }
    }
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
    pub idle_timeout: Duration,
    /// Time for a TCP connection to be established.
    pub connect_timeout: Duration,
    /// Time from a request sent to the first byte of its answer.
    pub first_byte_timeout: Duration,
    /// Longest silence of S3 in the middle of a body.
    pub stall_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_connections: 1024,
            max_idle_connections: 128,
            idle_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
        }
    }
}
