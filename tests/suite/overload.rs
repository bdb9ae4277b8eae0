//! Overload: running responses continue, and other requests quickly get 503.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{Client, Response, get, get_range, request_head};
use crate::support::scripted_upstream::{ScriptedUpstream, ok_head};

both_drivers!(
    a_client_beyond_the_limit_gets_503_and_the_others_go_on,
    requests_wait_for_an_upstream_connection_in_order,
    a_request_beyond_the_queue_gets_503_at_once,
    a_request_that_waited_too_long_gets_503,
    a_process_without_descriptors_pauses_and_recovers,
    the_client_that_has_been_idle_for_longest_yields_to_a_new_one,
    a_client_that_never_sent_anything_yields_too_but_not_at_once,
    an_idle_client_whose_request_has_arrived_does_not_yield,
    idle_clients_yield_when_descriptors_run_out,
);

const TARGET: &str = "/files/reads.bam";

#[track_caller]
fn assert_turned_away(response: &Response) {
    response.assert_error(503);
    assert!(response.field("retry-after").is_some());
}

fn a_client_beyond_the_limit_gets_503_and_the_others_go_on(driver: Driver) {
    let s3 = TestS3::with("reads.bam", Object::synthetic(64 << 20));
    let proxy = Config::over(driver, &s3).set("max_client_connections", "2").start();
    let mut downloading = Client::connect(&proxy);
    downloading.send(request_head("GET", TARGET, &[]));
    assert_eq!(downloading.head().content_length(), 64 << 20);
    let mut second = Client::connect(&proxy);
    let [first, rest] = ["GET /outside HTTP/1.1\r\n", "Host: x\r\n\r\n"];
    second.send(first);
    std::thread::sleep(Duration::from_millis(50));
    // Clients with a request, clients without one, and more of them than get a 503.
    for _ in 0..3 {
        let asked = Instant::now();
        assert_turned_away(&get(&proxy, TARGET));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    let mut silent = Client::connect(&proxy);
    let told = silent.response_to("GET");
    assert_turned_away(&told);
    assert!(told.announces_close());
    let crowd: Vec<_> = (0..300).map(|_| Client::connect(&proxy)).collect();
    second.send(rest);
    second.response_to("GET").assert_error(404);
    drop((crowd, silent));
    assert!(downloading.exactly(64 << 20) == synthetic_bytes(0, 64 << 20));
    drop(downloading);
    eventually("there is room again", || get_range(&proxy, TARGET, "bytes=0-9").status == 206);
}

/// Sends the first half of a response at once and the second after `pause`.
fn slow_upstream(pause: Duration) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            peer.send(ok_head(20) + "0123456789");
            std::thread::sleep(pause);
            peer.send("abcdefghij");
        }
    })
}

fn over(driver: Driver, upstream: &ScriptedUpstream) -> Config {
    Config::new(driver, &upstream.endpoint()).set("upstream_max_connections", "1")
}

/// A client whose request has reached S3.
fn busy(proxy: &Proxy, upstream: &ScriptedUpstream) -> Client {
    let mut client = Client::connect(proxy);
    client.send(request_head("GET", TARGET, &[]));
    eventually("the request reaches S3", || upstream.heads().len() == 1);
    client
}

fn requests_wait_for_an_upstream_connection_in_order(driver: Driver) {
    let upstream = slow_upstream(Duration::from_millis(300));
    let proxy = over(driver, &upstream).start();
    let mut clients = vec![busy(&proxy, &upstream)];
    for number in 0..3 {
        let mut client = Client::connect(&proxy);
        client.send(request_head("GET", &format!("/files/{number}"), &[]));
        clients.push(client);
        std::thread::sleep(Duration::from_millis(20));
    }
    for client in &mut clients {
        client.response_to("GET").assert(200, "0123456789abcdefghij");
    }
    let asked: Vec<_> = upstream.heads().iter().map(|head| head[..26].to_owned()).collect();
    assert!(asked[1].contains("/0 ") && asked[2].contains("/1 "), "{asked:?}");
    assert_eq!(upstream.connections(), 1);
}

fn a_request_beyond_the_queue_gets_503_at_once(driver: Driver) {
    let upstream = slow_upstream(Duration::from_secs(2));
    let proxy = over(driver, &upstream).set("upstream_max_waiting", "0").start();
    let mut served = busy(&proxy, &upstream);
    let started = Instant::now();
    assert_turned_away(&get(&proxy, TARGET));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    served.response_to("GET").assert(200, "0123456789abcdefghij");
    assert_eq!(upstream.connections(), 1);
}

fn a_request_that_waited_too_long_gets_503(driver: Driver) {
    let upstream = slow_upstream(Duration::from_secs(2));
    let proxy = over(driver, &upstream).set("upstream_wait_timeout", "200ms").start();
    let mut served = busy(&proxy, &upstream);
    let started = Instant::now();
    assert_turned_away(&get(&proxy, TARGET));
    assert!(started.elapsed() >= Duration::from_millis(200));
    served.response_to("GET").assert(200, "0123456789abcdefghij");
    // It no longer occupies a place in the queue.
    get(&proxy, TARGET).assert(200, "0123456789abcdefghij");
}

