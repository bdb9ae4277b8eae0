//! What clients notice of an S3 that fails: nothing, as long as that is possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::genomics::write_bam;
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Proxy};
use crate::support::raw_http::{Client, get, get_range, head, request, request_head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, error_xml, ok, s3_error};
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
    a_body_that_breaks_off_goes_on_at_the_next_byte,
    a_copied_body_that_breaks_off_goes_on_at_the_next_byte,
    a_range_that_breaks_off_goes_on_inside_itself,
    a_body_that_breaks_off_before_its_first_byte_is_retried,
    a_body_goes_on_only_with_the_same_version_of_the_object,
    a_body_without_a_strong_tag_is_cut_short,
    a_tag_without_quotation_marks_is_as_good_as_one_with_them,
    a_body_that_never_gets_on_is_cut_short,
    a_body_that_gets_on_is_limited_by_no_count_and_no_budget,
    heads_without_bodies_are_not_multiplied_by_retries,
    an_upstream_that_falls_silent_is_replaced,
    a_client_that_pauses_gets_its_bytes_even_when_s3_gave_up_waiting,
    a_wrong_clock_is_learned_from_s3,
    a_bucket_of_another_region_is_found_there,
    a_region_that_s3_names_only_in_the_body_is_learned_too,
);

const SIZE: u64 = 4 << 20;
const TARGET: &str = "/files/a.bam";

/// Every request goes out on a new connection, so that each connection is one try.
fn over(driver: Driver, upstream: &ScriptedUpstream) -> Config {
    Config::new(driver, &upstream.endpoint()).set("upstream_max_idle_connections", "0")
}

/// Fails the first `bad` requests of every upstream with `fail`, then answers well.
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
    // HEAD too, whose errors have no body.
    for status in ["429 Too Many Requests", "503 Slow Down", "520 Unknown"] {
        let upstream = failing(2, move |peer| {
            peer.send(format!(
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ));
        });
        let proxy = over(driver, &upstream).start();
        assert_eq!(head(&proxy, TARGET).content_length(), SIZE);
    }
    // One that lasts is a failure of S3.
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
    // With connections of before, and without any.
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
    // What makes no sense is passed over.
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
            proxy.stderr().contains(&format!("no request for the next {seconds} s (Retry-After)"))
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
    // The time counts too.
    let proxy = over(driver, &upstream).set("retries", "1000").set("retry_timeout", "1s").start();
    let asked = Instant::now();
    get(&proxy, TARGET).assert_error(503);
    assert!(asked.elapsed() < Duration::from_secs(3));
    // Nobody there at all.
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
    // Those that were not tried again have earned two more.
    let tries = upstream.connections();
    assert!((clients + 5..=clients + 7).contains(&tries), "{tries} requests for {clients}");
}

/// The `Range` and `If-Match` of each request.
fn conditions(upstream: &ScriptedUpstream) -> Vec<(Option<String>, Option<String>)> {
    let field = |head: &str, name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    let conditions = |head: &String| (field(head, "Range: "), field(head, "If-Match: "));
    upstream.heads().iter().map(conditions).collect()
}

fn resumed(first: u64, last: u64) -> (Option<String>, Option<String>) {
    (Some(format!("bytes={first}-{last}")), Some("\"0123456789abcdef\"".to_owned()))
}

fn breaks_off_every(most: usize) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| {
        peer.respond_with_part(SIZE, most);
    })
}

fn assert_resumes(proxy: &Proxy, upstream: &ScriptedUpstream) {
    get(proxy, TARGET).assert(200, whole());
    let expected = [(None, None), resumed(1_500_000, SIZE - 1), resumed(3_000_000, SIZE - 1)];
    assert_eq!(conditions(upstream), expected);
    eventually("the log says so", || proxy.stderr().contains("resumed at byte 3000000"));
}

fn a_body_that_breaks_off_goes_on_at_the_next_byte(driver: Driver) {
    let upstream = breaks_off_every(1_500_000);
    assert_resumes(&over(driver, &upstream).start(), &upstream);
}

fn a_copied_body_that_breaks_off_goes_on_at_the_next_byte(driver: Driver) {
    let upstream = breaks_off_every(1_500_000);
    assert_resumes(&over(driver, &upstream).set("splice", "off").start(), &upstream);
}

fn a_range_that_breaks_off_goes_on_inside_itself(driver: Driver) {
    let upstream = breaks_off_every(1_000_000);
    let proxy = over(driver, &upstream).start();
    let expected = synthetic_bytes(100, 2_500_000);
    get_range(&proxy, TARGET, "bytes=100-2500099").assert(206, expected);
    assert_eq!(
        conditions(&upstream)[1..],
        [resumed(1_000_100, 2_500_099), resumed(2_000_100, 2_500_099)]
    );
    // Small enough to be received whole before the client is told anything.
    let upstream = breaks_off_every(3_000);
    let proxy = over(driver, &upstream).set("retries", "8").start();
    get_range(&proxy, TARGET, "bytes=0-9999").assert(206, synthetic_bytes(0, 10_000));
}

