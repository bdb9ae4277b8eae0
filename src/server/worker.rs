//! The state of one worker: everything that its requests share, used by its thread alone.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::access_log;
use crate::cache::latest::LatestResponses;
use crate::cache::metadata::{Cached, MetadataCache};
use crate::cache::single_flight::SingleFlight;
use crate::clock;
use crate::logging::LogWriter;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::relay::pipes::Pipes;
use crate::s3::client::Client;
use crate::s3::object::Metadata;
use crate::s3::object_name::ObjectName;
use crate::server::failure::Failure;
use crate::server::live::{Live, LiveReader, Snapshot};
use crate::server::settings::Settings;
use crate::sys::deadlines::Deadlines;
use crate::transport::buffers::Buffers;
use crate::transport::trust::Trust;
use crate::upstream::connection::Connector;
use crate::upstream::pool::Pool;
use crate::upstream::resolve::Resolver;

/// Bytes of access log lines that a worker collects before it hands them to the log.
const LOG_BYTES: usize = 32 * 1024;

/// Maximum number of scratches kept for later requests.
const POOLED_SCRATCHES: usize = 64;

/// The state that all workers share: settings, and the results of the background thread.
pub(crate) struct Shared {
    pub settings: Settings,
    pub live: Arc<ArcSwap<Live>>,
    pub resolver: Resolver,
    /// Trusted certificate authorities; unset until a mount uses HTTPS.
    pub trust: Arc<OnceLock<Trust>>,
    /// S3's latest response about each key.
    pub latest: Arc<LatestResponses>,
    /// `None` in `--check`.
    pub access_log: Option<LogWriter>,
    /// A worker is out of descriptors and has no idle connection to close, but others may have.
    pub descriptors_wanted: AtomicBool,
}

/// Maximum number of idle connections that a worker closes for another one per sweep.
const CLOSED_FOR_ANOTHER: usize = 8;

/// The state of one worker.
pub(crate) struct Worker {
    pub shared: Arc<Shared>,
    pub s3: Client,
    pub relay: Relay,
    pub pool: Rc<Pool>,
    pub metadata: RefCell<MetadataCache>,
    /// Metadata lookups in progress; each result comes with the time at which S3 was asked.
    pub flights: SingleFlight<(Result<Cached, Failure>, Instant)>,
    /// Those of all sockets, of clients and of S3.
    pub deadlines: Rc<Deadlines>,
    /// Written by this worker alone.
    pub metrics: Arc<Metrics>,
    /// Shutting down: a connection is closed after its response.
    pub draining: Cell<bool>,
    live: LiveReader,
    /// A second since 1970 and its `Date`.
    date: Cell<(u64, [u8; 29])>,
    log_lines: RefCell<Vec<u8>>,
    #[allow(clippy::vec_box, reason = "a connection holds the box, which is smaller")]
    scratches: RefCell<Vec<Box<Scratch>>>,
}

/// Buffers of one request, reused by later ones to save allocations.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The requested object.
    pub object: ObjectName,
    /// The head of the response to the client.
    pub head: Vec<u8>,
    /// From S3's response.
    pub metadata: Metadata,
}

impl Worker {
    /// To be called on the worker's thread, the only writer of `metrics`.
    pub(crate) fn new(shared: Arc<Shared>, metrics: Arc<Metrics>) -> Rc<Worker> {
        let settings = &shared.settings;
        let buffers = Buffers::new(Arc::clone(&metrics));
        let relay = Relay {
            buffers: Rc::clone(&buffers),
            pipes: Pipes::new(settings.relay.clone(), Arc::clone(&metrics)),
            metrics: Arc::clone(&metrics),
        };
        let deadlines = Rc::new(Deadlines::default());
        let trust = Arc::clone(&shared.trust);
        let connector = Connector::new(settings.upstream.clone(), trust, Rc::clone(&deadlines));
        let pool = Pool::new(
            settings.upstream.clone(),
            connector,
            shared.resolver.clone(),
            Arc::clone(&settings.proxies),
            Arc::clone(&metrics),
        );
        let s3 = Client::new(
            Rc::clone(&pool),
            buffers,
            Arc::clone(&metrics),
            &settings.upstream,
            shared.live.load().retries,
        );
        Rc::new(Worker {
            s3,
            relay,
            metrics,
            metadata: RefCell::new(MetadataCache::new(
                settings.metadata.clone(),
                Arc::clone(&shared.latest),
            )),
            flights: SingleFlight::new(),
            draining: Cell::new(false),
            date: Cell::new((u64::MAX, [0; 29])),
            live: LiveReader::new(Arc::clone(&shared.live)),
            log_lines: RefCell::default(),
            scratches: RefCell::default(),
            pool,
            deadlines,
            shared,
        })
    }

