//! Servers that ignore `Range`, misread it, or reject ends past the object.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{
    Framing, LARGE, PLAIN, Store, TARGET, assert_serves, bytes, on_every_transport, proxy_over,
};
use crate::support::proxy::{Config, Driver};
use crate::support::raw_http::{Client, get, get_range, head, request_head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, ok, ok_head, s3_error};

both_drivers!(
    an_ignored_range_is_cut_out_of_the_whole,
    an_ignored_range_is_cut_out_of_a_chunked_whole,
    a_part_far_behind_the_start_of_the_whole_is_sent_as_the_whole,
    a_part_of_the_whole_leaves_nothing_to_the_next_response,
    late_bytes_of_the_whole_are_never_another_response,
    a_slow_client_of_a_server_that_ignores_ranges_gets_all_its_bytes,
    a_200_with_a_content_range_is_a_part,
    a_200_with_a_wrong_content_range_is_502_and_its_length_is_ignored,
    a_part_of_no_bytes_at_the_end_is_416,
    range_ends_past_a_cached_object_are_clamped_before_s3,
    an_object_that_grew_is_served_up_to_its_new_end,
);

/// Ignores `Range` and always sends the whole object.
const IGNORES_RANGES: Store = Store { ignores_ranges: true, ..PLAIN };

fn an_ignored_range_is_cut_out_of_the_whole(driver: Driver) {
    for size in [10, LARGE.size] {
        let store = Store { size, ..IGNORES_RANGES };
        on_every_transport(driver, store.script(), |proxy, _| assert_serves(proxy, store));
    }
    let upstream = IGNORES_RANGES.start();
    let proxy = proxy_over(driver, &upstream);
    let mut client = Client::connect(&proxy);
    for (range, first, length) in parts_of(IGNORES_RANGES.size) {
        let response = client.request("GET", TARGET, &[("Range", &range)]);
        response.assert(206, bytes(first, length));
    }
    client.assert_open();
}

fn an_ignored_range_is_cut_out_of_a_chunked_whole(driver: Driver) {
    for head in [Framing::Length, Framing::Chunked] {
        let store = Store { framing: Framing::Chunked, head, ..IGNORES_RANGES };
        let upstream = store.start();
        let proxy = proxy_over(driver, &upstream);
        assert_serves(&proxy, store);
        for (range, first, length) in parts_of(store.size) {
            get_range(&proxy, TARGET, &range).assert(206, bytes(first, length));
        }
    }
}

/// Ranges with their first byte and length: at the start, in the middle and at the end.
fn parts_of(size: u64) -> [(String, u64, u64); 6] {
    [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=0-9".to_owned(), 0, 10),
        ("bytes=-1".to_owned(), size - 1, 1),
        ("bytes=2000000-2099999".to_owned(), 2_000_000, 100_000),
        ("bytes=5-300000".to_owned(), 5, 299_996),
        ("bytes=-30000".to_owned(), size - 30_000, 30_000),
    ]
}

/// HTTP allows it, and skipping more than 16 MiB for a few bytes would cost more.
fn a_part_far_behind_the_start_of_the_whole_is_sent_as_the_whole(driver: Driver) {
    let store = Store { size: 20 << 20, ..IGNORES_RANGES };
    let upstream = store.start();
    let proxy = proxy_over(driver, &upstream);
    let whole = bytes(0, store.size);
    for far in ["bytes=17000000-17000099", "bytes=-10"] {
        let response = get_range(&proxy, TARGET, far);
        assert_eq!((response.status, response.field("content-range")), (200, None), "{far}");
        response.assert(200, &whole);
    }
    get_range(&proxy, TARGET, "bytes=16777216-16777218").assert(206, bytes(16 << 20, 3));
}

/// The head is sent first and the body later, so that no body bytes are received with the head.
fn a_part_of_the_whole_leaves_nothing_to_the_next_response(driver: Driver) {
    const SMALL: usize = 50_000;
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            peer.send(ok_head(SMALL));
            if !peer.last_head().starts_with("HEAD ") {
                std::thread::sleep(Duration::from_millis(20));
                peer.send(bytes(0, SMALL as u64));
            }
        }
    });
    let proxy = proxy_over(driver, &upstream);
    let mut client = Client::connect(&proxy);
    for (range, first, length) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9999", 0, 10_000),
        ("bytes=1-1", 1, 1),
        ("bytes=-1", 49_999, 1),
    ] {
        for _ in 0..2 {
            let response = client.request("GET", TARGET, &[("Range", range)]);
            response.assert(206, bytes(first, length));
        }
    }
}

fn late_bytes_of_the_whole_are_never_another_response(driver: Driver) {
    let rest = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nWRONG";
    let script = move |peer: &mut Peer| {
        while peer.next_request() {
            peer.send(ok_head(3 + rest.len()) + "abc");
            std::thread::sleep(Duration::from_millis(300));
            peer.send(rest);
        }
    };
    on_every_transport(driver, script, |proxy, _| {
        for _ in 0..3 {
            get_range(proxy, TARGET, "bytes=0-2").assert(206, "abc");
        }
        get(proxy, "/files/other").assert(200, format!("abc{rest}"));
    });
}

fn a_slow_client_of_a_server_that_ignores_ranges_gets_all_its_bytes(driver: Driver) {
    let upstream = Store { size: 64 << 20, ..IGNORES_RANGES }.start();
    let config = Config::new(driver, &upstream.endpoint()).set("client_pause_timeout", "200ms");
    let proxy = config.start();
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[("Range", "bytes=1-50000000")]));
    assert_eq!(client.head().status, 206);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(client.exactly(50_000_000) == bytes(1, 50_000_000));
    assert_eq!(upstream.connections(), 1, "the rest cannot be requested on another");
}

