//! An S3 that fails: clients do not notice as long as a retry can succeed.

mod corrections;
mod resume;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::genomics::write_bam;
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver};
use crate::support::raw_http::{Client, get, get_range, head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, s3_error};
use crate::support::tools::run;

both_drivers!(
    a_response_of_429_or_any_5xx_is_retried,
    six_failures_in_a_row_are_not_noticed,
    an_s3_that_refuses_connections_for_two_seconds_is_not_noticed,
    a_retry_after_of_s3_is_kept,
    a_retry_after_that_is_too_long_is_passed_on_at_once,
    a_fifth_of_failures_at_random_is_not_noticed,
    a_refusal_is_never_retried,
    a_connection_that_dies_before_its_response_is_replaced,
    a_silent_upstream_is_retried_on_another_connection,
    an_outage_is_given_up_within_its_bounds_and_reported_truthfully,
    an_outage_is_not_multiplied_by_retries,
);

const SIZE: u64 = 4 << 20;
const TARGET: &str = "/files/a.bam";

/// Every request uses a new connection, so that each connection is one attempt.
fn over(driver: Driver, upstream: &ScriptedUpstream) -> Config {
    Config::new(driver, &upstream.endpoint()).set("upstream_max_idle_connections", "0")
}

/// Fails the first `bad` requests with `fail`, and serves later ones.
fn failing(bad: usize, fail: impl Fn(&mut Peer) + Send + Sync + 'static) -> ScriptedUpstream {
    let seen = AtomicUsize::new(0);
    ScriptedUpstream::start(move |peer| {
        if seen.fetch_add(1, Ordering::SeqCst) < bad {
            if peer.next_request() {
                fail(peer);
            }
        } else {
            peer.respond_with_part(SIZE, SIZE as usize);
        }
    })
}

fn whole() -> Vec<u8> {
    synthetic_bytes(0, SIZE as usize)
}

fn a_response_of_429_or_any_5xx_is_retried(driver: Driver) {
    for (status, code) in [
        ("429 Too Many Requests", "TooManyRequests"),
        ("500 Internal Server Error", "InternalError"),
        ("502 Bad Gateway", ""),
        ("503 Slow Down", "SlowDown"),
        ("503 Service Unavailable", "ServiceUnavailable"),
        ("504 Gateway Timeout", ""),
        ("507 Insufficient Storage", ""),
        ("520 Unknown", ""),
        ("599 Whatever", "Whatever"),
        ("400 Bad Request", "RequestTimeout"),
    ] {
        let response = s3_error(status, code);
        let upstream = failing(2, move |peer| peer.send(&response));
        let proxy = over(driver, &upstream).start();
        get(&proxy, TARGET).assert(200, whole());
        assert_eq!(upstream.connections(), 3, "{status}");
    }
    // Also HEAD, whose error responses have no body.
    for status in ["429 Too Many Requests", "503 Slow Down", "520 Unknown"] {
        let upstream = failing(2, move |peer| {
            peer.send(format!(
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ));
        });
        let proxy = over(driver, &upstream).start();
        assert_eq!(head(&proxy, TARGET).content_length(), SIZE);
    }
    // If every attempt fails, it is S3's failure.
    let upstream = ScriptedUpstream::always(s3_error("520 Unknown", ""));
    let proxy = over(driver, &upstream).set("retries", "2").start();
    get(&proxy, TARGET).assert_error(502);
    assert_eq!(upstream.heads().len(), 3);
}

fn six_failures_in_a_row_are_not_noticed(driver: Driver) {
    let slow_down = s3_error("503 Slow Down", "SlowDown");
    let upstream = failing(6, move |peer| peer.send(&slow_down));
    let proxy = over(driver, &upstream).start();
    get(&proxy, TARGET).assert(200, whole());
    let upstream = failing(6, Peer::reset);
    let proxy = over(driver, &upstream).start();
    assert_eq!(head(&proxy, TARGET).content_length(), SIZE);
}

fn an_s3_that_refuses_connections_for_two_seconds_is_not_noticed(driver: Driver) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_bam(&directory.path().join("reads.bam"), 30_000).expect("a BAM");
    let bam = std::fs::read(directory.path().join("reads.bam")).expect("a BAM");
    let count = run(directory.path(), "samtools", &["view", "-c", "reads.bam"]);
    let s3 = TestS3::with("reads.bam", Object::new(bam.clone()));
    let mut gate = Gate::open(&s3.server.endpoint());
    let proxy = Config::new(driver, &gate.endpoint()).set("metadata_ttl", "0s").start();
    let url = proxy.url_of("/files/reads.bam");
    // With pooled connections, and without.
    get_range(&proxy, "/files/reads.bam", "bytes=0-9").assert(206, &bam[..10]);
    for (program, arguments) in [
        ("samtools", &["view", "-c"][..]),
        ("curl", &["-sSf", "-o", "copy.bam"]),
        ("curl", &["-sSfI"]),
        ("curl", &["-sSf", "-r", "100-299", "-o", "part.bam"]),
    ] {
        let arguments = [arguments, &[&url]].concat();
        gate.close();
        let outage = Instant::now();
        std::thread::scope(|scope| {
            let printed = scope.spawn(|| run(directory.path(), program, &arguments));
            std::thread::sleep(Duration::from_secs(2));
            gate.reopen();
            let printed = printed.join().expect("it succeeds");
            assert!(program != "samtools" || printed == count, "{printed:?}");
        });
        assert!(outage.elapsed() >= Duration::from_secs(2));
    }
    let written = |name: &str| std::fs::read(directory.path().join(name)).expect("written");
    assert!(written("copy.bam") == bam && written("part.bam") == bam[100..300]);
}

