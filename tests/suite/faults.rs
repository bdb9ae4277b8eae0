//! What clients notice of an S3 that fails: nothing, as long as that is possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::object::synthetic_bytes;
use crate::support::proxy::{Config, Driver, Proxy};
use crate::support::raw_http::{Client, get, get_range, head, request, request_head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, error_xml, ok, s3_error};

both_drivers!(
    an_answer_of_500_502_503_or_504_is_asked_for_again,
    a_refusal_is_never_asked_for_again,
    a_connection_that_dies_before_its_answer_is_replaced,
    an_upstream_that_says_nothing_is_asked_again_elsewhere,
    an_outage_is_given_up_within_its_bounds_and_told_truthfully,
    an_outage_is_not_multiplied_by_retries,
    a_body_that_breaks_off_goes_on_at_the_next_byte,
    a_copied_body_that_breaks_off_goes_on_at_the_next_byte,
    a_range_that_breaks_off_goes_on_inside_itself,
    a_body_that_breaks_off_before_its_first_byte_is_asked_for_again,
    a_body_goes_on_only_with_the_same_version_of_the_object,
    a_body_without_a_strong_tag_is_cut_short,
    a_tag_without_quotation_marks_is_as_good_as_one_with_them,
    a_body_that_never_gets_on_is_cut_short,
    an_upstream_that_falls_silent_is_replaced,
    a_client_that_pauses_gets_its_bytes_even_when_s3_gave_up_waiting,
    a_wrong_clock_is_learned_from_s3,
    a_bucket_of_another_region_is_found_there,
    a_region_that_s3_names_in_the_body_only_is_believed_too,
);

const SIZE: u64 = 4 << 20;
const TARGET: &str = "/files/a.bam";

/// All answers are asked for on new connections, so that each connection is one try.
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
            peer.answer_with_part(SIZE, SIZE as usize);
        }
    })
}

fn whole() -> Vec<u8> {
    synthetic_bytes(0, SIZE as usize)
}

fn an_answer_of_500_502_503_or_504_is_asked_for_again(driver: Driver) {
    for status in [
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Slow Down",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        let answer = s3_error(status, "SlowDown");
        let upstream = failing(2, move |peer| peer.send(&answer));
        let proxy = over(driver, &upstream).start();
        get(&proxy, TARGET).assert(200, whole());
        assert_eq!(upstream.connections(), 3, "{status}");
    }
    // HEAD too, whose errors have no body.
    let upstream = failing(2, |peer| {
        peer.send("HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let proxy = over(driver, &upstream).start();
    assert_eq!(head(&proxy, TARGET).content_length(), SIZE);
}

fn a_refusal_is_never_asked_for_again(driver: Driver) {
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

fn a_connection_that_dies_before_its_answer_is_replaced(driver: Driver) {
    for fail in [(|_| {}) as fn(&mut Peer), Peer::reset, |peer| peer.send("HTTP/1.1 200 O")] {
        let upstream = failing(2, fail);
        let proxy = over(driver, &upstream).start();
        get(&proxy, TARGET).assert(200, whole());
        assert_eq!(upstream.connections(), 3);
    }
}

fn an_upstream_that_says_nothing_is_asked_again_elsewhere(driver: Driver) {
    let upstream = failing(1, |peer| {
        peer.waits_for_close();
    });
    let proxy = over(driver, &upstream).set("first_byte_timeout", "200ms").start();
    get(&proxy, TARGET).assert(200, whole());
}

fn an_outage_is_given_up_within_its_bounds_and_told_truthfully(driver: Driver) {
    let slow_down = s3_error("503 Slow Down", "SlowDown");
    let upstream = failing(usize::MAX, move |peer| peer.send(&slow_down));
    let proxy = over(driver, &upstream).set("retries", "2").start();
    let answer = get(&proxy, TARGET);
    answer.assert_error(503);
    assert_eq!(answer.field("retry-after"), Some("1"));
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
    let answer = s3_error("500 Internal Server Error", "InternalError");
    let upstream = failing(usize::MAX, move |peer| peer.send(&answer));
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
        peer.answer_with_part(SIZE, most);
    })
}

fn assert_resumes(proxy: &Proxy, upstream: &ScriptedUpstream) {
    get(proxy, TARGET).assert(200, whole());
    let expected = [(None, None), resumed(1_500_000, SIZE - 1), resumed(3_000_000, SIZE - 1)];
    assert_eq!(conditions(upstream), expected);
    eventually("the log says so", || proxy.stderr().contains("it goes on at byte 3000000"));
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

fn a_body_that_breaks_off_before_its_first_byte_is_asked_for_again(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        let most = if peer.number == 0 { 0 } else { SIZE as usize };
        peer.answer_with_part(SIZE, most);
    });
    let proxy = over(driver, &upstream).start();
    get(&proxy, TARGET).assert(200, whole());
}

fn a_body_goes_on_only_with_the_same_version_of_the_object(driver: Driver) {
    let changed = s3_error("412 Precondition Failed", "PreconditionFailed");
    let upstream = ScriptedUpstream::start(move |peer| {
        if peer.number == 0 {
            peer.answer_with_part(SIZE, 1_500_000);
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
            peer.answer_with_part(SIZE, 1_500_000);
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
    const TAG: &str = "\"0123456789abcdef\"";
    for method in ["GET", "HEAD"] {
        let answer = request(&proxy, method, "/files/other", &[("If-None-Match", TAG)]);
        assert_eq!((answer.status, answer.field("etag")), (304, Some(TAG)), "{method}");
    }
    let answer = get(&proxy, TARGET);
    answer.assert(200, whole());
    assert_eq!(answer.field("etag"), Some(TAG));
    assert_eq!(head(&proxy, TARGET).field("etag"), Some(TAG));
}

fn a_body_that_never_gets_on_is_cut_short(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        let most = if peer.number == 0 { 2_000_000 } else { 0 };
        peer.answer_with_part(SIZE, most);
    });
    let proxy = over(driver, &upstream).set("retries", "2").start();
    assert_cut_short(&proxy, 2_000_000);
    assert_eq!(upstream.connections(), 3);
}

fn an_upstream_that_falls_silent_is_replaced(driver: Driver) {
    for splice in ["auto", "off"] {
        let upstream = ScriptedUpstream::start(|peer| {
            let most = if peer.number == 0 { 1_500_000 } else { SIZE as usize };
            peer.answer_with_part(SIZE, most);
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
            peer.answer_with_part(LARGE, LARGE as usize);
            peer.reset();
            seen.fetch_add(1, Ordering::SeqCst);
        } else {
            peer.answer_with_part(LARGE, LARGE as usize);
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

fn a_region_that_s3_names_in_the_body_only_is_believed_too(driver: Driver) {
    let xml = error_xml("AuthorizationHeaderMalformed")
        .replace("</Error>", "<Region>eu-central-1</Region></Error>");
    let upstream = in_eu_central(format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{xml}",
        xml.len()
    ));
    assert_finds_the_region(driver, &upstream);
}