fn a_body_that_breaks_off_before_its_first_byte_is_retried(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        let most = if peer.number == 0 { 0 } else { SIZE as usize };
        peer.respond_with_part(SIZE, most);
    });
    let proxy = over(driver, &upstream).start();
    get(&proxy, TARGET).assert(200, whole());
}

fn a_body_goes_on_only_with_the_same_version_of_the_object(driver: Driver) {
    let changed = s3_error("412 Precondition Failed", "PreconditionFailed");
    let upstream = ScriptedUpstream::start(move |peer| {
        if peer.number == 0 {
            peer.respond_with_part(SIZE, 1_500_000);
        } else if peer.next_request() {
            peer.send(&changed);
        }
    });
    let proxy = over(driver, &upstream).start();
    assert_cut_short(&proxy, 1_500_000);
    assert_eq!(upstream.connections(), 2);

    // A server that ignores If-Match and Range sends something else.
    let upstream = ScriptedUpstream::start(|peer| {
        if peer.number == 0 {
            peer.respond_with_part(SIZE, 1_500_000);
        } else if peer.next_request() {
            peer.send(ok("another object"));
        }
    });
    assert_cut_short(&over(driver, &upstream).start(), 1_500_000);
}

/// Fails unless the body has exactly its first `length` bytes, on a connection that is closed.
#[track_caller]
fn assert_cut_short(proxy: &Proxy, length: usize) {
    let mut client = Client::connect(proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().content_length(), SIZE);
    let came = client.rest();
    assert!(came == synthetic_bytes(0, length), "{} bytes came", came.len());
}

fn a_body_without_a_strong_tag_is_cut_short(driver: Driver) {
    for field in ["ETag: W/\"weak\"\r\n", "ETag: \"\"\r\n", "ETag:\r\n", "ETag: W/\"\"\r\n", ""] {
        let upstream = ScriptedUpstream::start(move |peer| {
            if peer.next_request() {
                let head = format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {SIZE}\r\n\r\n");
                peer.send(head);
                peer.send(synthetic_bytes(0, 1_000_000));
            }
        });
        assert_cut_short(&over(driver, &upstream).start(), 1_000_000);
        assert_eq!(upstream.connections(), 1, "{field}");
    }
}

fn a_tag_without_quotation_marks_is_as_good_as_one_with_them(driver: Driver) {
    const TAG: &str = "\"0123456789abcdef\"";
    let upstream = ScriptedUpstream::start(|peer| {
        if !peer.next_request() {
            return;
        }
        let head = peer.last_head();
        let fields = "Last-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\nETag: 0123456789abcdef";
        if head.starts_with("HEAD ") {
            peer.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {SIZE}\r\n\r\n"));
        } else if head.contains("\r\nRange: bytes=1000000-") {
            assert!(head.contains("\r\nIf-Match: \"0123456789abcdef\"\r\n"), "{head}");
            peer.send(format!(
                "HTTP/1.1 206 Partial Content\r\n{fields}\r\nContent-Length: {}\r\n\
                 Content-Range: bytes 1000000-{}/{SIZE}\r\n\r\n",
                SIZE - 1_000_000,
                SIZE - 1
            ));
            peer.send(synthetic_bytes(1_000_000, SIZE as usize - 1_000_000));
        } else {
            peer.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {SIZE}\r\n\r\n"));
            peer.send(synthetic_bytes(0, 1_000_000));
        }
    });
    let proxy = over(driver, &upstream).start();
    for method in ["GET", "HEAD"] {
        let response = request(&proxy, method, "/files/other", &[("If-None-Match", TAG)]);
        assert_eq!((response.status, response.field("etag")), (304, Some(TAG)), "{method}");
    }
    let response = get(&proxy, TARGET);
    response.assert(200, whole());
    assert_eq!(response.field("etag"), Some(TAG));
    assert_eq!(head(&proxy, TARGET).field("etag"), Some(TAG));
}

fn a_body_that_never_gets_on_is_cut_short(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        let most = if peer.number == 0 { 2_000_000 } else { 0 };
        peer.respond_with_part(SIZE, most);
    });
    let proxy = over(driver, &upstream).set("retries", "2").start();
    assert_cut_short(&proxy, 2_000_000);
    assert_eq!(upstream.connections(), 3);
}

fn a_body_that_gets_on_is_limited_by_no_count_and_no_budget(driver: Driver) {
    for splice in ["auto", "off"] {
        let upstream = breaks_off_every(100_000);
        let proxy = over(driver, &upstream).set("retries", "2").set("retry_budget", "0");
        get(&proxy.set("splice", splice).start(), TARGET).assert(200, whole());
        assert_eq!(upstream.connections(), 42);
    }
}

