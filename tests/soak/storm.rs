//! A storm in which every sixth response of S3 is a reset, a cut or a `SlowDown`, for a proxy with
//! default settings. Of the requests of 40 clients that read slices, fewer than one in a thousand
//! may fail.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::exchange::Bucket;
use crate::ledger::Ledger;
use crate::support::certificates::Authority;
use crate::support::fault_relay::{FaultRelay, Faults};
use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver};
use crate::visitor::Visitor;
use crate::{ALONE, Alarm, setting};

#[test]
fn a_storm_is_hardly_noticed_with_io_uring() {
    storm(Driver::IoUring, None);
}

#[test]
fn a_storm_is_hardly_noticed_with_epoll() {
    storm(Driver::Epoll, None);
}

#[test]
fn a_storm_is_hardly_noticed_with_https_to_s3() {
    storm(Driver::IoUring, Some(Authority::new()));
}

const CLIENTS: u64 = 40;

/// Faults of the network. Short responses end before their fault; together with the `SlowDown`s one
/// response in six is broken.
const FAULTS: Faults = Faults {
    refused: 0.01,
    cut_in_head: 0.05,
    closed: 0.06,
    reset: 0.06,
    stalled: 0.0,
    stall: Duration::ZERO,
    trickled: 0.0,
    patience: None,
};
const SLOW_DOWNS: f64 = 1.0 / 24.0;

/// At most one in this many requests may fail.
const ONE_FAILURE_IN: u64 = 1000;

fn storm(driver: Driver, authority: Option<Authority>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let time = Duration::from_secs(setting("S3PROXY_SOAK_SECONDS").unwrap_or(10).max(5));
    let seed = setting("S3PROXY_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("S3PROXY_SOAK_SEED={seed}");
    let s3 = match &authority {
        Some(authority) => TestS3::start_tls(authority.server("localhost", rustls::ALL_VERSIONS)),
        None => TestS3::start(),
    };
    let bucket = Bucket::fill(&s3);
    let relay = FaultRelay::start(&s3.server.endpoint(), seed);
    let mut config = Config::new(driver, relay.endpoint()).set("access_log", "false");
    if let Some(authority) = &authority {
        config = config.set("ca_file", authority.file().to_str().expect("a path of ASCII"));
    }
    let proxy = config.start();
    relay.set(FAULTS);
    s3.slow_down(SLOW_DOWNS, seed);

    let (ledger, is_over) = (Ledger::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let seed = seed.wrapping_mul(CLIENTS).wrapping_add(number);
            let mut visitor = Visitor::new(&proxy, &bucket, &ledger, seed);
            let is_over = &is_over;
            scope.spawn(move || {
                let _alarm = Alarm(is_over);
                while !is_over.load(Ordering::Relaxed) {
                    visitor.read_a_slice();
                }
            });
        }
        let _alarm = Alarm(&is_over);
        let started = Instant::now();
        while started.elapsed() < time && !is_over.load(Ordering::Relaxed) {
            s3.server.forget();
            std::thread::sleep(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let (counts, faults) = (ledger.counts(), relay.done());
    println!("storm of {time:?} with {driver:?}: {counts}\nfaults: {faults}\n");
    assert!(faults.refused > 0 && faults.closed > 0 && faults.reset > 0, "{faults}");
    assert!(counts.failed() * ONE_FAILURE_IN <= counts.sent, "too many failures: {counts}");
}
