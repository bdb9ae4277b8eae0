//! The soak test: many clients of all kinds at once, over an S3 whose network fails all the time,
//! which is sometimes overloaded and rotates its access keys. Clients may notice only a few
//! failures, each with the correct status; afterwards the program must hold no more memory and
//! descriptors than before.
//!
//! `storm` tests the retries alone, with the default settings.
//!
//! The clients are in `visitor`, their requests and the expected responses in `exchange`, and the
//! faults in `support/fault_relay.rs`. `cargo test --test soak -- --nocapture` prints the counts.
//!
//! `S3PROXY_SOAK_SECONDS` (default 10, at least 5) is how long the storm lasts for each of the
//! configurations; `S3PROXY_SOAK_SEED` repeats the choices of an earlier run, though not
//! their order in time.

mod exchange;
mod ledger;
mod storm;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the suite uses the rest of it")]
mod support;
mod visitor;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::AUTHORIZATION;
use s3s::S3ErrorCode;

use crate::exchange::Bucket;
use crate::ledger::{Counts, Ledger};
use crate::support::certificates::Authority;
use crate::support::credential_services::CredentialServices;
use crate::support::eventually;
use crate::support::fault_relay::{Done, FaultRelay, Faults};
use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::visitor::Visitor;

#[test]
fn everything_at_once_leaves_nothing_behind_with_io_uring() {
    soak(Driver::IoUring, None);
}

#[test]
fn everything_at_once_leaves_nothing_behind_with_epoll() {
    soak(Driver::Epoll, None);
}

#[test]
fn everything_at_once_leaves_nothing_behind_with_https_to_s3() {
    soak(Driver::IoUring, Some(Authority::new()));
}

const WORKERS: usize = 2;
const CLIENTS: u64 = 48;

/// For each worker. Fewer than its clients, so that requests have to wait for one another.
const UPSTREAM_CONNECTIONS: usize = 16;
const IDLE_UPSTREAM_CONNECTIONS: usize = 8;
const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// For each worker; fewer than concurrent bodies, so that some bodies are copied.
const PIPES: usize = 8;

/// Lifetime of temporary credentials; they are refreshed after half of it or more.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(9);

/// Time without faults before the storm, so that pools and caches have their final size.
const CALM: Duration = Duration::from_secs(2);

/// Faults of the storm: about one response in eight, less those that end before their fault.
const STORM: Faults = Faults {
    refused: 0.03,
    cut_in_head: 0.02,
    closed: 0.03,
    reset: 0.03,
    stalled: 0.02,
    stall: Duration::from_millis(1200),
    trickled: 0.03,
    patience: Some(Duration::from_millis(200)),
};

/// How long S3 responds with `SlowDown` in each [`OUTAGE_PERIOD`] of the storm.
const OUTAGE: Duration = Duration::from_millis(250);
const OUTAGE_PERIOD: Duration = Duration::from_millis(2500);

/// At most one in this many requests may fail in the storm.
const ONE_FAILURE_IN: u64 = 100;

/// Limit for the resident memory at any time. A debug build that serves these clients needs 35 MiB,
/// much of it for its own code.
const MOST_RSS_BYTES: u64 = 64 << 20;

/// How much resident memory may grow from before the storm to after it.
const MOST_GROWTH_BYTES: u64 = 4 << 20;

/// One soak at a time, since each measures memory and time.
static ALONE: Mutex<()> = Mutex::new(());

fn soak(driver: Driver, authority: Option<Authority>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let storm = Duration::from_secs(setting("S3PROXY_SOAK_SECONDS").unwrap_or(10).max(5));
    let seed = setting("S3PROXY_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("S3PROXY_SOAK_SEED={seed}");
    let mut scene = Scene::set(driver, authority.as_ref(), seed);
    // The pipes of standard output and error, and inherited ones.
    let pipes = Footprint::of(&scene.proxy).pipes;

    let calm = scene.visit(CALM, |_| {});
    assert_eq!(calm.failed(), 0, "nothing failed, yet clients were told so: {calm}");
    let before = scene.after_all_is_closed();

    scene.relay.set(STORM);
    let stormy = scene.visit(storm, |since| {
        let is_outage = since.as_millis() % OUTAGE_PERIOD.as_millis() < OUTAGE.as_millis();
        scene.s3.set_outage(is_outage.then_some(S3ErrorCode::SlowDown));
    });
    scene.relay.set(Faults::NONE);
    scene.s3.set_outage(None);
    let faults = scene.relay.done();
    println!("calm: {calm}\nstorm: {stormy}\nfaults: {faults}");
    assert_all_kinds_happened(&stormy, &faults);
    assert!(stormy.failed() * ONE_FAILURE_IN <= stormy.sent, "too many failures: {stormy}");

    let clean = scene.request_everything();
    assert_eq!(clean.failed(), 0, "all is well again, yet clients were told otherwise: {clean}");
    let after = scene.after_all_is_closed();
    println!("before: {before:?}\nafter: {after:?}");
    before.assert_same(&after);
    let most = pipes + 2 * PIPES * WORKERS;
    assert!(after.pipes <= most, "{} ends of pipes, more than {most}", after.pipes);
    scene.end(&[calm, stormy, clean]);
}

pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is not a number")))
}

