//! Statuses when S3 rejects requests, is silent, or sends invalid responses.
//!
//! A response is never padded, never ended as if complete, and never shows a secret; its status
//! says whether the client, S3 or the proxy is at fault.

use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::proxy::{Config, Driver, Proxy, proxy_over};
use crate::support::raw_http::{Client, get, get_range, head, request_head};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};
use crate::support::scripted_upstream::{ScriptedUpstream, error_xml, ok, ok_head, s3_error};

both_drivers!(
    a_missing_key_is_404_and_a_forbidden_one_403,
    a_wrong_secret_is_502_and_stays_secret,
    refused_credentials_are_502_and_named_in_the_log,
    a_head_with_refused_credentials_is_502_too,
    an_outage_of_s3_is_the_servers_fault,
    slow_down_is_503_with_retry_after,
    a_silent_s3_is_504,
    an_unreachable_s3_is_502,
    a_response_that_makes_no_sense_is_502,
    a_key_that_s3_does_not_accept_is_404,
    a_head_in_tiny_pieces_is_understood,
    an_error_without_a_length_is_understood,
    an_s3_that_ignores_the_range_never_gives_wrong_bytes,
    an_s3_that_dies_mid_body_closes_the_connection_short,
    an_s3_that_stalls_mid_body_closes_the_connection_short,
    bytes_that_s3_has_sent_are_not_held_back,
    bytes_beyond_the_announced_length_reach_nobody,
    a_connection_that_s3_closed_meanwhile_is_replaced_invisibly,
    a_fresh_connection_that_dies_is_502_after_a_bounded_number_of_tries,
);

const TARGET: &str = "/files/reads.bam";

/// The proxy over a scripted upstream.
fn proxy_before(driver: Driver, upstream: &ScriptedUpstream) -> Proxy {
    Config::new(driver, &upstream.endpoint()).start()
}

fn a_missing_key_is_404_and_a_forbidden_one_403(driver: Driver) {
    let s3 = TestS3::with("secret.bam", "x");
    s3.deny("secret.bam");
    let proxy = proxy_over(driver, &s3);
    get(&proxy, "/files/missing").assert_error(404);
    get(&proxy, "/files/secret.bam").assert_error(403);
    get_range(&proxy, "/files/missing-2", "bytes=0-1").assert_error(404);
    let proxy = Config::over(driver, &s3).set("bucket_name", "no-such-bucket").start();
    get(&proxy, TARGET).assert_error(404);
    assert_eq!(head(&proxy, "/files/another").status, 404);
}

fn a_key_that_s3_does_not_accept_is_404(driver: Driver) {
    let long = format!("a/{}/one", "x".repeat(300));
    // Responses of servers, and of proxies in front of them, to such keys.
    let bare = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    let refusals = [
        s3_error("400 Bad Request", "InvalidURI"),
        s3_error("400 Bad Request", "XMinioInvalidObjectName"),
        s3_error("400 Bad Request", "InvalidRequest"),
        bare("400 Bad Request"),
        bare("301 Moved Permanently"),
        bare("414 URI Too Long"),
        s3_error("403 Forbidden", "SignatureDoesNotMatch"),
    ];
    for refusal in refusals {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let is_head = peer.last_head().starts_with("HEAD ");
                let end = refusal.find("\r\n\r\n").expect("a head") + 4;
                peer.send(if is_head { &refusal[..end] } else { &refusal });
            }
        });
        let proxy = proxy_before(driver, &upstream);
        for key in ["a/../../one", "../one", "./one", "a//b", "a/", "a%5Cb", "a%01b", &long] {
            let target = format!("/files/{key}");
            assert_eq!(head(&proxy, &target).status, 404, "HEAD {key}");
            get(&proxy, &target).assert_error(404);
            get_range(&proxy, &format!("/files/other/{key}"), "bytes=0-1").assert_error(404);
        }
        let log = proxy.stderr();
        assert!(!log.contains(" WARN "), "{log}");
        assert!(!log.contains("its credentials are those of"), "nothing is wrong with them: {log}");
    }
    // The same response to an ordinary key is not the client's fault.
    let upstream = ScriptedUpstream::always(s3_error("403 Forbidden", "SignatureDoesNotMatch"));
    get(&proxy_before(driver, &upstream), TARGET).assert_error(502);
}

