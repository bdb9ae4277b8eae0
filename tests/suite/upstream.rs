//! Responses of S3 servers that are not AWS: lawful HTTP that AWS never sends, and small mistakes that
//! do not have to become the client's.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};

use crate::support::certificates::Authority;
use crate::support::object::synthetic_bytes;
use crate::support::proxy::{Config, Driver, Proxy};
use crate::support::raw_http::{Client, Response, get, get_range, head, request, request_head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, s3_error};

both_drivers!(
    interim_responses_are_skipped,
    too_many_interim_responses_and_101_are_502,
    a_part_of_no_bytes_at_the_end_is_416,
    range_ends_past_a_cached_object_are_clamped_before_s3,
    an_object_that_grew_is_served_up_to_its_new_end,
    a_200_with_a_content_range_is_a_part,
    a_200_with_a_wrong_content_range_is_502_and_its_length_is_ignored,
    a_range_that_the_server_ignores_is_cut_out_of_the_whole,
    a_part_of_the_whole_leaves_nothing_to_the_next_response,
    a_range_that_is_ignored_is_cut_out_of_a_chunked_whole,
    a_whole_object_that_is_too_much_to_read_over_is_sent_whole,
    a_slow_client_of_a_server_that_ignores_ranges_gets_all_its_bytes,
    any_number_of_fields_is_read,
    a_head_without_a_length_is_followed_by_a_get,
    a_chunked_object_is_served_with_its_length,
    a_chunked_part_is_served_with_its_length,
    a_chunked_body_that_is_broken_goes_on_or_is_cut_short,
    a_chunked_body_leaves_the_connection_usable,
    a_part_that_lasts_until_the_connection_closes_is_served,
    over_https_it_is_the_same,
);

const SIZE: u64 = 3 << 20;
const TARGET: &str = "/files/a.bam";
const FIELDS: &str =
    "Last-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\nETag: \"0123456789abcdef\"\r\n";

fn proxy(driver: Driver, upstream: &ScriptedUpstream) -> Proxy {
    Config::new(driver, &upstream.endpoint()).start()
}

/// First and last byte that the last request asks for.
fn wanted(peer: &Peer, size: u64) -> Option<(u64, u64)> {
    let head = peer.last_head();
    let range = head.lines().find_map(|line| line.strip_prefix("Range: bytes="))?.to_owned();
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().unwrap_or(size - 1).min(size - 1)))
}

/// The fields and the body of a good response to the last request.
fn good(peer: &Peer) -> (String, Vec<u8>) {
    let (first, last) = wanted(peer, SIZE).unwrap_or((0, SIZE - 1));
    let length = last - first + 1;
    let status = match wanted(peer, SIZE) {
        Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{SIZE}"),
        None => "200 OK".to_owned(),
    };
    let body = match peer.last_head().starts_with("HEAD ") {
        true => Vec::new(),
        false => synthetic_bytes(first, length as usize),
    };
    (format!("HTTP/1.1 {status}\r\n{FIELDS}Content-Length: {length}\r\n\r\n"), body)
}

/// Every way to ask, small and large, cold and warm.
#[track_caller]
fn assert_served(proxy: &Proxy) {
    for occasion in ["cold", "warm"] {
        let target = |name: &str| format!("/files/{name}.bam");
        let response = get_range(proxy, &target("small"), "bytes=100-299");
        response.assert(206, synthetic_bytes(100, 200));
        let expected = format!("bytes 100-299/{SIZE}");
        assert_eq!(response.field("content-range"), Some(expected.as_str()), "{occasion}");
        get_range(proxy, &target("large"), "bytes=70000-1999999")
            .assert(206, synthetic_bytes(70_000, 1_930_000));
        get_range(proxy, &target("open"), &format!("bytes={}-", SIZE - 1_000_000))
            .assert(206, synthetic_bytes(SIZE - 1_000_000, 1_000_000));
        get(proxy, &target("whole")).assert(200, synthetic_bytes(0, SIZE as usize));
        let response = head(proxy, &target("head"));
        assert_eq!((response.status, response.content_length()), (200, SIZE), "{occasion}");
        assert_eq!(response.field("etag"), Some("\"0123456789abcdef\""), "{occasion}");
    }
}

