//! What can be replaced while the server runs: which buckets are served where, and on what terms.
//!
//! A request reads it once, at its start, and hands it down, so that no request sees two
//! configurations.

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

impl Default for Live {
    /// Serves nothing: the mounts are up to the configuration.
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

/// Formats that are compressed by themselves, and indexes of such files. If one is stored with
/// `Content-Encoding: gzip` by mistake, an HTTP library that sees the field decompresses it, and
/// its reader fails.
const GENOMIC_SUFFIXES: [&str; 15] = [
    ".bam", ".cram", ".bcf", ".gz", ".bgz", ".bgzf", ".bai", ".csi", ".tbi", ".crai", ".gzi",
    ".fai", ".pbi", ".sbi", ".idx",
];

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
        let last = key.bytes().next_back().map(|byte| byte.to_ascii_lowercase());
        let is_suffix = |suffix: &String| {
            // The last letter tells most of them apart from the key.
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

/// The settings that one request sees, however often they are replaced meanwhile.
///
/// Counted by one worker alone: a count that all workers share would be a cache line that every
/// request takes from the others.
#[derive(Clone)]
pub(crate) struct Snapshot(Rc<Shared>);

struct Shared(Arc<Live>);

impl Deref for Snapshot {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0.0
    }
}

/// One worker's view of the live settings.
pub(crate) struct LiveReader {
    cache: RefCell<Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    snapshot: RefCell<Snapshot>,
    is_news: Cell<bool>,
}

impl LiveReader {
    /// Reads what `published` holds.
    pub(crate) fn new(published: Arc<ArcSwap<Live>>) -> LiveReader {
        let snapshot = Snapshot(Rc::new(Shared(published.load_full())));
        LiveReader {
            cache: RefCell::new(Cache::new(published)),
            snapshot: RefCell::new(snapshot),
            is_news: Cell::new(false),
        }
    }

    /// The settings as they are now, at the price of one atomic load if they are the same as
    /// before. Whoever keeps the result keeps replaced settings in memory.
    pub(crate) fn load(&self) -> Snapshot {
        let mut cache = self.cache.borrow_mut();
        let mut snapshot = self.snapshot.borrow_mut();
        let latest = cache.load();
        if !Arc::ptr_eq(latest, &snapshot.0.0) {
            *snapshot = Snapshot(Rc::new(Shared(Arc::clone(latest))));
            self.is_news.set(true);
        }
        snapshot.clone()
    }

    /// Whether the settings have been replaced since the last call.
    pub(crate) fn is_news(&self) -> bool {
        self.is_news.take()
    }
}
