//! The settings that can be replaced while the server runs: mounts, rules, and limits on clients.
//!
//! A request loads them once, at its start, so that it never sees a mix of old and new ones.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use crate::policy::cors;
use crate::policy::rewrite;
use crate::policy::route::Mount;
use crate::s3::object::Shown;
use crate::s3::retry;

/// The settings that a running server can change.
#[derive(Debug)]
pub struct Live {
    /// At least one, ordered by descending length of the path.
    pub mounts: Vec<Arc<Mount>>,
    /// Applied to the key of every request.
    pub rewrite_rules: rewrite::Rules,
    /// Which web origins may read through a browser.
    pub cors: cors::Policy,
    /// Bounds on client connections.
    pub clients: ClientLimits,
    /// Bounds on retries of requests to S3.
    pub retries: retry::Settings,
    /// Suffixes of keys whose stored `Content-Encoding` is not passed on.
    pub genomic_suffixes: Vec<String>,
    /// One log line per request.
    pub access_log: bool,
}

impl Default for Live {
    /// Without mounts, which only the configuration can name.
    fn default() -> Live {
        Live {
            mounts: Vec::new(),
            rewrite_rules: rewrite::Rules::default(),
            cors: cors::Policy::Any,
            clients: ClientLimits::default(),
            retries: retry::Settings::default(),
            genomic_suffixes: GENOMIC_SUFFIXES.map(str::to_owned).to_vec(),
            access_log: true,
        }
    }
}

/// Formats with their own compression, and the indexes of such files. If one is stored with
/// `Content-Encoding: gzip` by mistake, HTTP libraries decompress it and its reader fails.
const GENOMIC_SUFFIXES: [&str; 15] = [
    ".bam", ".cram", ".bcf", ".gz", ".bgz", ".bgzf", ".bai", ".csi", ".tbi", ".crai", ".gzi",
    ".fai", ".pbi", ".sbi", ".idx",
];

/// Bounds on client connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Open client connections per worker; the response to further ones is 503.
    pub max_connections: usize,
    /// Time from a request's first byte to the end of its head.
    pub head_timeout: Duration,
    /// An idle keep-alive connection is closed after this time.
    pub keep_alive_timeout: Duration,
    /// A client that accepts no byte for this long is disconnected. Long by default: htslib leaves
    /// a connection unread while it uses another one.
    pub stall_timeout: Duration,
    /// If a client accepts no byte for this long, its connection to S3 is closed. The rest of the
    /// object then costs another request, some 50 ms: a hundredth of the default pause.
    pub pause_timeout: Duration,
    /// Time for responses in progress to finish after SIGTERM.
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
    /// Which header fields of the object `key` a client is sent. A `Content-Encoding` would make
    /// HTTP libraries decompress block-gzipped files; a version id is useful only if the mount
    /// allows requests for versions.
    pub fn shown<'a>(&self, mount: &'a Mount, key: &str) -> Shown<'a> {
        let last = key.bytes().next_back().map(|byte| byte.to_ascii_lowercase());
        let is_suffix = |suffix: &String| {
            // The last byte rules out most suffixes cheaply.
            suffix.bytes().next_back().map(|byte| byte.to_ascii_lowercase()) == last
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

/// The settings of one request, unchanged by a later replacement.
///
/// An `Rc`, since an `Arc`'s count is shared by all workers: each request would move its cache line
/// between cores.
#[derive(Clone)]
pub(crate) struct Snapshot(Rc<Shared>);

struct Shared(Arc<Live>);

impl Deref for Snapshot {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0.0
    }
}

/// A worker's reader of the live settings.
pub(crate) struct LiveReader {
    cache: RefCell<Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    snapshot: RefCell<Snapshot>,
    has_changed: Cell<bool>,
}

impl LiveReader {
    pub(crate) fn new(published: Arc<ArcSwap<Live>>) -> LiveReader {
        let snapshot = Snapshot(Rc::new(Shared(published.load_full())));
        LiveReader {
            cache: RefCell::new(Cache::new(published)),
            snapshot: RefCell::new(snapshot),
            has_changed: Cell::new(false),
        }
    }

    /// The current settings; one atomic load if they have not changed. The snapshot keeps replaced
    /// settings in memory until it is dropped.
    pub(crate) fn load(&self) -> Snapshot {
        let mut cache = self.cache.borrow_mut();
        let mut snapshot = self.snapshot.borrow_mut();
        let latest = cache.load();
        if !Arc::ptr_eq(latest, &snapshot.0.0) {
            *snapshot = Snapshot(Rc::new(Shared(Arc::clone(latest))));
            self.has_changed.set(true);
        }
        snapshot.clone()
    }

    /// Whether [`load`](Self::load) has seen new settings since the last call.
    pub(crate) fn take_changed(&self) -> bool {
        self.has_changed.take()
    }
}