/// The proxy and its surroundings.
struct Scene {
    s3: TestS3,
    relay: FaultRelay,
    bucket: Bucket,
    proxy: Proxy,
    seed: u64,
    /// The access keys that requests were signed with.
    access_keys: Mutex<BTreeSet<String>>,
    _services: CredentialServices,
}

impl Scene {
    fn set(driver: Driver, authority: Option<&Authority>, seed: u64) -> Scene {
        let s3 = match authority {
            Some(authority) => {
                TestS3::start_tls(authority.server("localhost", rustls::ALL_VERSIONS))
            }
            None => TestS3::start(),
        };
        let relay = FaultRelay::start(&s3.server.endpoint(), seed);
        let services = CredentialServices::start(s3.server.keyring(), CREDENTIALS_LIFETIME);
        let mut config = config(driver, &relay);
        if let Some(authority) = authority {
            let file = authority.file();
            config = config.set("ca_file", file.to_str().expect("a path of ASCII"));
        }
        let process = Process::with_config(&config.yaml())
            .environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", &services.url());
        Scene {
            bucket: Bucket::fill(&s3),
            proxy: Proxy::start(process),
            s3,
            relay,
            seed,
            access_keys: Mutex::default(),
            _services: services,
        }
    }

    /// Runs all clients for `time`; `conduct` is called every 50 ms with the elapsed time.
    fn visit(&self, time: Duration, conduct: impl Fn(Duration)) -> Counts {
        let (ledger, is_over) = (Ledger::default(), AtomicBool::new(false));
        let started = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let seed = self.seed.wrapping_mul(CLIENTS).wrapping_add(number);
                let mut visitor = Visitor::new(&self.proxy, &self.bucket, &ledger, seed);
                let is_over = &is_over;
                scope.spawn(move || {
                    let _alarm = Alarm(is_over);
                    while !is_over.load(Ordering::Relaxed) {
                        visitor.turn();
                    }
                });
            }
            let _alarm = Alarm(&is_over);
            while started.elapsed() < time && !is_over.load(Ordering::Relaxed) {
                conduct(started.elapsed());
                self.read_the_journal();
                let rss = self.proxy.rss_bytes();
                assert!(rss < MOST_RSS_BYTES, "{rss} bytes of memory: {}", ledger.counts());
                std::thread::sleep(Duration::from_millis(50));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        self.read_the_journal();
        ledger.counts()
    }

    /// One exchange of each kind with each object, one after the other.
    fn request_everything(&self) -> Counts {
        let ledger = Ledger::default();
        Visitor::new(&self.proxy, &self.bucket, &ledger, self.seed).request_everything();
        ledger.counts()
    }

    /// Checks the requests that S3 has received since the last call.
    fn read_the_journal(&self) {
        let requests = self.s3.server.requests();
        self.s3.server.forget();
        let mut access_keys = self.access_keys.lock().unwrap_or_else(PoisonError::into_inner);
        for request in requests {
            assert!(matches!(request.method.as_str(), "GET" | "HEAD"), "{request:?}");
            let credential = request.field(AUTHORIZATION).and_then(|field| {
                Some(field.split_once("Credential=")?.1.split_once('/')?.0.to_owned())
            });
            access_keys.insert(credential.expect("every request is signed"));
        }
    }

    /// The process's footprint without clients, once all connections to S3 have reached their idle
    /// timeout. Until then no more of them may be open than the configuration allows.
    fn after_all_is_closed(&self) -> Footprint {
        let most = WORKERS * IDLE_UPSTREAM_CONNECTIONS;
        let asked = Instant::now();
        eventually("at most the allowed number of idle connections is open", || {
            self.relay.open_connections() <= most && self.s3.server.open_connections() <= most
        });
        assert!(asked.elapsed() < UPSTREAM_IDLE_TIMEOUT / 2, "{:?}", asked.elapsed());
        assert!(self.relay.open_connections() > 0, "no connection is kept for the next request");
        eventually("all idle connections are closed", || {
            self.relay.open_connections() == 0 && self.s3.server.open_connections() == 0
        });
        let took = asked.elapsed();
        assert!(took < UPSTREAM_IDLE_TIMEOUT + Duration::from_secs(2), "{took:?}");
        Footprint::of(&self.proxy)
    }

