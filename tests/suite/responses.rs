//! Responses of S3 that HTTP allows and AWS does not give: interim ones, bodies in the chunked
//! coding, no length, the range ignored or misread. Other stores, and proxies in front of them, do.

use std::sync::Arc;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::object::synthetic_bytes;
use crate::support::proxy::{Config, Driver, Proxy};
use crate::support::raw_http::{Client, get, get_range, head, request_head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, ok, ok_head, s3_error};

both_drivers!(
    interim_responses_are_skipped_and_connections_reused,
    interim_responses_are_bounded,
    a_chunked_body_reaches_the_client_with_its_length,
    a_chunked_body_leaves_both_connections_usable,
    a_chunked_body_of_fewer_bytes_never_looks_complete,
    a_chunked_body_that_breaks_off_goes_on,
    a_body_that_ends_with_the_connection_has_the_cached_length,
    a_head_without_a_length_is_replaced_by_a_one_byte_get,
    an_empty_object_without_a_length_is_empty,
    a_part_is_cut_out_where_the_range_is_ignored,
    a_part_at_the_start_leaves_nothing_to_the_next_request,
    a_200_with_a_content_range_is_a_part,
    a_part_of_no_byte_at_the_end_is_416,
    a_range_end_past_the_cached_size_is_not_sent_to_s3,
    up_to_64_kib_of_fields_are_read,
);

const TARGET: &str = "/files/reads.bam";
const TAG: &str = "ETag: \"0123456789abcdef\"\r\nLast-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\n";

/// How a store sends the bytes that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// A store with an object of synthetic bytes and habits of its own.
#[derive(Clone, Copy, Debug)]
struct Store {
    size: u64,
    framing: Framing,
    /// Whether it sends the whole object to those who ask for a part.
    ignores_ranges: bool,
    /// Whether its response to HEAD says how large the object is.
    head_has_length: bool,
    /// Bytes in a chunk.
    chunk: usize,
}

const DIGITS: Store = Store {
    size: 10,
    framing: Framing::Chunked,
    ignores_ranges: false,
    head_has_length: false,
    chunk: 3,
};

const LARGE: Store = Store { size: 5_000_003, chunk: 70_000, ..DIGITS };

impl Store {
    fn bytes(&self, first: u64, length: u64) -> Vec<u8> {
        synthetic_bytes(first, length as usize)
    }

    /// The request's range, as the first and the last byte.
    fn part(&self, request: &str) -> Option<(u64, u64)> {
        let range = request.lines().find_map(|line| line.strip_prefix("Range: bytes="))?;
        let (first, last) = range.split_once('-')?;
        if first.is_empty() {
            let length: u64 = last.parse().ok()?;
            return Some((self.size.saturating_sub(length), self.size.saturating_sub(1)));
        }
        Some((
            first.parse().ok()?,
            last.parse().unwrap_or(u64::MAX).min(self.size.saturating_sub(1)),
        ))
    }

    /// Answers one request; `false` where the connection is to be closed.
    fn response(&self, peer: &mut Peer) -> bool {
        let request = peer.last_head();
        let part = self.part(&request).filter(|_| !self.ignores_ranges);
        if part.is_some_and(|(first, _)| first >= self.size || self.size == 0) {
            let xml = format!(
                "<Error><Code>InvalidRange</Code><ActualObjectSize>{}</ActualObjectSize></Error>",
                self.size
            );
            peer.send(format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: {}\r\n\r\n{xml}",
                xml.len()
            ));
            return true;
        }
        let (first, length) =
            part.map_or((0, self.size), |(first, last)| (first, last - first + 1));
        let mut fields = TAG.to_owned();
        if let Some((first, last)) = part {
            fields += &format!("Content-Range: bytes {first}-{last}/{}\r\n", self.size);
        }
        let is_head = request.starts_with("HEAD ");
        match self.framing {
            _ if is_head && !self.head_has_length => {}
            _ if is_head => fields += &format!("Content-Length: {length}\r\n"),
            Framing::Length => fields += &format!("Content-Length: {length}\r\n"),
            Framing::Chunked => fields += "Transfer-Encoding: Chunked\r\n",
            Framing::UntilClose => {}
        }
        let status = if part.is_some() { "206 Partial Content" } else { "200 OK" };
        peer.send(format!("HTTP/1.1 {status}\r\n{fields}\r\n"));
        if is_head {
            return true;
        }
        let body = self.bytes(first, length);
        match self.framing {
            Framing::Chunked => {
                for chunk in body.chunks(self.chunk) {
                    peer.send(in_chunk(chunk));
                }
                peer.send("0;last\r\nx-trailer: y\r\n\r\n");
            }
            _ => peer.send(body),
        }
        self.framing != Framing::UntilClose
    }

    fn script(self) -> impl Fn(&mut Peer) + Clone + Send + Sync + 'static {
        move |peer| while peer.next_request() && self.response(peer) {}
    }

    fn start(self) -> ScriptedUpstream {
        ScriptedUpstream::start(self.script())
    }
}

