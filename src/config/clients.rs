//! Settings of the client side. They live here since the server stands above the configuration.

use std::time::Duration;

/// What an operator may set about client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// Client connections that one core serves at once; beyond it new ones are answered 503.
    pub max_connections: usize,
    /// Time from a request's first byte to the end of its head.
    pub head_timeout: Duration,
    /// An idle keep-alive connection is closed after this time.
    pub keep_alive_timeout: Duration,
    /// A client that takes no byte for this long is given up. Long by default: htslib parks a
    /// connection while it reads on another.
    pub stall_timeout: Duration,
    /// A client that takes no byte for this long does not keep a connection to S3 waiting. The rest
    /// of the object costs another request then, some 50 ms of S3's time, which after so long a
    /// pause is one part in a hundred.
    pub pause_timeout: Duration,
    /// After SIGTERM, running transfers get this long to finish.
    pub drain_timeout: Duration,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            max_connections: 8192,
            head_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(600),
            pause_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