/// The log names `code`; neither log nor response shows a secret or a signature.
#[track_caller]
fn assert_says_why(proxy: &Proxy, response: &str, code: &str) {
    eventually(&format!("the log names {code}"), || proxy.stderr().contains(code));
    let log = proxy.stderr();
    for text in [log.as_str(), response] {
        for secret in [SECRET_KEY, "wrong/secret", "Signature=", "AWS4-HMAC-SHA256"] {
            assert!(!text.contains(secret), "{secret} is shown in {text}");
        }
    }
    assert!(!response.contains(ACCESS_KEY), "a client has no use for the key id: {response}");
}

fn a_wrong_secret_is_502_and_stays_secret(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("AWS_SECRET_ACCESS_KEY", "wrong/secret").start();
    let response = get(&proxy, TARGET);
    response.assert_error(502);
    assert_says_why(&proxy, &response.text(), "SignatureDoesNotMatch");
}

fn refused_credentials_are_502_and_named_in_the_log(driver: Driver) {
    for (status, code) in [
        ("403 Forbidden", "InvalidAccessKeyId"),
        ("403 Forbidden", "SignatureDoesNotMatch"),
        ("403 Forbidden", "RequestTimeTooSkewed"),
        ("400 Bad Request", "ExpiredToken"),
        ("400 Bad Request", "InvalidToken"),
        ("400 Bad Request", "AuthorizationHeaderMalformed"),
    ] {
        let upstream = ScriptedUpstream::always(s3_error(status, code));
        let proxy = proxy_before(driver, &upstream);
        let response = get(&proxy, TARGET);
        response.assert_error(502);
        assert_says_why(&proxy, &response.text(), code);
    }
}

fn a_head_with_refused_credentials_is_502_too(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("AWS_SECRET_ACCESS_KEY", "wrong/secret").start();
    let response = head(&proxy, TARGET);
    // A HEAD's 403 has no body with a reason; a GET finds it out.
    assert_eq!((response.status, response.field("content-length")), (502, None));
    assert_says_why(&proxy, "", "SignatureDoesNotMatch");
}

fn an_outage_of_s3_is_the_servers_fault(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    s3.set_outage(Some(s3s::S3ErrorCode::InternalError));
    get(&proxy, TARGET).assert_error(502);
    assert_eq!(head(&proxy, TARGET).status, 502);
    s3.set_outage(None);
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(head(&proxy, TARGET).status, 200);
}

fn slow_down_is_503_with_retry_after(driver: Driver) {
    let upstream = ScriptedUpstream::always(s3_error("503 Slow Down", "SlowDown"));
    let proxy = proxy_before(driver, &upstream);
    let response = get(&proxy, TARGET);
    response.assert_error(503);
    let seconds = response.field("retry-after").expect("a time to come back");
    assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{seconds}");
}

fn a_silent_s3_is_504(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| while peer.next_request() {});
    let config = Config::new(driver, &upstream.endpoint()).set("first_byte_timeout", "1s");
    let proxy = config.set("retry_timeout", "2s").start();
    let started = Instant::now();
    get(&proxy, TARGET).assert_error(504);
    let waited = started.elapsed();
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_secs(10), "{waited:?}");
}

fn an_unreachable_s3_is_502(driver: Driver) {
    let endpoint = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", free.local_addr().expect("a bound socket"))
    };
    let proxy = Config::new(driver, &endpoint).set("retry_timeout", "1s").start();
    get(&proxy, TARGET).assert_error(502);
    let response = head(&proxy, TARGET);
    assert_eq!((response.status, response.field("content-length")), (502, None));
}

