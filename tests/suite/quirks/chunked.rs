//! Bodies with chunked transfer coding (RFC 9112 §7.1), which clients get with `Content-Length`.

use std::time::Duration;

use super::{
    DIGITS, END_OF_CHUNKS, FIELDS, Framing, GROWING, LARGE, Store, TARGET, assert_serves, bytes,
    chunked, in_chunk, on_every_transport, proxy_over,
};
use crate::support::proxy::{Config, Driver};
use crate::support::raw_http::{Client, get_range, request_head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream};

both_drivers!(
    a_chunked_body_reaches_the_client_with_its_length,
    a_chunked_part_reaches_the_client_with_its_length,
    a_chunked_body_leaves_both_connections_usable,
    a_chunked_body_of_fewer_bytes_never_looks_complete,
    a_chunked_body_that_breaks_off_is_resumed,
    a_chunk_that_breaks_off_is_resumed_with_if_match,
    a_chunked_body_of_more_bytes_ends_the_connection,
);

fn a_chunked_body_reaches_the_client_with_its_length(driver: Driver) {
    for store in [
        DIGITS,
        LARGE,
        Store { head: Framing::Length, ..DIGITS },
        Store { head: Framing::Length, chunk: GROWING, ..LARGE },
    ] {
        on_every_transport(driver, store.script(), |proxy, _| assert_serves(proxy, store));
    }
    // Without a cache the size is not known from an earlier request.
    let upstream = DIGITS.start();
    let config = Config::new(driver, &upstream.endpoint()).set("metadata_ttl", "0s");
    assert_serves(&config.start(), DIGITS);
}

fn a_chunked_part_reaches_the_client_with_its_length(driver: Driver) {
    for splice in ["auto", "off"] {
        let upstream = Store { head: Framing::Length, chunk: GROWING, ..LARGE }.start();
        let config = Config::new(driver, &upstream.endpoint()).set("splice", splice);
        let proxy = config.start();
        for (first, length) in [(0, 1), (1, 65_536), (7, 300_000), (1000, 2_500_000)] {
            let range = format!("bytes={first}-{}", first + length - 1);
            get_range(&proxy, TARGET, &range).assert(206, bytes(first, length));
        }
    }
}

fn a_chunked_body_leaves_both_connections_usable(driver: Driver) {
    let store = Store { size: 300_000, chunk: 1_000, ..DIGITS };
    on_every_transport(driver, store.script(), |proxy, upstream| {
        let mut client = Client::connect(proxy);
        for first in 1000..1005 {
            let range = format!("bytes={first}-250000");
            let response = client.request("GET", TARGET, &[("Range", &range)]);
            response.assert(206, bytes(first, 250_001 - first));
        }
        client.assert_open();
        assert_eq!(upstream.connections(), 1);
        // Requests that a client may abort at any moment use another connection.
        for _ in 0..2 {
            client.request("GET", TARGET, &[]).assert(200, bytes(0, store.size));
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
                // No tag: the body cannot be resumed.
                peer.send(format!(
                    "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\
                     Content-Range: bytes 0-{}/{size}\r\n\r\n",
                    size - 1
                ));
                peer.send(in_chunk(&bytes(0, length)));
                peer.send(end);
            }
        };
        on_every_transport(driver, script, |proxy, _| {
            let mut client = Client::connect(proxy);
            client.send(request_head("GET", TARGET, &[("Range", "bytes=0-")]));
            let head = client.head();
            if head.status == 206 {
                let received = client.rest();
                let count = received.len() as u64;
                assert!(count < size, "{length} {end:?}: {count} bytes");
                let sound = count.min(length);
                assert!(received[..sound as usize] == bytes(0, sound));
            } else {
                assert_eq!(head.status, 502);
            }
        });
    }
}

fn a_chunked_body_that_breaks_off_is_resumed(driver: Driver) {
    // The connection ends, the last chunk comes too early, and an invalid chunk.
    for end in ["", "0\r\n\r\n", "xyz\r\n"] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let response = LARGE.response(peer);
                peer.send(response.head());
                if peer.number == 0 {
                    let whole = chunked(&response.body[..1_000_000], GROWING);
                    peer.send(&whole[..whole.len() - END_OF_CHUNKS.len()]);
                    peer.send(end);
                    return;
                }
                peer.send(chunked(&response.body, GROWING));
            }
        });
        let response = get_range(&proxy_over(driver, &upstream), TARGET, "bytes=0-2999999");
        response.assert(206, bytes(0, 3_000_000));
        assert_eq!(upstream.connections(), 2, "{end:?}");
    }
}

fn a_chunk_that_breaks_off_is_resumed_with_if_match(driver: Driver) {
    let store = Store { size: 3_000_000, chunk: 50_000, ..DIGITS };
    let script = move |peer: &mut Peer| {
        while peer.next_request() {
            if peer.number > 0 {
                assert!(store.respond(peer));
                continue;
            }
            peer.send(format!(
                "HTTP/1.1 206 Partial Content\r\n{FIELDS}Transfer-Encoding: chunked\r\n\
                 Content-Range: bytes 0-2999999/3000000\r\n\r\n"
            ));
            peer.send(in_chunk(&bytes(0, 1_000_000)));
            peer.send("50\r\nonly this");
            std::thread::sleep(Duration::from_millis(100));
            return;
        }
    };
    on_every_transport(driver, script, |proxy, upstream| {
        let response = get_range(proxy, TARGET, "bytes=0-");
        // The nine bytes of the broken chunk count as sent.
        assert_eq!(response.status, 206);
        assert_eq!(response.body.len(), 3_000_000);
        assert!(response.body[..1_000_000] == bytes(0, 1_000_000));
        assert!(response.body[1_000_009..] == bytes(1_000_009, 1_999_991));
        assert!(upstream.heads()[1].contains("If-Match: \"0123456789abcdef\"\r\n"));
    });
}

fn a_chunked_body_of_more_bytes_ends_the_connection(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            let mut response = LARGE.response(peer);
            peer.send(response.head());
            response.body.extend_from_slice(b"of another object");
            peer.send(chunked(&response.body, GROWING));
        }
    });
    let proxy = proxy_over(driver, &upstream);
    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        let response = client.request("GET", TARGET, &[("Range", "bytes=5-100004")]);
        response.assert(206, bytes(5, 100_000));
    }
    assert_eq!(upstream.connections(), 2, "such a connection is not used again");
}