    /// Ends the program and compares its counts with those of the clients.
    fn end(&mut self, phases: &[Counts]) {
        self.proxy.terminate();
        assert_eq!(self.proxy.exit_code(), Some(0));
        let log = self.proxy.stderr();
        for words in [" bug: ", "panicked", " ERROR "] {
            assert!(!log.contains(words), "{words:?} in the log");
        }
        let counted = log.lines().rfind(|line| line.contains(" requests=")).expect("a summary");
        println!("proxy: {counted}");
        let counter = |name: &str| {
            let value = counted.split(' ').find_map(|word| word.strip_prefix(name));
            let value = value.and_then(|rest| rest.strip_prefix('='));
            value.and_then(|digits| digits.parse::<u64>().ok()).expect("a counter")
        };
        let sum = |of: fn(&Counts) -> u64| phases.iter().map(of).sum::<u64>();
        let (responses, sent) = (sum(Counts::responses), sum(|counts| counts.sent));
        let requests = counter("requests");
        assert!((responses..=sent).contains(&requests), "{responses} <= {requests} <= {sent}");
        for name in ["s3_retries", "s3_resumes", "bytes_copied"] {
            assert!(counter(name) > 0, "no {name}");
        }
        let access_keys = self.access_keys.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(access_keys.len() > 1, "keys never changed: {access_keys:?}");
        println!("signed with {} sets of credentials in turn\n", access_keys.len());
    }
}

fn config(driver: Driver, relay: &FaultRelay) -> Config {
    Config::new(driver, relay.endpoint())
        .without("AWS_ACCESS_KEY_ID")
        .without("AWS_SECRET_ACCESS_KEY")
        .set("credentials", "instance")
        .set("workers", &WORKERS.to_string())
        .set("access_log", "false")
        .set("max_pipes", &PIPES.to_string())
        // Short, so that cached metadata often expires.
        .set("metadata_ttl", "1s")
        .set("metadata_negative_ttl", "500ms")
        // Small, so that entries are evicted, and so that all pages of the map are resident before
        // the storm.
        .set("metadata_entries", "4096")
        .set("upstream_max_connections", &UPSTREAM_CONNECTIONS.to_string())
        .set("upstream_max_idle_connections", &IDLE_UPSTREAM_CONNECTIONS.to_string())
        .set("upstream_idle_timeout", &format!("{}ms", UPSTREAM_IDLE_TIMEOUT.as_millis()))
        .set("upstream_wait_timeout", "10s")
        // Shorter than the relay's stalls, longer than the pauses of a busy machine.
        .set("stall_timeout", "500ms")
        .set("first_byte_timeout", "3s")
}

/// Descriptors and memory of a process.
#[derive(Debug)]
struct Footprint {
    sockets: usize,
    pipes: usize,
    /// Descriptors of another kind.
    others: usize,
    rss_bytes: u64,
}

impl Footprint {
    fn of(proxy: &Proxy) -> Footprint {
        let fds = proxy.fds();
        let count = |kind: &str| fds.iter().filter(|target| target.starts_with(kind)).count();
        let (sockets, pipes) = (count("socket:"), count("pipe:"));
        let others = fds.len() - sockets - pipes;
        Footprint { sockets, pipes, others, rss_bytes: proxy.rss_bytes() }
    }

    /// Fails if `after` has more. Pipes are kept for the next body, however many there are.
    fn assert_same(&self, after: &Footprint) {
        assert_eq!((self.sockets, self.others), (after.sockets, after.others), "{after:?}");
        let grown = after.rss_bytes.saturating_sub(self.rss_bytes);
        assert!(grown < MOST_GROWTH_BYTES, "{grown} bytes of memory more than before the storm");
    }
}

/// Fails unless each kind of fault and of response occurred: otherwise the soak proves nothing.
fn assert_all_kinds_happened(counts: &Counts, faults: &Done) {
    let Done { refused, closed, reset, stalled, trickled, given_up, .. } = *faults;
    let happened = [refused, closed, reset, stalled, trickled, given_up];
    assert!(happened.iter().all(|&count| count > 0), "a fault never happened: {faults}");
    for status in [200, 206, 304, 403, 404, 412, 416] {
        assert!(counts.heads.contains_key(&status), "no response {status}: {counts}");
    }
    assert!(counts.given_up > 0, "{counts}");
}

/// Stops all clients when one of them panics.
pub(crate) struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