fn interim_responses_are_skipped(driver: Driver) {
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100\r\n\r\nHTTP/1.1 199 What\r\nA: b\r\n\r\n",
    ] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let (head, body) = good(peer);
                if peer.last_head().contains("/small.bam ") {
                    peer.send_in_tiny_pieces(interim);
                } else {
                    peer.send(interim);
                    peer.rest(Duration::from_millis(20));
                }
                peer.send([head.as_bytes(), &body].concat());
            }
        });
        assert_served(&proxy(driver, &upstream));
        assert!(upstream.heads().len() >= 7);
    }
}

fn too_many_interim_responses_and_101_are_502(driver: Driver) {
    let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(10_000);
    for bad in [many, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned()] {
        let upstream = ScriptedUpstream::once(bad);
        let proxy = Config::new(driver, &upstream.endpoint()).set("retries", "0").start();
        get(&proxy, TARGET).assert_error(502);
        assert_eq!(head(&proxy, TARGET).status, 502);
    }
}

fn a_part_of_no_bytes_at_the_end_is_416(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            if peer.last_head().starts_with("HEAD ") {
                let (head, _) = good(peer);
                peer.send(head);
                continue;
            }
            peer.send(format!(
                "HTTP/1.1 206 Partial Content\r\n{FIELDS}Content-Length: 0\r\n\
                 Content-Range: bytes {SIZE}-{}/{SIZE}\r\n\r\n",
                SIZE - 1
            ));
        }
    });
    let proxy = proxy(driver, &upstream);
    for _ in 0..2 {
        let response = get_range(&proxy, TARGET, &format!("bytes={SIZE}-"));
        response.assert_error(416);
        let expected = format!("bytes */{SIZE}");
        assert_eq!(response.field("content-range"), Some(expected.as_str()));
    }
    assert_eq!(head(&proxy, TARGET).content_length(), SIZE);
}

/// A server that refuses ends past the object.
fn strict(size: impl Fn() -> u64 + Send + Sync + 'static) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            let (size, head) = (size(), peer.last_head());
            let range = head.lines().find_map(|line| line.strip_prefix("Range: bytes="));
            let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
                peer.send(format!("HTTP/1.1 200 OK\r\n{FIELDS}Content-Length: {size}\r\n\r\n"));
                if !head.starts_with("HEAD ") {
                    peer.send(synthetic_bytes(0, size as usize));
                }
                continue;
            };
            let first: u64 = first.parse().unwrap_or(u64::MAX);
            let last = last.parse().unwrap_or(size - 1);
            if last >= size || first > last {
                peer.send(s3_error("416 Range Not Satisfiable", "InvalidRange"));
                continue;
            }
            let length = last - first + 1;
            peer.send(format!(
                "HTTP/1.1 206 Partial Content\r\n{FIELDS}Content-Length: {length}\r\n\
                 Content-Range: bytes {first}-{last}/{size}\r\n\r\n"
            ));
            peer.send(synthetic_bytes(first, length as usize));
        }
    })
}

fn range_ends_past_a_cached_object_are_clamped_before_s3(driver: Driver) {
    let upstream = strict(|| 1000);
    let proxy = proxy(driver, &upstream);
    assert_eq!(head(&proxy, TARGET).content_length(), 1000);
    get_range(&proxy, TARGET, "bytes=900-1999").assert(206, synthetic_bytes(900, 100));
    get_range(&proxy, TARGET, "bytes=-5000").assert(206, synthetic_bytes(0, 1000));
    get_range(&proxy, TARGET, "bytes=0-999999999999999999999")
        .assert(206, synthetic_bytes(0, 1000));
    get_range(&proxy, TARGET, "bytes=1000-1999").assert_error(416);
}

fn an_object_that_grew_is_served_up_to_its_new_end(driver: Driver) {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let upstream = strict(move || match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => 1000,
        _ => 2000,
    });
    let proxy = proxy(driver, &upstream);
    assert_eq!(head(&proxy, TARGET).content_length(), 1000);
    get_range(&proxy, TARGET, "bytes=900-1999").assert(206, synthetic_bytes(900, 1100));
}

fn a_200_with_a_content_range_is_a_part(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            let (head, body) = good(peer);
            let head = head.replace("206 Partial Content", "200 OK");
            peer.send([head.as_bytes(), &body].concat());
        }
    });
    assert_served(&proxy(driver, &upstream));
}

