//! Client connections: order of responses, keep-alive, timeouts and closing.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use super::http::{BASES, TARGET, serve};
use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver, proxy_over};
use crate::support::raw_http::{Client, request, request_head};

both_drivers!(
    requests_on_one_connection_get_responses_in_order,
    pipelined_requests_get_responses_in_order,
    http_1_0_is_closed_unless_it_asks_to_be_kept,
    connection_close_is_obeyed,
    a_head_that_comes_byte_by_byte_is_understood,
    a_tls_client_hello_is_closed_at_once,
    a_head_that_never_ends_is_given_up,
    an_idle_connection_is_closed_without_a_response,
    empty_lines_do_not_keep_an_idle_connection,
    a_client_that_half_closes_still_gets_its_response,
    slow_clients_do_not_keep_others_waiting,
);

fn requests_on_one_connection_get_responses_in_order(driver: Driver) {
    let (s3, proxy) = serve(driver);
    s3.put("empty", "");
    let mut client = Client::connect(&proxy);
    for _ in 0..20 {
        client.request("GET", TARGET, &[]).assert(200, BASES);
        client.request("HEAD", TARGET, &[]).assert(200, "");
        client.request("GET", TARGET, &[("Range", "bytes=1-3")]).assert(206, "CGT");
        client.request("GET", TARGET, &[("Range", "bytes=10-")]).assert_error(416);
        client.request("GET", "/files/missing", &[]).assert_error(404);
        client.request("HEAD", "/files/missing", &[]).assert(404, "");
        client.request("GET", "/files/empty", &[]).assert(200, "");
        client.request("GET", TARGET, &[("If-None-Match", "*")]).assert(304, "");
    }
    assert_eq!(s3.server.accepted_connections(), 1, "sequential requests need one connection");
}

fn pipelined_requests_get_responses_in_order(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let mut all = String::new();
    for number in 0..60 {
        s3.put(&format!("object-{number}"), format!("body of {number}"));
        let method = if number % 3 == 1 { "HEAD" } else { "GET" };
        let target = if number % 5 == 4 {
            "/files/missing".to_owned()
        } else {
            format!("/files/object-{number}")
        };
        all.push_str(&request_head(method, &target, &[]));
    }
    let mut client = Client::connect(&proxy);
    client.send(all);
    for number in 0..60 {
        let method = if number % 3 == 1 { "HEAD" } else { "GET" };
        let response = client.response_to(method);
        let length = format!("body of {number}").len() as u64;
        match (method, number % 5) {
            ("GET", 4) => response.assert_error(404),
            ("HEAD", 4) => response.assert(404, ""),
            ("HEAD", _) => assert_eq!((response.status, response.content_length()), (200, length)),
            _ => response.assert(200, format!("body of {number}")),
        }
    }
    client.assert_open();
}

fn http_1_0_is_closed_unless_it_asks_to_be_kept(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    let mut client = Client::connect(&proxy);
    client.send("GET /files/reads.bam HTTP/1.0\r\n\r\n");
    client.response_to("GET").assert(200, BASES);
    client.assert_closed();

    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        client.send("GET /files/reads.bam HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let response = client.response_to("GET");
        response.assert(200, BASES);
        let connection = response.field("connection").expect("1.0 has no keep-alive by default");
        assert!(connection.eq_ignore_ascii_case("keep-alive"), "{connection}");
    }
    client.send("HEAD /files/missing HTTP/1.0\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 404);
    client.assert_closed();
}

fn connection_close_is_obeyed(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    for value in ["close", "Close", "foo, close", "close, TE"] {
        for method in ["GET", "HEAD"] {
            let mut client = Client::connect(&proxy);
            let response = client.request(method, TARGET, &[("Connection", value)]);
            assert_eq!(response.status, 200);
            assert!(response.announces_close(), "{value}");
            client.assert_closed();
        }
    }
}

fn a_head_that_comes_byte_by_byte_is_understood(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        for byte in request_head("GET", TARGET, &[("Range", "bytes=2-4")]).bytes() {
            client.send([byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
        client.response_to("GET").assert(206, "GTA");
    }
}

fn a_tls_client_hello_is_closed_at_once(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    let started = Instant::now();
    let mut client = Client::connect(&proxy);
    // An incomplete TLS record: waiting for the rest would hang IGV.
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    client.assert_closed();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

fn a_head_that_never_ends_is_given_up(driver: Driver) {
    let s3 = TestS3::with("reads.bam", BASES);
    let proxy = Config::over(driver, &s3).set("head_timeout", "1s").start();
    let started = Instant::now();
    let mut client = Client::connect(&proxy);
    client.send("GET /files/reads.bam HTTP/1.1\r\nHost:");
    assert_eq!(client.rest(), b"", "closed without a response");
    let waited = started.elapsed();
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_secs(10), "{waited:?}");
}

fn an_idle_connection_is_closed_without_a_response(driver: Driver) {
    let s3 = TestS3::with("reads.bam", BASES);
    let proxy = Config::over(driver, &s3).set("keep_alive_timeout", "1s").start();
    let mut client = Client::connect(&proxy);
    client.request("GET", TARGET, &[]).assert(200, BASES);
    let started = Instant::now();
    client.assert_closed();
    let waited = started.elapsed();
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_secs(10), "{waited:?}");
}

fn empty_lines_do_not_keep_an_idle_connection(driver: Driver) {
    let s3 = TestS3::with("reads.bam", BASES);
    let proxy = Config::over(driver, &s3).set("keep_alive_timeout", "1s").start();
    let mut client = Client::connect(&proxy);
    client.request("GET", TARGET, &[]).assert(200, BASES);
    let pause = Some(Duration::from_millis(200));
    client.socket().set_read_timeout(pause).expect("a connected socket");
    eventually("the connection is closed", || {
        client.try_send("\r\n");
        let read = Read::read(&mut client.socket(), &mut [0]);
        !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
}

fn a_client_that_half_closes_still_gets_its_response(driver: Driver) {
    let (s3, proxy) = serve(driver);
    s3.set_delay(Duration::from_millis(200));
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    client.finish_sending();
    client.response_to("GET").assert(200, BASES);
    client.assert_closed();
}

fn slow_clients_do_not_keep_others_waiting(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    let mut slow: Vec<_> = (0..200).map(|_| Client::connect(&proxy)).collect();
    for client in &mut slow {
        client.send("GET /files/reads.bam HT");
    }
    request(&proxy, "GET", TARGET, &[]).assert(200, BASES);
    for client in &mut slow {
        client.send("TP/1.1\r\nHost: h\r\n\r\n");
    }
    for client in &mut slow {
        client.response_to("GET").assert(200, BASES);
    }
}
