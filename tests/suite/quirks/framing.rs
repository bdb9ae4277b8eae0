//! Responses without a length, and heads with many fields.

use super::{
    DIGITS, E_TAG, FIELDS, Framing, LARGE, Store, TARGET, assert_serves, bytes, on_every_transport,
    proxy_over,
};
use crate::support::proxy::Driver;
use crate::support::raw_http::{get, get_range, head};
use crate::support::scripted_upstream::{ScriptedUpstream, ok, s3_error};

both_drivers!(
    a_head_without_a_length_is_followed_by_a_get_of_one_byte,
    an_empty_object_without_a_length_is_empty,
    a_body_that_ends_with_the_connection_has_the_cached_length,
    up_to_64_kib_of_fields_are_read,
);

fn a_head_without_a_length_is_followed_by_a_get_of_one_byte(driver: Driver) {
    for framing in [Framing::Length, Framing::Chunked] {
        for head_framing in [Framing::Nothing, Framing::Chunked] {
            let upstream = Store { framing, head: head_framing, ..DIGITS }.start();
            let proxy = proxy_over(driver, &upstream);
            for _ in 0..2 {
                let response = head(&proxy, TARGET);
                assert_eq!((response.status, response.content_length()), (200, 10));
                assert_eq!(response.field("etag"), Some(E_TAG));
            }
            let heads = upstream.heads();
            assert_eq!(heads.len(), 2, "requested once, then cached: {heads:?}");
            assert!(heads[1].starts_with("GET ") && heads[1].contains("\r\nRange: bytes=0-0\r\n"));
        }
    }
}

fn an_empty_object_without_a_length_is_empty(driver: Driver) {
    let upstream = Store { size: 0, ..DIGITS }.start();
    let proxy = proxy_over(driver, &upstream);
    let response = head(&proxy, "/files/head");
    assert_eq!((response.status, response.content_length()), (200, 0));
    let response = get(&proxy, "/files/get");
    assert_eq!(response.content_length(), 0);
    response.assert(200, "");
    // A 416 that does not name the object's size.
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            match peer.last_head().starts_with("HEAD ") {
                true => {
                    peer.send(format!(
                        "HTTP/1.1 200 OK\r\n{FIELDS}Transfer-Encoding: chunked\r\n\r\n"
                    ));
                }
                false => peer.send(s3_error("416 Range Not Satisfiable", "InvalidRange")),
            }
        }
    });
    let proxy = proxy_over(driver, &upstream);
    for _ in 0..2 {
        let response = head(&proxy, TARGET);
        assert_eq!((response.status, response.content_length()), (200, 0));
        assert_eq!(response.field("etag"), Some(E_TAG));
    }
    assert_eq!(upstream.heads().len(), 2, "requested once, then cached");
}

fn a_body_that_ends_with_the_connection_has_the_cached_length(driver: Driver) {
    for size in [10, LARGE.size] {
        let store = Store { size, framing: Framing::Nothing, ..DIGITS };
        on_every_transport(driver, store.script(), |proxy, _| assert_serves(proxy, store));
    }
    let upstream = Store { framing: Framing::Nothing, ..LARGE }.start();
    let proxy = proxy_over(driver, &upstream);
    for (first, length) in [(0, 10), (5, 100_000), (7, 1_000_000)] {
        let range = format!("bytes={first}-{}", first + length - 1);
        get_range(&proxy, TARGET, &range).assert(206, bytes(first, length));
    }
}

fn up_to_64_kib_of_fields_are_read(driver: Driver) {
    let with = |fields: &str| ok("0123456789").replace("Server:", &format!("{fields}Server:"));
    let distinct: String = (0..1000).map(|number| format!("x{number}: y\r\n")).collect();
    for fields in [distinct, "x-amz-meta-a: b\r\n".repeat(500)] {
        let upstream = ScriptedUpstream::always(with(&fields));
        let proxy = proxy_over(driver, &upstream);
        get(&proxy, TARGET).assert(200, "0123456789");
        get(&proxy, TARGET).assert(200, "0123456789");
    }
    let upstream = ScriptedUpstream::once(with(&"a: b\r\n".repeat(4_000)));
    get(&proxy_over(driver, &upstream), TARGET).assert_error(502);
}