fn a_200_with_a_wrong_content_range_is_502_and_its_length_is_ignored(driver: Driver) {
    for range in [
        format!("bytes 0-99/{SIZE}"),
        "bytes 100-299/*".to_owned(),
        "bytes 100-299/200".to_owned(),
        "nonsense".to_owned(),
    ] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                if peer.last_head().starts_with("HEAD ") {
                    let (head, _) = good(peer);
                    peer.send(head);
                    continue;
                }
                peer.send(format!(
                    "HTTP/1.1 200 OK\r\n{FIELDS}Content-Length: 200\r\nContent-Range: {range}\r\n\r\n"
                ));
                peer.send(synthetic_bytes(100, 200));
            }
        });
        let proxy = proxy(driver, &upstream);
        get_range(&proxy, TARGET, "bytes=100-299").assert_error(502);
        get(&proxy, TARGET).assert_error(502);
        assert_eq!(head(&proxy, TARGET).content_length(), SIZE);
    }
}

/// A server that sends the whole object of `size` bytes, whatever part is wanted.
fn ignores_ranges(size: u64) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| send_whole(peer, size))
}

fn send_whole(peer: &mut Peer, size: u64) {
    while peer.next_request() {
        let is_head = peer.last_head().starts_with("HEAD ");
        peer.send(format!("HTTP/1.1 200 OK\r\n{FIELDS}Content-Length: {size}\r\n\r\n"));
        let mut at = 0;
        while at < size && !is_head {
            let length = (size - at).min(1 << 20);
            peer.send(synthetic_bytes(at, length as usize));
            at += length;
        }
    }
}

fn a_range_that_the_server_ignores_is_cut_out_of_the_whole(driver: Driver) {
    let upstream = ignores_ranges(SIZE);
    let proxy = proxy(driver, &upstream);
    assert_served(&proxy);
    let mut client = Client::connect(&proxy);
    for (range, first, length) in [
        ("bytes=0-0", 0, 1),
        ("bytes=-1", SIZE - 1, 1),
        ("bytes=2000000-2099999", 2_000_000, 100_000),
        ("bytes=5-300000", 5, 299_996),
        ("bytes=-30000", SIZE - 30_000, 30_000),
    ] {
        let response = client.request("GET", TARGET, &[("Range", range)]);
        response.assert(206, synthetic_bytes(first, length));
    }
    client.assert_open();
}

/// The head is sent first and the body later, so that none of it is in memory with the head.
fn a_part_of_the_whole_leaves_nothing_to_the_next_response(driver: Driver) {
    const SMALL: usize = 50_000;
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            peer.send(format!("HTTP/1.1 200 OK\r\n{FIELDS}Content-Length: {SMALL}\r\n\r\n"));
            if !peer.last_head().starts_with("HEAD ") {
                peer.rest(Duration::from_millis(20));
                peer.send(synthetic_bytes(0, SMALL));
            }
        }
    });
    let proxy = proxy(driver, &upstream);
    let mut client = Client::connect(&proxy);
    for (range, first, length) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9999", 0, 10_000),
        ("bytes=1-1", 1, 1),
        ("bytes=-1", 49_999, 1),
    ] {
        for _ in 0..2 {
            let response = client.request("GET", TARGET, &[("Range", range)]);
            response.assert(206, synthetic_bytes(first, length));
        }
    }
}

fn a_range_that_is_ignored_is_cut_out_of_a_chunked_whole(driver: Driver) {
    for head_tells in [true, false] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let is_head = peer.last_head().starts_with("HEAD ");
                // Without a length in either, nobody could know the size.
                let is_one_byte = wanted(peer, SIZE) == Some((0, 0));
                if (is_head && head_tells) || (is_one_byte && !head_tells) {
                    let (head, body) = good(peer);
                    peer.send([head.as_bytes(), &body].concat());
                    continue;
                }
                peer.send(format!("HTTP/1.1 200 OK\r\n{FIELDS}Transfer-Encoding: chunked\r\n\r\n"));
                if !is_head {
                    peer.send(chunked(&synthetic_bytes(0, SIZE as usize)));
                }
            }
        });
        let proxy = proxy(driver, &upstream);
        assert_served(&proxy);
        for (range, first, length) in [
            ("bytes=0-9", 0, 10),
            ("bytes=-1", SIZE - 1, 1),
            ("bytes=5-300000", 5, 299_996),
            ("bytes=-30000", SIZE - 30_000, 30_000),
        ] {
            get_range(&proxy, TARGET, range).assert(206, synthetic_bytes(first, length));
        }
    }
}