fn heads_without_bodies_are_not_multiplied_by_retries(driver: Driver) {
    let upstream = breaks_off_every(0);
    let proxy = over(driver, &upstream).set("retry_budget", "5").set("retries", "3").start();
    let clients = 20;
    for number in 0..clients {
        get(&proxy, &format!("/files/{number}")).assert_error(502);
    }
    let tries = upstream.connections();
    assert!((clients..=clients + 5 + 2).contains(&tries), "{tries} requests for {clients}");
}

fn an_upstream_that_falls_silent_is_replaced(driver: Driver) {
    for splice in ["auto", "off"] {
        let upstream = ScriptedUpstream::start(|peer| {
            let most = if peer.number == 0 { 1_500_000 } else { SIZE as usize };
            peer.respond_with_part(SIZE, most);
            peer.waits_for_close();
        });
        let config = over(driver, &upstream).set("stall_timeout", "1s");
        let proxy = config.set("splice", splice).start();
        get(&proxy, TARGET).assert(200, whole());
        assert_eq!(upstream.connections(), 2);
    }
}

fn a_client_that_pauses_gets_its_bytes_even_when_s3_gave_up_waiting(driver: Driver) {
    const LARGE: u64 = 64 << 20;
    let gave_up = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&gave_up);
    let upstream = ScriptedUpstream::start(move |peer| {
        if peer.number == 0 {
            // More than all memory on the way takes, so that it waits for the client; then S3
            // loses its patience.
            peer.give_up_sending_after(Duration::from_millis(300));
            peer.respond_with_part(LARGE, LARGE as usize);
            peer.reset();
            seen.fetch_add(1, Ordering::SeqCst);
        } else {
            peer.respond_with_part(LARGE, LARGE as usize);
        }
    });
    let proxy = over(driver, &upstream).start();
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().content_length(), LARGE);
    eventually("S3 gives the connection up", || gave_up.load(Ordering::SeqCst) == 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(client.exactly(LARGE as usize) == synthetic_bytes(0, LARGE as usize));
    assert_eq!(upstream.connections(), 2);
    client.assert_open();
}

fn a_wrong_clock_is_learned_from_s3(driver: Driver) {
    // S3 lives in 2031 and refuses everybody else.
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            if peer.last_head().contains("x-amz-date: 20310101T0000") {
                peer.send(ok("right on time").replace("2024", "2031"));
                continue;
            }
            let xml = error_xml("RequestTimeTooSkewed");
            peer.send(format!(
                "HTTP/1.1 403 Forbidden\r\nDate: Wed, 01 Jan 2031 00:00:00 GMT\r\n\
                 Content-Length: {}\r\n\r\n{xml}",
                xml.len()
            ));
        }
    });
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    get(&proxy, TARGET).assert(200, "right on time");
    get(&proxy, TARGET).assert(200, "right on time");
    assert_eq!(upstream.heads().len(), 3, "learned once, used from then on");
    eventually("the log says so", || proxy.stderr().contains("set the clock (NTP)"));
    let told = proxy.stderr().matches("set the clock (NTP)").count();
    assert_eq!(told, 1, "{}", proxy.stderr());
}

/// Answers only what is signed for `eu-central-1`, all else with `refusal`.
fn in_eu_central(refusal: String) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            match peer.last_head().contains("/eu-central-1/s3/aws4_request") {
                true => peer.send(ok("here it is")),
                false => peer.send(&refusal),
            }
        }
    })
}

fn assert_finds_the_region(driver: Driver, upstream: &ScriptedUpstream) {
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    for _ in 0..3 {
        get(&proxy, TARGET).assert(200, "here it is");
    }
    assert_eq!(upstream.heads().len(), 4, "learned once, used from then on");
    eventually("the log says so", || proxy.stderr().contains("is in region eu-central-1"));
    let log = proxy.stderr();
    assert_eq!(log.matches("is in region eu-central-1").count(), 1, "{log}");
    assert!(log.contains("write 'region: eu-central-1'"), "{log}");
}

fn a_bucket_of_another_region_is_found_there(driver: Driver) {
    let moved = s3_error("301 Moved Permanently", "PermanentRedirect")
        .replace("Server: scripted", "x-amz-bucket-region: eu-central-1");
    assert_finds_the_region(driver, &in_eu_central(moved.clone()));
    // A region that makes no sense is not followed, and neither is one in circles.
    for other in ["https://evil.example/", "ap-south-1"] {
        let upstream = in_eu_central(moved.replace("eu-central-1", other));
        let proxy = Config::new(driver, &upstream.endpoint()).start();
        get(&proxy, TARGET).assert_error(502);
        assert!(upstream.heads().len() <= 2);
    }
}

fn a_region_that_s3_names_only_in_the_body_is_learned_too(driver: Driver) {
    let xml = error_xml("AuthorizationHeaderMalformed")
        .replace("</Error>", "<Region>eu-central-1</Region></Error>");
    let upstream = in_eu_central(format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{xml}",
        xml.len()
    ));
    assert_finds_the_region(driver, &upstream);
}