fn a_response_that_makes_no_sense_is_502(driver: Driver) {
    let body = "0123456789";
    let without_length = ok(body).replace("Content-Length: 10\r\n", "");
    let two_lengths = ok(body).replace("Server:", "Content-Length: 9\r\nServer:");
    let not_a_length = ok(body).replace("Content-Length: 10", "Content-Length: ten");
    let huge = ok(body).replace("scripted", &"x".repeat(100_000));
    let moved = s3_error("301 Moved Permanently", "PermanentRedirect");
    let rows = [
        ("garbage", "\0\u{1}\u{2} SSH-2.0-OpenSSH\r\n\r\n".to_owned()),
        ("another protocol", ok(body).replace("HTTP/1.1", "ICY/1.0")),
        ("no length", without_length),
        ("two lengths", two_lengths),
        ("a length that is none", not_a_length),
        ("a gigantic head", huge),
        ("a redirect to another region", moved),
        ("a part that nobody asked for", ok(body).replace("200 OK", "206 Partial Content")),
        ("a status that is none", ok(body).replace("200 OK", "999 What")),
        ("a folded line", ok(body).replace("Server:", "Server: x\r\n")),
    ];
    for (story, bytes) in rows {
        let upstream = ScriptedUpstream::once(bytes);
        let proxy = proxy_before(driver, &upstream);
        let response = get(&proxy, TARGET);
        assert_eq!(response.status, 502, "{story}: {}", response.text());
        response.assert_error(502);
    }
}

fn a_head_in_tiny_pieces_is_understood(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            peer.send_in_tiny_pieces(ok("0123456789"));
        }
    });
    let proxy = proxy_before(driver, &upstream);
    get(&proxy, TARGET).assert(200, "0123456789");
    get(&proxy, TARGET).assert(200, "0123456789");
    assert_eq!(upstream.connections(), 1);
}

fn an_error_without_a_length_is_understood(driver: Driver) {
    let xml = error_xml("NoSuchKey");
    let head = "HTTP/1.1 404 Not Found\r\nContent-Type: application/xml\r\n";
    let (first, second) = xml.split_at(40);
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:X};x=y\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    let upstream = ScriptedUpstream::always(chunked);
    let proxy = proxy_before(driver, &upstream);
    get(&proxy, "/files/a").assert_error(404);
    get(&proxy, "/files/b").assert_error(404);
    assert_eq!(upstream.connections(), 1, "a chunked error leaves the connection usable");

    let until_close = format!("{head}Connection: close\r\n\r\n{xml}");
    let proxy_of = |bytes: String| {
        let upstream = ScriptedUpstream::once(bytes);
        let proxy = proxy_before(driver, &upstream);
        get(&proxy, TARGET).assert_error(404);
    };
    proxy_of(until_close);
}

fn an_s3_that_ignores_the_range_never_gives_wrong_bytes(driver: Driver) {
    let upstream = ScriptedUpstream::always(ok("0123456789"));
    let proxy = proxy_before(driver, &upstream);
    let response = get_range(&proxy, TARGET, "bytes=2-4");
    match response.status {
        206 => response.assert(206, "234"),
        200 => response.assert(200, "0123456789"),
        _ => response.assert_error(502),
    }
    let wrong =
        ok("567").replace("200 OK\r\n", "206 Partial Content\r\nContent-Range: bytes 5-7/10\r\n");
    let too_long =
        ok("23456").replace("200 OK\r\n", "206 Partial Content\r\nContent-Range: bytes 2-4/10\r\n");
    let silent = ok("234").replace("200 OK", "206 Partial Content");
    for bytes in [wrong, too_long, silent] {
        let upstream = ScriptedUpstream::once(bytes);
        let proxy = proxy_before(driver, &upstream);
        get_range(&proxy, TARGET, "bytes=2-4").assert_error(502);
    }
}

/// Requests a body of `length` bytes from an S3 that fails, and returns the bytes before the
/// connection was closed early; none if the failure was early enough for a status.
fn bytes_before_the_cut(proxy: &Proxy, length: u64) -> Vec<u8> {
    let mut client = Client::connect(proxy);
    client.send(request_head("GET", TARGET, &[]));
    let head = client.head();
    if matches!(head.status, 502 | 504) {
        return Vec::new();
    }
    assert_eq!((head.status, head.content_length()), (200, length));
    client.rest()
}

