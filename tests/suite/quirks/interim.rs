//! Interim responses (RFC 9110 §15.2) before the final one.

use super::{PLAIN, Store, TARGET, assert_serves, on_every_transport, proxy_over};
use crate::support::proxy::{Config, Driver};
use crate::support::raw_http::{get, head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, ok, s3_error};

both_drivers!(
    interim_responses_are_skipped,
    interim_responses_leave_the_connection_usable,
    too_many_interim_responses_and_101_are_502,
);

/// Some with fields that would have a meaning in a final response.
const INTERIM: [&str; 4] = [
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100\r\n\r\nHTTP/1.1 199 What\r\nA: b\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n",
];

fn interim_responses_are_skipped(driver: Driver) {
    let store = Store { size: 300_000, ..PLAIN };
    for interim in INTERIM {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                peer.send(interim);
                store.respond(peer);
            }
        });
        assert_serves(&proxy_over(driver, &upstream), store);
    }
    let missing = s3_error("404 Not Found", "NoSuchKey");
    let upstream = ScriptedUpstream::always(INTERIM.concat() + &missing);
    get(&proxy_over(driver, &upstream), TARGET).assert_error(404);
}

fn interim_responses_leave_the_connection_usable(driver: Driver) {
    for slowly in [false, true] {
        let script = move |peer: &mut Peer| {
            while peer.next_request() {
                match slowly {
                    true => peer.send_in_tiny_pieces(INTERIM.concat()),
                    false => peer.send(INTERIM.concat()),
                }
                let is_head = peer.last_head().starts_with("HEAD ");
                let response = ok("0123456789");
                peer.send(if is_head { &response[..response.len() - 10] } else { &response });
            }
        };
        on_every_transport(driver, script, |proxy, upstream| {
            assert_eq!(head(proxy, "/files/head").content_length(), 10);
            get(proxy, TARGET).assert(200, "0123456789");
            get(proxy, TARGET).assert(200, "0123456789");
            // One for short responses, one for requests that a client may abort at any moment.
            assert_eq!(upstream.connections(), 2);
        });
    }
}

fn too_many_interim_responses_and_101_are_502(driver: Driver) {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    for bad in [
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(500) + &ok("x"),
        "HTTP/1.1 102 Processing\r\n\r\n".repeat(10_000),
        switching.to_owned(),
        switching.to_owned() + &ok("x"),
    ] {
        let upstream = ScriptedUpstream::once(bad);
        let proxy = Config::new(driver, &upstream.endpoint()).set("retries", "0").start();
        get(&proxy, TARGET).assert_error(502);
        assert_eq!(head(&proxy, TARGET).status, 502);
    }
}