fn a_whole_object_that_is_too_much_to_read_over_is_sent_whole(driver: Driver) {
    const LARGE: u64 = 20 << 20;
    let upstream = ignores_ranges(LARGE);
    let response = get_range(&proxy(driver, &upstream), TARGET, "bytes=17000000-17000099");
    assert_eq!((response.status, response.field("content-range")), (200, None));
    assert!(response.body == synthetic_bytes(0, LARGE as usize));
}

fn a_slow_client_of_a_server_that_ignores_ranges_gets_all_its_bytes(driver: Driver) {
    const LARGE: u64 = 64 << 20;
    let upstream = ignores_ranges(LARGE);
    let config = Config::new(driver, &upstream.endpoint()).set("client_pause_timeout", "200ms");
    let proxy = config.start();
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[("Range", "bytes=1-50000000")]));
    assert_eq!(client.head().status, 206);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(client.exactly(50_000_000) == synthetic_bytes(1, 50_000_000));
    assert_eq!(upstream.connections(), 1, "the rest cannot be asked for on another");
}

fn any_number_of_fields_is_read(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            let (head, body) = good(peer);
            let many = format!("\r\n{}", "x-amz-meta-a: b\r\n".repeat(500));
            peer.send([head.replacen("\r\n", &many, 1).as_bytes(), &body].concat());
        }
    });
    assert_served(&proxy(driver, &upstream));
}

fn a_head_without_a_length_is_followed_by_a_get(driver: Driver) {
    for (framing, empty) in [
        ("Transfer-Encoding: chunked\r\n", false),
        ("", false),
        ("Transfer-Encoding: chunked\r\n", true),
    ] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                if peer.last_head().starts_with("HEAD ") {
                    peer.send(format!("HTTP/1.1 200 OK\r\n{FIELDS}{framing}\r\n"));
                } else if empty {
                    peer.send(s3_error("416 Range Not Satisfiable", "InvalidRange"));
                } else {
                    let (head, body) = good(peer);
                    peer.send([head.as_bytes(), &body].concat());
                }
            }
        });
        let proxy = proxy(driver, &upstream);
        for _ in 0..2 {
            let response = head(&proxy, TARGET);
            let size = if empty { 0 } else { SIZE };
            assert_eq!((response.status, response.content_length()), (200, size));
            assert_eq!(response.field("etag"), Some("\"0123456789abcdef\""));
        }
        let asked = upstream.heads();
        assert_eq!(asked.len(), 2, "once, then remembered: {asked:?}");
    }
}

/// A body in chunks of many sizes, with extensions and a trailer.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        out.extend_from_slice(format!("{:X};ext=\"1\"\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        (rest, size) = (after, size * 3 % 100_003 + 1);
    }
    out.extend_from_slice(b"0\r\nx-amz-checksum: abc\r\n\r\n");
    out
}

/// The head of a good response with another framing.
fn framed(head: &str, framing: &str) -> String {
    let fields = head.split("\r\n").filter(|line| !line.starts_with("Content-Length"));
    fields.collect::<Vec<_>>().join("\r\n").replacen("\r\n", &format!("\r\n{framing}"), 1)
}

/// Sends all bodies in chunks; a HEAD has a length where `head_tells`.
fn in_chunks(head_tells: bool) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| send_in_chunks(peer, head_tells))
}

fn send_in_chunks(peer: &mut Peer, head_tells: bool) {
    while peer.next_request() {
        let (head, body) = good(peer);
        let is_head = peer.last_head().starts_with("HEAD ");
        if is_head && head_tells {
            peer.send(head);
            continue;
        }
        peer.send(framed(&head, "Transfer-Encoding: chunked\r\n"));
        if !is_head {
            peer.send(chunked(&body));
        }
    }
}

