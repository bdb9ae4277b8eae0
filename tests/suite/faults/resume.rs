//! Bodies that break off or fall silent, and are resumed at the next byte over another connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{SIZE, TARGET, over, whole};
use crate::support::eventually;
use crate::support::object::synthetic_bytes;
use crate::support::proxy::{Driver, Proxy};
use crate::support::raw_http::{Client, get, get_range, head, request, request_head};
use crate::support::scripted_upstream::{ScriptedUpstream, ok, s3_error};

both_drivers!(
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
);

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
    // Small enough to be received completely before the client gets a head.
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
    assert!(came == synthetic_bytes(0, length), "{} bytes received", came.len());
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
            // More than all buffers between S3 and the client hold, so that sending blocks until S3
            // gives up.
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
