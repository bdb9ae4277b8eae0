//! The metadata map of one core.

use std::time::Duration;

/// What an operator may set about the metadata map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an object's metadata is believed; 0 asks S3 every time.
    pub ttl: Duration,
    /// How long "no such key" and "access denied" are believed; never longer than `ttl`.
    pub negative_ttl: Duration,
    /// Objects remembered per core.
    pub max_entries: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(5),
            max_entries: 65_536,
        }
    }
}
