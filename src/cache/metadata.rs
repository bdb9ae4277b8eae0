//! The metadata map of one core.

/// What an operator may set about the metadata map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an object's metadata is believed; 0 asks S3 every time.
    pub ttl_ms: u64,
    /// How long "no such key" and "access denied" are believed; never longer than `ttl_ms`.
    pub negative_ttl_ms: u64,
    /// Objects remembered per core.
    pub max_entries: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { ttl_ms: 300_000, negative_ttl_ms: 5_000, max_entries: 65_536 }
    }
}
