//! Listening and connected sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:5000`, `[::1]:5000`.
    Tcp(SocketAddr),
    /// `unix:/run/s3proxy.sock`.
    Unix(PathBuf),
}

/// As start-up prints it: `http://127.0.0.1:5000` or `unix:/run/s3proxy.sock`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "http://{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