fn a_process_without_descriptors_pauses_and_recovers(driver: Driver) {
    const FILES: u64 = 64;
    let s3 = TestS3::with("reads.bam", Object::synthetic(64 << 20));
    let process = Process::with_config(&Config::over(driver, &s3).yaml());
    let proxy = Proxy::start(process.before_exec(|| {
        let limit = Rlimit { current: Some(FILES), maximum: Some(FILES) };
        Ok(setrlimit(Resource::Nofile, limit)?)
    }));
    let mut downloading = Client::connect(&proxy);
    downloading.send(request_head("GET", TARGET, &[]));
    assert_eq!(downloading.head().content_length(), 64 << 20);
    // More than there are descriptors; the others wait to be accepted.
    let mut crowd: Vec<_> = (0..FILES).map(|_| Client::connect(&proxy)).collect();
    let [first, rest] = ["GET /files/other.bam HTTP/1.1\r\n", "Host: x\r\n\r\n"];
    for client in &mut crowd {
        client.send(first);
    }
    eventually("it says so", || proxy.stderr().contains("cannot accept connections for now"));
    // A client that was accepted requests an object, which needs one more descriptor.
    crowd[0].send(rest);
    assert_turned_away(&crowd[0].response_to("GET"));
    assert!(downloading.exactly(64 << 20) == synthetic_bytes(0, 64 << 20));
    std::thread::sleep(Duration::from_millis(500));
    let said = proxy.stderr().matches("cannot accept connections for now").count();
    assert_eq!(said, 1, "once, while it lasts: {}", proxy.stderr());
    drop(crowd);
    eventually("it recovers", || {
        let response = Client::connect(&proxy).request("GET", TARGET, &[("Range", "bytes=0-9")]);
        response.status == 206
    });
    eventually("it says so", || proxy.stderr().contains("accepting connections again"));
}

/// A client that stays idle after a response.
fn idle(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy);
    client.request("GET", TARGET, &[]).assert(200, "ACGT");
    client
}

fn the_client_that_has_been_idle_for_longest_yields_to_a_new_one(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("max_client_connections", "4").start();
    let mut clients: Vec<_> = (0..4).map(|_| idle(&proxy)).collect();
    // It was the first to come, but not the first to become idle.
    clients[0].request("HEAD", TARGET, &[]).assert(200, "");
    let mut new: Vec<_> = (0..2).map(|_| idle(&proxy)).collect();
    clients[1].assert_closed();
    clients[2].assert_closed();
    for client in [0, 3] {
        clients[client].request("GET", TARGET, &[]).assert(200, "ACGT");
    }
    new[0].request("GET", TARGET, &[]).assert(200, "ACGT");
}

fn a_client_that_never_sent_anything_yields_too_but_not_at_once(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("max_client_connections", "8").start();
    let silent: Vec<_> = (0..8).map(|_| Client::connect(&proxy)).collect();
    eventually("a new client is served", || get(&proxy, TARGET).status == 200);
    drop(silent);
}

fn an_idle_client_whose_request_has_arrived_does_not_yield(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("max_client_connections", "8").start();
    for _ in 0..5 {
        let mut clients: Vec<_> = (0..8).map(|_| idle(&proxy)).collect();
        proxy.signal(Signal::STOP);
        // The signal may take a moment: only a client that has sent its request is certain not to
        // yield.
        clients[..4].iter_mut().for_each(|client| client.send(request_head("GET", TARGET, &[])));
        let mut new: Vec<_> = (0..4).map(|_| Client::connect(&proxy)).collect();
        for client in &mut new {
            client.send(request_head("GET", TARGET, &[]));
        }
        proxy.signal(Signal::CONT);
        for client in new.iter_mut().chain(&mut clients[..4]) {
            client.response_to("GET").assert(200, "ACGT");
        }
    }
}

fn idle_clients_yield_when_descriptors_run_out(driver: Driver) {
    const FILES: u64 = 64;
    let s3 = TestS3::with("reads.bam", "ACGT");
    for workers in ["1", "2"] {
        let process =
            Process::with_config(&Config::over(driver, &s3).set("workers", workers).yaml());
        let proxy = Proxy::start(process.before_exec(|| {
            let limit = Rlimit { current: Some(FILES), maximum: Some(FILES) };
            Ok(setrlimit(Resource::Nofile, limit)?)
        }));
        // Each client stays connected, so the next one finds fewer descriptors.
        let idle: Vec<_> = (0..3 * FILES).map(|_| idle(&proxy)).collect();
        // The new clients get connections to S3.
        let mut new = Client::connect(&proxy);
        new.request("GET", TARGET, &[("Cache-Control", "no-cache")]).assert(200, "ACGT");
        drop(idle);
        assert!(!proxy.stderr().contains("\" 503 "), "{}", proxy.stderr());
    }
}