fn wait_for_s3(retry_after: impl Fn() -> String + Send + Sync + 'static) -> ScriptedUpstream {
    failing(1, move |peer| {
        let fields = format!("Retry-After: {}\r\nServer: ", retry_after());
        peer.send(s3_error("503 Slow Down", "SlowDown").replace("Server: ", &fields));
    })
}

fn a_retry_after_of_s3_is_kept(driver: Driver) {
    let in_two_seconds = || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    for upstream in [wait_for_s3(|| "1".to_owned()), wait_for_s3(in_two_seconds)] {
        let proxy = over(driver, &upstream).start();
        let asked = Instant::now();
        get(&proxy, TARGET).assert(200, whole());
        assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
        assert_eq!(upstream.connections(), 2);
    }
    // An invalid value is ignored.
    let upstream = wait_for_s3(|| "soon".to_owned());
    get(&over(driver, &upstream).start(), TARGET).assert(200, whole());
}

fn a_retry_after_that_is_too_long_is_passed_on_at_once(driver: Driver) {
    for seconds in ["120", "18446744073709551615"] {
        let upstream = wait_for_s3(|| seconds.to_owned());
        let proxy = over(driver, &upstream).start();
        let response = get(&proxy, TARGET);
        response.assert_error(503);
        assert_eq!(response.field("retry-after"), Some(seconds));
        assert_eq!(upstream.connections(), 1);
        eventually("the log says so", || {
            proxy.stderr().contains(&format!("no request in the next {seconds} s (Retry-After)"))
        });
        get(&proxy, TARGET).assert(200, whole());
    }
}

fn a_fifth_of_failures_at_random_is_not_noticed(driver: Driver) {
    let s3 = TestS3::with("a.bam", Object::new("here it is"));
    s3.slow_down(0.2, 27);
    let proxy = Config::over(driver, &s3).set("retry_budget", "20").start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(&proxy);
                for _ in 0..100 {
                    client.request("GET", TARGET, &[]).assert(200, "here it is");
                }
            });
        }
    });
}

fn a_refusal_is_never_retried(driver: Driver) {
    for (status, code, expected) in [
        ("403 Forbidden", "AccessDenied", 403),
        ("403 Forbidden", "SignatureDoesNotMatch", 502),
        ("404 Not Found", "NoSuchKey", 404),
        ("412 Precondition Failed", "PreconditionFailed", 412),
        ("400 Bad Request", "SomethingNew", 502),
    ] {
        let upstream = ScriptedUpstream::once(s3_error(status, code));
        let proxy = over(driver, &upstream).start();
        get(&proxy, TARGET).assert_error(expected);
        assert_eq!(upstream.connections(), 1, "{code}");
    }
}

fn a_connection_that_dies_before_its_response_is_replaced(driver: Driver) {
    for fail in [(|_| {}) as fn(&mut Peer), Peer::reset, |peer| peer.send("HTTP/1.1 200 O")] {
        let upstream = failing(2, fail);
        let proxy = over(driver, &upstream).start();
        get(&proxy, TARGET).assert(200, whole());
        assert_eq!(upstream.connections(), 3);
    }
}

fn a_silent_upstream_is_retried_on_another_connection(driver: Driver) {
    let upstream = failing(1, |peer| {
        peer.waits_for_close();
    });
    let proxy = over(driver, &upstream).set("first_byte_timeout", "200ms").start();
    get(&proxy, TARGET).assert(200, whole());
}

fn an_outage_is_given_up_within_its_bounds_and_reported_truthfully(driver: Driver) {
    let slow_down = s3_error("503 Slow Down", "SlowDown");
    let upstream = failing(usize::MAX, move |peer| peer.send(&slow_down));
    let proxy = over(driver, &upstream).set("retries", "2").start();
    let response = get(&proxy, TARGET);
    response.assert_error(503);
    assert_eq!(response.field("retry-after"), Some("1"));
    assert_eq!(upstream.connections(), 3);
    let proxy = over(driver, &upstream).set("retries", "0").start();
    get(&proxy, TARGET).assert_error(503);
    assert_eq!(upstream.connections(), 4);
    // Also bounded by time.
    let proxy = over(driver, &upstream).set("retries", "1000").set("retry_timeout", "1s").start();
    let asked = Instant::now();
    get(&proxy, TARGET).assert_error(503);
    assert!(asked.elapsed() < Duration::from_secs(3));
    // Nothing listens.
    let nobody = Config::new(driver, "http://127.0.0.1:1").set("retries", "2").start();
    get(&nobody, TARGET).assert_error(502);
}

fn an_outage_is_not_multiplied_by_retries(driver: Driver) {
    let response = s3_error("500 Internal Server Error", "InternalError");
    let upstream = failing(usize::MAX, move |peer| peer.send(&response));
    let proxy = over(driver, &upstream).set("retry_budget", "5").start();
    let clients = 20;
    for number in 0..clients {
        get(&proxy, &format!("/files/{number}")).assert_error(502);
    }
    // The requests without retries have earned budget for two more.
    let tries = upstream.connections();
    assert!((clients + 5..=clients + 7).contains(&tries), "{tries} requests for {clients}");
}