fn a_200_with_a_content_range_is_a_part(driver: Driver) {
    let script = |peer: &mut Peer| {
        while peer.next_request() {
            let mut response = PLAIN.response(peer);
            response.status = response.status.replace("206 Partial Content", "200 OK");
            peer.send("HTTP/1.1 103 Early Hints\r\n\r\n");
            peer.send(response.head());
            if !response.is_head {
                peer.send(response.body);
            }
        }
    };
    on_every_transport(driver, script, |proxy, _| assert_serves(proxy, PLAIN));
    // A part in response to a GET without `Range` must be the whole object.
    for (range, body, status) in [("0-9/10", "0123456789", 200), ("2-4/10", "234", 502)] {
        let upstream = ScriptedUpstream::always(part(range, body));
        assert_eq!(get(&proxy_over(driver, &upstream), TARGET).status, status, "{range}");
    }
}

/// A response with status 200 and a `Content-Range`.
fn part(content_range: &str, body: &str) -> String {
    ok(body).replace("Server:", &format!("Content-Range: bytes {content_range}\r\nServer:"))
}

fn a_200_with_a_wrong_content_range_is_502_and_its_length_is_ignored(driver: Driver) {
    for (content_range, requested) in [
        ("5-7/10", "bytes=2-4"),
        ("2-4/10", "bytes=2-5"),
        ("0-2/10", "bytes=2-4"),
        ("2-4/*", "bytes=2-4"),
        ("2-4/3", "bytes=2-4"),
        ("nonsense", "bytes=2-4"),
    ] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                match peer.last_head().starts_with("HEAD ") {
                    true => peer.send(ok_head(10)),
                    false => peer.send(part(content_range, "234")),
                }
            }
        });
        let proxy = proxy_over(driver, &upstream);
        get_range(&proxy, TARGET, requested).assert_error(502);
        get(&proxy, TARGET).assert_error(502);
        assert_eq!(head(&proxy, TARGET).content_length(), 10, "{content_range}");
    }
    // The size in a part is the object's, its length is not.
    let upstream = ScriptedUpstream::always(part("2-4/10", "234"));
    let proxy = proxy_over(driver, &upstream);
    get_range(&proxy, TARGET, "bytes=2-4").assert(206, "234");
    assert_eq!(head(&proxy, TARGET).content_length(), 10);
}

fn a_part_of_no_bytes_at_the_end_is_416(driver: Driver) {
    for status in ["206 Partial Content", "200 OK"] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                match peer.last_head().starts_with("HEAD ") {
                    true => peer.send(ok_head(10)),
                    false => peer.send(part("10-9/10", "").replace("200 OK", status)),
                }
            }
        });
        let proxy = proxy_over(driver, &upstream);
        for _ in 0..2 {
            let response = get_range(&proxy, TARGET, "bytes=10-");
            response.assert_error(416);
            assert_eq!(response.field("content-range"), Some("bytes */10"));
        }
        get_range(&proxy, TARGET, "bytes=2-4").assert_error(502);
        assert_eq!(head(&proxy, TARGET).content_length(), 10);
    }
}

/// A server that rejects ranges that end past the object, whose size `has_grown` doubles.
fn strict(has_grown: Arc<AtomicBool>) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            let size = if has_grown.load(Ordering::SeqCst) { 2000 } else { 1000 };
            let request = peer.last_head();
            let last = request.lines().find_map(|line| line.strip_prefix("Range: bytes="));
            let last = last.and_then(|range| range.split_once('-')).map(|(_, last)| last);
            if last.is_some_and(|last| last.parse().unwrap_or(0) >= size) {
                peer.send(s3_error("416 Range Not Satisfiable", "InvalidRange"));
            } else {
                Store { size, ..PLAIN }.respond(peer);
            }
        }
    })
}

fn range_ends_past_a_cached_object_are_clamped_before_s3(driver: Driver) {
    let upstream = strict(Arc::default());
    let proxy = proxy_over(driver, &upstream);
    assert_eq!(head(&proxy, TARGET).content_length(), 1000);
    for (range, sent, first) in [
        ("bytes=900-1999", "bytes=900-999", 900),
        ("bytes=-5000", "bytes=0-999", 0),
        ("bytes=0-999999999999999999999", "bytes=0-999", 0),
        ("bytes=4-", "bytes=4-", 4),
    ] {
        get_range(&proxy, TARGET, range).assert(206, bytes(first, 1000 - first));
        let last = upstream.heads().pop().expect("a request");
        assert!(last.contains(&format!("\r\nRange: {sent}\r\n")), "{last}");
    }
    get_range(&proxy, TARGET, "bytes=1000-1999").assert_error(416);
}

fn an_object_that_grew_is_served_up_to_its_new_end(driver: Driver) {
    let has_grown = Arc::new(AtomicBool::new(false));
    let upstream = strict(Arc::clone(&has_grown));
    let proxy = proxy_over(driver, &upstream);
    assert_eq!(head(&proxy, TARGET).content_length(), 1000);
    has_grown.store(true, Ordering::SeqCst);
    let response = get_range(&proxy, TARGET, "bytes=900-1999");
    response.assert(206, bytes(900, 1100));
    assert_eq!(response.field("content-range"), Some("bytes 900-1999/2000"));
}