    /// The current live settings.
    pub(crate) fn live(&self) -> Snapshot {
        self.live.load()
    }

    /// Enforces deadlines, drops expired cache entries and idle connections, and flushes the access
    /// log. To be called a few times a second.
    pub(crate) fn sweep(&self, now: Instant) {
        self.deadlines.sweep(now);
        self.apply_live();
        if self.shared.descriptors_wanted.load(Ordering::Relaxed) {
            self.close_idle_for_another();
        }
        let pause_timeout = self.live().clients.pause_timeout;
        self.deadlines.notify_stalled(now, pause_timeout, self.pool.waiting_requests());
        self.pool.sweep(now);
        self.metadata.borrow_mut().sweep(now);
        self.flush_log();
    }

    /// Closes an idle connection to free its descriptor: that of the client that has been idle
    /// longest, or one to S3. Without one, asks the other workers and returns `false`.
    pub(crate) fn close_one_idle(&self) -> bool {
        let closed =
            self.deadlines.close_longest_idle(Instant::now()) || self.pool.close_one_idle();
        if !closed {
            self.shared.descriptors_wanted.store(true, Ordering::Relaxed);
        }
        closed
    }

    /// Applies replaced settings to the S3 client, which drops the state of removed buckets.
    fn apply_live(&self) {
        let live = self.live();
        if self.live.take_changed() {
            let buckets = live.mounts.iter().map(|mount| mount.bucket.id).collect();
            self.s3.adopt(live.retries, buckets);
        }
    }

    fn close_idle_for_another(&self) {
        let closed = (0..CLOSED_FOR_ANOTHER).take_while(|_| self.close_one_idle()).count();
        if closed > 0 {
            self.shared.descriptors_wanted.store(false, Ordering::Relaxed);
        }
    }

    /// The value of a `Date` field, formatted once a second.
    pub(crate) fn date(&self) -> [u8; 29] {
        let now = clock::unix_seconds();
        let (second, mut text) = self.date.get();
        if second != now {
            let time = UNIX_EPOCH + Duration::from_secs(now.min(clock::END_OF_9999));
            // The format has exactly 29 bytes (RFC 9110 §5.6.7).
            let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(time));
            self.date.set((now, text));
        }
        text
    }

    /// Adds a line to the access log.
    pub(crate) fn log(&self, entry: &access_log::Entry<'_>) {
        // Without a log nothing would ever take the lines away.
        if self.shared.access_log.is_none() {
            return;
        }
        let mut lines = self.log_lines.borrow_mut();
        access_log::write_line(entry, &mut lines);
        if lines.len() >= LOG_BYTES {
            drop(lines);
            self.flush_log();
        }
    }

    fn flush_log(&self) {
        let mut lines = self.log_lines.borrow_mut();
        if let Some(log) = &self.shared.access_log
            && !lines.is_empty()
        {
            log.push(&lines);
            lines.clear();
        }
    }

    pub(crate) fn take_scratch(&self) -> Box<Scratch> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn put_back_scratch(&self, scratch: Box<Scratch>) {
        let mut scratches = self.scratches.borrow_mut();
        if scratches.len() < POOLED_SCRATCHES {
            scratches.push(scratch);
        }
    }
}