fn an_s3_that_dies_mid_body_closes_the_connection_short(driver: Driver) {
    for resets in [false, true] {
        for sent in [0, 10, 300_000] {
            let upstream = ScriptedUpstream::start(move |peer| {
                if peer.next_request() && peer.number == 0 {
                    peer.send(ok_head(1_000_000));
                    peer.send(vec![b'x'; sent]);
                    // The bytes must have arrived, since a reset discards those in flight.
                    std::thread::sleep(Duration::from_millis(300));
                }
                if resets {
                    peer.reset();
                }
            });
            let config = Config::new(driver, &upstream.endpoint());
            let proxy = config.set("retry_timeout", "1s").start();
            let body = bytes_before_the_cut(&proxy, 1_000_000);
            assert!(body.len() <= sent && body.iter().all(|&byte| byte == b'x'), "padded");
            assert!(sent < 300_000 || body.len() > 100_000, "{} of {sent} bytes", body.len());
        }
    }
}

fn an_s3_that_stalls_mid_body_closes_the_connection_short(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        if peer.next_request() && peer.number == 0 {
            peer.send(ok_head(1_000_000));
            peer.send(vec![b'x'; 300_000]);
        }
        peer.waits_for_close();
    });
    let config = Config::new(driver, &upstream.endpoint()).set("stall_timeout", "1s");
    let proxy = config.set("first_byte_timeout", "1s").set("retry_timeout", "1s").start();
    let body = bytes_before_the_cut(&proxy, 1_000_000);
    assert!(body.len() <= 300_000 && body.iter().all(|&byte| byte == b'x'), "padded");
    assert!(body.len() > 100_000, "{} of 300000 bytes", body.len());
}

fn bytes_that_s3_has_sent_are_not_held_back(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        if peer.next_request() {
            peer.send(ok_head(20) + "0123456789");
            std::thread::sleep(Duration::from_secs(3));
            peer.send("abcdefghij");
        }
    });
    let proxy = proxy_before(driver, &upstream);
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    let started = Instant::now();
    assert_eq!(client.head().status, 200);
    assert_eq!(client.exactly(10), b"0123456789");
    let waited = started.elapsed();
    assert_eq!(client.exactly(10), b"abcdefghij");
    assert!(waited < Duration::from_secs(2), "bytes at hand were held back for {waited:?}");
}

fn bytes_beyond_the_announced_length_reach_nobody(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            let body = format!("body {}", peer.number);
            peer.send(ok(&body) + "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nWRONG");
        }
    });
    let proxy = proxy_before(driver, &upstream);
    let mut client = Client::connect(&proxy);
    for number in 0..5 {
        // A connection with unexpected bytes cannot be trusted with another request.
        client.request("GET", TARGET, &[]).assert(200, format!("body {number}"));
    }
}

fn a_connection_that_s3_closed_meanwhile_is_replaced_invisibly(driver: Driver) {
    for resets in [false, true] {
        let upstream = ScriptedUpstream::start(move |peer| {
            if peer.next_request() {
                peer.send(ok("0123456789"));
            }
            // The second request gets no response: S3 had just decided to close.
            peer.next_request();
            if resets {
                peer.reset();
            }
        });
        let proxy = proxy_before(driver, &upstream);
        let mut client = Client::connect(&proxy);
        for _ in 0..4 {
            client.request("GET", TARGET, &[]).assert(200, "0123456789");
        }
        assert_eq!(upstream.connections(), 4);
        assert_eq!(upstream.heads().len(), 7, "each but the first was sent twice");
    }
}

fn a_fresh_connection_that_dies_is_502_after_a_bounded_number_of_tries(driver: Driver) {
    for (partial, resets) in [("", false), ("", true), ("HTTP/1.1 200 OK\r\nCont", false)] {
        let upstream = ScriptedUpstream::start(move |peer| {
            peer.next_request();
            peer.send(partial);
            if resets {
                peer.reset();
            }
        });
        let proxy = Config::new(driver, &upstream.endpoint()).set("retry_timeout", "1s").start();
        get(&proxy, TARGET).assert_error(502);
        let tries = upstream.connections();
        assert!((1..=31).contains(&tries), "{tries} tries");
        let expected = format!("GET /{BUCKET}/reads.bam HTTP/1.1\r\n");
        for head in upstream.heads() {
            assert!(head.starts_with(&expected), "{head}");
        }
    }
}