fn in_chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:X};x=\"y\"\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

fn proxy_before(driver: Driver, upstream: &ScriptedUpstream) -> Proxy {
    Config::new(driver, &upstream.endpoint()).start()
}

/// Runs a story over plain connections, spliced and copied, and over TLS.
fn on_every_way(
    driver: Driver,
    script: impl Fn(&mut Peer) + Clone + Send + Sync + 'static,
    story: impl Fn(&Proxy, &ScriptedUpstream),
) {
    for splice in ["auto", "off"] {
        let upstream = ScriptedUpstream::start(script.clone());
        let config = Config::new(driver, &upstream.endpoint());
        story(&config.set("splice", splice).start(), &upstream);
    }
    let authority = Authority::new();
    let tls: Arc<_> = authority.server("localhost", &[&rustls::version::TLS13]);
    let upstream = ScriptedUpstream::start_tls(tls, script);
    let file = authority.file();
    let config = Config::new(driver, &upstream.endpoint());
    story(&config.set("ca_file", file.to_str().expect("ASCII")).start(), &upstream);
}

/// Reads the object in all ways, each with a proxy that has not heard of it and again.
fn assert_serves(proxy: &Proxy, store: Store) {
    let whole = store.bytes(0, store.size);
    let size = store.size;
    for round in ["cold", "warm"] {
        for (number, (range, first, last)) in [
            ("bytes=0-0".to_owned(), 0, 0),
            ("bytes=2-4".to_owned(), 2, 4),
            (format!("bytes=5-{}", size + 5), 5, size - 1),
            ("bytes=7-".to_owned(), 7, size - 1),
            ("bytes=-3".to_owned(), size - 3, size - 1),
            ("bytes=0-".to_owned(), 0, size - 1),
        ]
        .into_iter()
        .enumerate()
        {
            let response = get_range(proxy, &format!("/files/part-{number}"), &range);
            assert_eq!(response.status, 206, "{round} {range}: {}", response.text());
            response.assert(206, &whole[first as usize..=last as usize]);
            let content_range = format!("bytes {first}-{last}/{size}");
            assert_eq!(response.field("content-range"), Some(content_range.as_str()));
        }
        let response = get(proxy, "/files/whole");
        assert_eq!(response.status, 200, "{round}");
        response.assert(200, &whole);
        assert_eq!(response.content_length(), size);
        let response = head(proxy, "/files/head");
        assert_eq!((response.status, response.content_length()), (200, size), "{round}");
        let beyond = get_range(proxy, "/files/beyond", &format!("bytes={size}-"));
        beyond.assert_error(416);
        let all = format!("bytes */{size}");
        assert_eq!(beyond.field("content-range"), Some(all.as_str()), "{round}");
    }
}

