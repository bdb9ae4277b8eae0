//! What can be replaced while the server runs: which buckets are served where, and on what terms.
//!
//! A request reads it once, at its start, and hands it down, so that no request sees two
//! configurations.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::cors;
use crate::policy::rewrite;
use crate::policy::route::Mount;
use crate::s3::object::Shown;
use crate::s3::retry;

/// The settings that a running server can change.
#[derive(Debug)]
pub struct Live {
    /// At least one; those with the longest path come first.
    pub mounts: Vec<Arc<Mount>>,
    /// Applied to every key before it is looked up.
    pub rewrite_rules: rewrite::Rules,
    /// Which web origins may read through a browser.
    pub cors: cors::Policy,
    /// Bounds on client connections.
    pub clients: ClientLimits,
    /// When a request is sent to S3 again.
    pub retries: retry::Settings,
    /// Suffixes of keys whose stored `Content-Encoding` is not passed on.
    pub genomic_suffixes: Vec<String>,
    /// One log line per request.
    pub access_log: bool,
}

/// Bounds on client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Client connections that one worker serves at once; further ones are answered 503.
    pub max_connections: usize,
    /// Time from a request's first byte to the end of its head.
    pub head_timeout: Duration,
    /// An idle keep-alive connection is closed after this time.
    pub keep_alive_timeout: Duration,
    /// A client that takes no byte for this long is disconnected. Long by default: htslib parks a
    /// connection while it reads on another.
    pub stall_timeout: Duration,
    /// A client that takes no byte for this long does not keep a connection to S3 waiting. The rest
    /// of the object costs another request then, some 50 ms of S3's time, which after so long a
    /// pause is one part in a hundred.
    pub pause_timeout: Duration,
    /// After SIGTERM, running transfers get this long to finish.
    pub drain_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            max_connections: 8192,
            head_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(600),
            pause_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Live {
    /// What clients are shown of the object `key`. Readers of block-gzipped files would be handed
    /// the decompressed bytes by their HTTP library if they saw a stored `Content-Encoding`; a
    /// version id is of use only where clients may ask for a version.
    pub fn shown<'a>(&self, mount: &'a Mount, key: &str) -> Shown<'a> {
        let last_letter =
            |text: &str| text.bytes().next_back().map(|byte| byte.to_ascii_lowercase());
        let last = last_letter(key);
        let is_suffix = |suffix: &String| {
            // The last letter rules most suffixes out without the cost of a comparison.
            last_letter(suffix) == last
                && key.len() >= suffix.len()
                && key.as_bytes()[key.len() - suffix.len()..]
                    .eq_ignore_ascii_case(suffix.as_bytes())
        };
        Shown {
            content_encoding: !self.genomic_suffixes.iter().any(is_suffix),
            version_id: mount.allow_version_id,
            default_cache_control: mount.cache_control.as_deref(),
        }
    }
}