fn over_https_it_is_the_same(driver: Driver) {
    let authority = Authority::new();
    let versions = [&TLS13, &TLS12];
    for script in [
        (|peer: &mut Peer| send_in_chunks(peer, true)) as fn(&mut Peer),
        |peer| send_in_chunks(peer, false),
        |peer| send_whole(peer, SIZE),
        |peer| {
            while peer.next_request() {
                let (head, body) = good(peer);
                peer.send("HTTP/1.1 103 Early Hints\r\n\r\n");
                let head = head.replace("206 Partial Content", "200 OK");
                peer.send([head.as_bytes(), &body].concat());
            }
        },
    ] {
        let upstream =
            ScriptedUpstream::start_tls(authority.server("localhost", &versions), script);
        let file = authority.file();
        let config = Config::new(driver, &upstream.endpoint());
        assert_served(&config.set("ca_file", file.to_str().expect("a path of ASCII")).start());
    }
}

fn a_chunked_object_is_served_with_its_length(driver: Driver) {
    for head_tells in [true, false] {
        assert_served(&proxy(driver, &in_chunks(head_tells)));
    }
}

fn a_chunked_part_is_served_with_its_length(driver: Driver) {
    for splice in ["auto", "off"] {
        let upstream = in_chunks(true);
        let config = Config::new(driver, &upstream.endpoint()).set("splice", splice);
        let proxy = config.start();
        for (first, length) in [(0, 1), (1, 65_536), (7, 300_000), (1000, 2_500_000)] {
            let range = format!("bytes={first}-{}", first + length - 1);
            let response = get_range(&proxy, TARGET, &range);
            response.assert(206, synthetic_bytes(first, length as usize));
        }
    }
}

fn a_chunked_body_leaves_the_connection_usable(driver: Driver) {
    let upstream = in_chunks(true);
    let proxy = proxy(driver, &upstream);
    let mut client = Client::connect(&proxy);
    for number in 0..5 {
        let range = format!("bytes={number}-{}", number + 200_000);
        let response = client.request("GET", TARGET, &[("Range", &range)]);
        response.assert(206, synthetic_bytes(number, 200_001));
    }
    assert_eq!(upstream.connections(), 1);
}

fn a_chunked_body_that_is_broken_goes_on_or_is_cut_short(driver: Driver) {
    // Broken off, ended too early, and nonsense instead of a chunk: the rest comes by itself.
    for end in ["", "0\r\n\r\n", "xyz\r\n"] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let (head, body) = good(peer);
                peer.send(framed(&head, "Transfer-Encoding: chunked\r\n"));
                if peer.number == 0 {
                    let whole = chunked(&body[..1_000_000]);
                    let last_chunk = whole.len() - "0\r\nx-amz-checksum: abc\r\n\r\n".len();
                    peer.send(&whole[..last_chunk]);
                    peer.send(end);
                    return;
                }
                peer.send(chunked(&body));
            }
        });
        let response = get_range(&proxy(driver, &upstream), TARGET, "bytes=0-2999999");
        response.assert(206, synthetic_bytes(0, 3_000_000));
        assert_eq!(upstream.connections(), 2, "{end:?}");
    }
    // More than was announced reaches nobody.
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            let (head, mut body) = good(peer);
            body.extend_from_slice(b"of another object");
            peer.send(framed(&head, "Transfer-Encoding: chunked\r\n"));
            peer.send(chunked(&body));
        }
    });
    let proxy = proxy(driver, &upstream);
    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        let response: Response = client.request("GET", TARGET, &[("Range", "bytes=5-100004")]);
        response.assert(206, synthetic_bytes(5, 100_000));
    }
    assert_eq!(upstream.connections(), 2, "such a connection is not used again");
}

fn a_part_that_lasts_until_the_connection_closes_is_served(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        if peer.next_request() {
            let (head, body) = good(peer);
            peer.send([framed(&head, "").as_bytes(), &body].concat());
        }
    });
    let proxy = proxy(driver, &upstream);
    for (first, length) in [(0, 10), (5, 100_000), (7, 1_000_000)] {
        let range = format!("bytes={first}-{}", first + length - 1);
        let response = request(&proxy, "GET", TARGET, &[("Range", &range)]);
        response.assert(206, synthetic_bytes(first, length as usize));
    }
}
