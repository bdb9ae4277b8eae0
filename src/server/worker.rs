//! What one core holds: everything a request needs, shared by the core's connections and by
//! nothing else.

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

/// Bytes of access log that a core collects before it hands them over.
const LOG_BYTES: usize = 32 * 1024;

/// Scratch memory that a core keeps for the next requests.
const POOLED_SCRATCHES: usize = 64;

/// What the cores share: settings, and what the side threads publish.
pub(crate) struct Shared {
    /// What is fixed for a run.
    pub settings: Settings,
    /// What can be replaced while running.
    pub live: Arc<ArcSwap<Live>>,
    /// The addresses of S3's servers.
    pub resolver: Resolver,
    /// Whose certificates are believed; Empty until a mount has HTTPS.
    pub trust: Arc<OnceLock<Trust>>,
    /// What S3 last said of each key.
    pub latest: Arc<LatestResponses>,
    /// Where access log lines go, if they are wanted; `None` is nowhere.
    pub access_log: Option<LogWriter>,
    /// A worker has no descriptor for a client and nothing idle to give up: the others may have.
    pub descriptors_wanted: AtomicBool,
}

/// Idle connections that a worker gives up for another, each time that it looks.
const GIVEN_UP_FOR_ANOTHER: usize = 8;

/// One core.
pub(crate) struct Worker {
    /// What the cores share.
    pub shared: Arc<Shared>,
    /// The S3 client.
    pub s3: Client,
    /// Passes bodies on to clients.
    pub relay: Relay,
    /// The upstream connections.
    pub pool: Rc<Pool>,
    /// The metadata map.
    pub metadata: RefCell<MetadataCache>,
    /// HEAD requests that are under way; each lands with the time it was sent at.
    pub flights: SingleFlight<(Result<Cached, Failure>, Instant)>,
    /// The deadlines of all sockets.
    pub deadlines: Rc<Deadlines>,
    /// Written by this worker alone.
    pub metrics: Arc<Metrics>,
    /// No new requests: the process is about to end.
    pub draining: Cell<bool>,
    live: LiveReader,
    date: Cell<(u64, [u8; 29])>,
    log_lines: RefCell<Vec<u8>>,
    #[allow(clippy::vec_box, reason = "a connection holds the box, which is smaller")]
    scratches: RefCell<Vec<Box<Scratch>>>,
}

/// Memory that one request writes into.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The object that is asked for.
    pub object: ObjectName,
    /// The answer's head.
    pub head: Vec<u8>,
    /// The object's metadata, from S3's answer.
    pub metadata: Metadata,
}

impl Worker {
    /// The state of the calling thread's worker, which writes `metrics`.
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

    /// What can be replaced while running, as it is now.
    pub(crate) fn live(&self) -> Snapshot {
        self.live.load()
    }

    /// Ends what is overdue and writes what was logged; to be called a few times a second.
    pub(crate) fn sweep(&self, now: Instant) {
        self.deadlines.sweep(now);
        self.adopt_live();
        if self.shared.descriptors_wanted.load(Ordering::Relaxed) {
            self.give_up_for_another();
        }
        let pause_timeout = self.live().clients.pause_timeout;
        self.deadlines.notify_stalled(now, pause_timeout, self.pool.waiting_requests());
        self.pool.sweep(now);
        self.metadata.borrow_mut().sweep(now);
        self.flush_log();
    }

    /// Gives up an idle connection for its descriptor: that of the client that has been idle for
    /// longest, or one to S3. `false` where nothing is idle, which the other workers are told.
    pub(crate) fn give_up_idle(&self) -> bool {
        let is_one =
            self.deadlines.close_longest_idle(Instant::now()) || self.pool.close_one_idle();
        if !is_one {
            self.shared.descriptors_wanted.store(true, Ordering::Relaxed);
        }
        is_one
    }

    /// Drops what is kept for settings that have been replaced.
    fn adopt_live(&self) {
        let live = self.live();
        if self.live.is_news() {
            let buckets = live.mounts.iter().map(|mount| mount.bucket.id).collect();
            self.s3.adopt(live.retries, buckets);
        }
    }

    fn give_up_for_another(&self) {
        let given_up = (0..GIVEN_UP_FOR_ANOTHER).take_while(|_| self.give_up_idle()).count();
        if given_up > 0 {
            self.shared.descriptors_wanted.store(false, Ordering::Relaxed);
        }
    }

    /// The value of a `Date` field, formatted once a second.
    pub(crate) fn date(&self) -> [u8; 29] {
        let now = clock::unix_seconds();
        let (second, mut text) = self.date.get();
        if second != now {
            let time = UNIX_EPOCH + Duration::from_secs(now.min(clock::END_OF_9999));
            // 29 bytes are what the format has (RFC 9110 §5.6.7).
            let _ = write!(&mut text[..], "{}", httpdate::HttpDate::from(time));
            self.date.set((now, text));
        }
        text
    }

    /// Writes a request to the access log.
    pub(crate) fn log(&self, entry: &access_log::Entry<'_>) {
        // Lines without a log to go to would pile up.
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

    /// Scratch memory for a request.
    pub(crate) fn take_scratch(&self) -> Box<Scratch> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes it back.
    pub(crate) fn put_back_scratch(&self, scratch: Box<Scratch>) {
        let mut scratches = self.scratches.borrow_mut();
        if scratches.len() < POOLED_SCRATCHES {
            scratches.push(scratch);
        }
    }
}