fn interim_responses_are_skipped_and_connections_reused(driver: Driver) {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n";
    let interim =
        ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", hints].concat();
    for slowly in [false, true] {
        let interim = interim.clone();
        let script = move |peer: &mut Peer| {
            while peer.next_request() {
                match slowly {
                    true => peer.send_in_tiny_pieces(&interim),
                    false => peer.send(&interim),
                }
                let is_head = peer.last_head().starts_with("HEAD ");
                let response = ok("0123456789");
                peer.send(if is_head { &response[..response.len() - 10] } else { &response });
            }
        };
        on_every_way(driver, script, |proxy, upstream| {
            assert_eq!(head(proxy, "/files/head").content_length(), 10);
            get(proxy, TARGET).assert(200, "0123456789");
            get(proxy, TARGET).assert(200, "0123456789");
            // One for requests that end soon, one for those that a client may leave at any moment.
            assert_eq!(upstream.connections(), 2);
        });
    }
    let missing = s3_error("404 Not Found", "NoSuchKey");
    let upstream = ScriptedUpstream::always(interim + &missing);
    get(&proxy_before(driver, &upstream), TARGET).assert_error(404);
}

fn interim_responses_are_bounded(driver: Driver) {
    let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(500);
    for response in
        [endless + &ok("x"), "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned() + &ok("x")]
    {
        let upstream = ScriptedUpstream::once(response);
        get(&proxy_before(driver, &upstream), TARGET).assert_error(502);
    }
}

fn a_chunked_body_reaches_the_client_with_its_length(driver: Driver) {
    for store in [DIGITS, LARGE, Store { head_has_length: true, ..DIGITS }] {
        on_every_way(driver, store.script(), |proxy, _| assert_serves(proxy, store));
    }
    // Without memory nothing is known from the request before.
    let upstream = DIGITS.start();
    let config = Config::new(driver, &upstream.endpoint()).set("metadata_ttl", "0s");
    assert_serves(&config.start(), DIGITS);
}

fn a_chunked_body_leaves_both_connections_usable(driver: Driver) {
    let store = Store { size: 300_000, chunk: 1_000, ..DIGITS };
    on_every_way(driver, store.script(), |proxy, upstream| {
        let mut client = Client::connect(proxy);
        for _ in 0..5 {
            let response = client.request("GET", TARGET, &[("Range", "bytes=1000-250000")]);
            response.assert(206, store.bytes(1000, 249_001));
        }
        client.assert_open();
        assert_eq!(upstream.connections(), 1);
        // Those that a client may leave at any moment have another.
        for _ in 0..2 {
            client.request("GET", TARGET, &[]).assert(200, store.bytes(0, store.size));
        }
        assert_eq!(upstream.connections(), 2);
    });
}

fn a_chunked_body_of_fewer_bytes_never_looks_complete(driver: Driver) {
    let size = 200_000;
    let endings =
        [(size - 1, "0\r\n\r\n"), (size - 1, "zz\r\n"), (size - 2, "1\r\nx\r\n0\r\n\r\n")];
    for (length, end) in endings {
        let script = move |peer: &mut Peer| {
            while peer.next_request() {
                // No tag: the body cannot go on.
                peer.send(format!(
                    "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\
                     Content-Range: bytes 0-{}/{size}\r\n\r\n",
                    size - 1
                ));
                peer.send(in_chunk(&synthetic_bytes(0, length as usize)));
                peer.send(end);
            }
        };
        on_every_way(driver, script, |proxy, _| {
            let mut client = Client::connect(proxy);
            client.send(request_head("GET", TARGET, &[("Range", "bytes=0-")]));
            let head = client.head();
            if head.status == 206 {
                let came = client.rest();
                assert!(came.len() < size as usize, "{length} {end:?}: {} bytes", came.len());
                let sound = came.len().min(length as usize);
                assert!(came[..sound] == synthetic_bytes(0, sound));
            } else {
                assert_eq!(head.status, 502);
            }
        });
    }
}

fn a_chunked_body_that_breaks_off_goes_on(driver: Driver) {
    let store = Store { size: 3_000_000, chunk: 50_000, ..DIGITS };
    let script = move |peer: &mut Peer| {
        while peer.next_request() {
            if peer.number > 0 {
                assert!(store.response(peer));
                continue;
            }
            peer.send(format!(
                "HTTP/1.1 206 Partial Content\r\n{TAG}Transfer-Encoding: chunked\r\n\
                 Content-Range: bytes 0-2999999/3000000\r\n\r\n"
            ));
            peer.send(in_chunk(&store.bytes(0, 1_000_000)));
            peer.send("50\r\nonly this");
            peer.rest(Duration::from_millis(100));
            return;
        }
    };
    on_every_way(driver, script, |proxy, upstream| {
        let response = get_range(proxy, TARGET, "bytes=0-");
        // What came of the last chunk counts as sent.
        assert_eq!(response.status, 206);
        assert_eq!(response.body.len(), 3_000_000);
        assert!(response.body[..1_000_000] == store.bytes(0, 1_000_000));
        assert!(response.body[1_000_009..] == store.bytes(1_000_009, 1_999_991));
        assert!(upstream.heads()[1].contains("If-Match: \"0123456789abcdef\"\r\n"));
    });
}

fn a_body_that_ends_with_the_connection_has_the_cached_length(driver: Driver) {
    for size in [10, 2_000_000] {
        let store = Store { size, framing: Framing::UntilClose, ..DIGITS };
        on_every_way(driver, store.script(), |proxy, _| assert_serves(proxy, store));
    }
}

fn a_head_without_a_length_is_replaced_by_a_one_byte_get(driver: Driver) {
    for framing in [Framing::Length, Framing::Chunked] {
        let store = Store { framing, ..DIGITS };
        let upstream = store.start();
        let proxy = proxy_before(driver, &upstream);
        for _ in 0..2 {
            let response = head(&proxy, TARGET);
            assert_eq!((response.status, response.content_length()), (200, 10));
            assert_eq!(response.field("etag"), Some("\"0123456789abcdef\""));
        }
        let heads = upstream.heads();
        assert_eq!(heads.len(), 2, "asked once, then remembered: {heads:?}");
        assert!(heads[1].starts_with("GET ") && heads[1].contains("\r\nRange: bytes=0-0\r\n"));
    }
}

fn an_empty_object_without_a_length_is_empty(driver: Driver) {
    let store = Store { size: 0, ..DIGITS };
    let upstream = store.start();
    let proxy = proxy_before(driver, &upstream);
    let response = head(&proxy, "/files/head");
    assert_eq!((response.status, response.content_length()), (200, 0));
    let response = get(&proxy, "/files/get");
    assert_eq!(response.content_length(), 0);
    response.assert(200, "");
}

fn a_part_is_cut_out_where_the_range_is_ignored(driver: Driver) {
    for size in [10, 5_000_003] {
        let store = Store {
            framing: Framing::Length,
            size,
            ignores_ranges: true,
            head_has_length: true,
            ..DIGITS
        };
        on_every_way(driver, store.script(), |proxy, _| assert_serves(proxy, store));
    }
    // Too far behind the start: all of it, which HTTP allows.
    let store = Store {
        size: (16 << 20) + 100,
        framing: Framing::Length,
        ignores_ranges: true,
        head_has_length: true,
        chunk: 1,
    };
    let upstream = store.start();
    let proxy = proxy_before(driver, &upstream);
    let far = get_range(&proxy, TARGET, "bytes=-10");
    assert_eq!((far.status, far.field("content-range")), (200, None));
    far.assert(200, store.bytes(0, store.size));
    let near = get_range(&proxy, TARGET, "bytes=16777216-16777218");
    near.assert(206, store.bytes(16 << 20, 3));
}

fn a_part_at_the_start_leaves_nothing_to_the_next_request(driver: Driver) {
    // What comes late of an object must never be read as the response to another request.
    let rest = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nWRONG";
    on_every_way(
        driver,
        move |peer| {
            while peer.next_request() {
                peer.send(ok_head(3 + rest.len()) + "abc");
                peer.rest(Duration::from_millis(300));
                peer.send(rest);
            }
        },
        |proxy, _| {
            for _ in 0..3 {
                get_range(proxy, TARGET, "bytes=0-2").assert(206, "abc");
            }
            let whole = format!("abc{rest}");
            get(proxy, "/files/other").assert(200, whole);
        },
    );
}

fn a_200_with_a_content_range_is_a_part(driver: Driver) {
    let part = |first: u64, last: u64| {
        let body = &"0123456789"[first as usize..=last as usize];
        let content_range = format!("Content-Range: bytes {first}-{last}/10\r\nServer:");
        ok(body).replace("Server:", &content_range)
    };
    for (response, range, status, body) in [
        (part(2, 4), "bytes=2-4", 206, "234"),
        (part(0, 9), "bytes=0-", 206, "0123456789"),
        (part(5, 7), "bytes=2-4", 502, ""),
        (part(2, 4), "bytes=2-5", 502, ""),
    ] {
        let upstream = ScriptedUpstream::always(response);
        let proxy = proxy_before(driver, &upstream);
        let told = get_range(&proxy, TARGET, range);
        assert_eq!(told.status, status, "{range}: {}", told.text());
        if status == 206 {
            told.assert(206, body);
        }
        // The length of a part is not the object's.
        assert_eq!(head(&proxy, TARGET).content_length(), 10);
    }
    for (response, status) in [(part(0, 9), 200), (part(2, 4), 502)] {
        let upstream = ScriptedUpstream::always(response);
        assert_eq!(get(&proxy_before(driver, &upstream), TARGET).status, status);
    }
}

fn a_part_of_no_byte_at_the_end_is_416(driver: Driver) {
    for status in ["206 Partial Content", "200 OK"] {
        let response = ok("")
            .replace("200 OK", status)
            .replace("Server:", "Content-Range: bytes 10-9/10\r\nServer:");
        let upstream = ScriptedUpstream::always(response);
        let proxy = proxy_before(driver, &upstream);
        for _ in 0..2 {
            let told = get_range(&proxy, TARGET, "bytes=10-");
            told.assert_error(416);
            assert_eq!(told.field("content-range"), Some("bytes */10"));
        }
        get_range(&proxy, TARGET, "bytes=2-4").assert_error(502);
    }
}

fn a_range_end_past_the_cached_size_is_not_sent_to_s3(driver: Driver) {
    let store = Store { framing: Framing::Length, head_has_length: true, ..DIGITS };
    let upstream = store.start();
    let proxy = proxy_before(driver, &upstream);
    assert_eq!(head(&proxy, TARGET).content_length(), 10);
    for (range, sent, first) in
        [("bytes=4-99", "bytes=4-9", 4), ("bytes=-99", "bytes=0-9", 0), ("bytes=4-", "bytes=4-", 4)]
    {
        get_range(&proxy, TARGET, range).assert(206, store.bytes(first, 10 - first));
        let last = upstream.heads().pop().expect("a request");
        assert!(last.contains(&format!("\r\nRange: {sent}\r\n")), "{last}");
    }
    // The object has grown since.
    drop(upstream);
    let grown = Store { size: 20, ..store };
    let sizes = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&sizes);
    let upstream = ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            let has_grown = seen.load(std::sync::atomic::Ordering::SeqCst);
            if has_grown { &grown } else { &store }.response(peer);
        }
    });
    let proxy = proxy_before(driver, &upstream);
    assert_eq!(head(&proxy, TARGET).content_length(), 10);
    sizes.store(true, std::sync::atomic::Ordering::SeqCst);
    let response = get_range(&proxy, TARGET, "bytes=4-99");
    response.assert(206, grown.bytes(4, 16));
    assert_eq!(response.field("content-range"), Some("bytes 4-19/20"));
}

fn up_to_64_kib_of_fields_are_read(driver: Driver) {
    let fields: String = (0..1000).map(|number| format!("x{number}: y\r\n")).collect();
    let upstream =
        ScriptedUpstream::always(ok("0123456789").replace("Server:", &format!("{fields}Server:")));
    let proxy = proxy_before(driver, &upstream);
    get(&proxy, TARGET).assert(200, "0123456789");
    get(&proxy, TARGET).assert(200, "0123456789");
    let too_large = ok("x").replace("Server:", &format!("{}Server:", "a: b\r\n".repeat(4_000)));
    let upstream = ScriptedUpstream::once(too_large);
    get(&proxy_before(driver, &upstream), TARGET).assert_error(502);
}
