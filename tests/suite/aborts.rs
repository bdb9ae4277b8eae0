//! Clients that disconnect or stop reading in the middle of a body. Both are normal for htslib, so
//! neither may leak descriptors, memory or connections.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;

use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Proxy, proxy_over};
use crate::support::raw_http::{Client, get, head, request_head};
use crate::support::scripted_upstream::{ScriptedUpstream, ok, ok_head};

both_drivers!(
    a_thousand_aborted_gets_leave_nothing_behind,
    a_client_that_stops_reading_stops_the_reading_from_s3,
    a_parked_client_gets_every_byte_when_it_reads_on,
    parked_clients_do_not_keep_others_waiting,
    a_client_that_never_reads_is_finally_disconnected,
    memory_does_not_grow_with_the_object,
    a_small_remainder_is_drained_and_the_connection_kept,
    a_large_remainder_is_not_read,
    a_client_gone_before_the_head_does_no_harm,
    an_open_ended_get_that_is_aborted_wastes_few_bytes,
);

const TARGET: &str = "/files/big.bam";
const MIB: u64 = 1 << 20;

/// A proxy over one synthetic object of this size.
fn serve(driver: Driver, size: u64) -> (TestS3, Proxy) {
    let s3 = TestS3::with("big.bam", Object::synthetic(size));
    let proxy = proxy_over(driver, &s3);
    (s3, proxy)
}

/// Requests all of [`TARGET`], reads `bytes` of it, and disconnects.
fn abort_after(proxy: &Proxy, bytes: usize, with_reset: bool) {
    let mut client = Client::connect(proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().status, 200);
    assert!(client.exactly(bytes) == synthetic_bytes(0, bytes));
    if with_reset {
        reset(client);
    }
}

/// Disconnects with a reset, so that the next send to the client fails at once.
fn reset(client: Client) {
    let socket = SockRef::from(client.socket());
    socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
}

fn a_thousand_aborted_gets_leave_nothing_behind(driver: Driver) {
    let (s3, proxy) = serve(driver, 64 * MIB);
    let abort =
        |number: usize| abort_after(&proxy, 1 + number * 37 % 100_000, number.is_multiple_of(3));
    // After these the pools have their final size.
    (0..50).for_each(abort);
    eventually("the first connections to S3 are closed", || s3.server.open_connections() == 0);
    let (sockets, fds, rss) = (proxy.socket_count(), proxy.fd_count(), proxy.rss_bytes());
    (0..1000).for_each(abort);
    eventually("all connections to S3 are closed", || s3.server.open_connections() == 0);
    eventually("every socket is closed", || proxy.socket_count() <= sockets);
    eventually("no more pipes are open", || proxy.fd_count() <= fds);
    let grown = proxy.rss_bytes().saturating_sub(rss);
    assert!(grown < 4 * MIB, "{grown} bytes more than before");
    head(&proxy, TARGET).assert(200, "");
}

/// Waits until `value` has not changed for a while, and returns it.
fn settled(mut value: impl FnMut() -> u64) -> u64 {
    let mut last = value();
    eventually("the value is stable", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = value();
        std::mem::replace(&mut last, now) == now
    });
    last
}

/// Most bytes in flight to a client that reads none: the test's own socket holds a few hundred KiB,
/// the origin's send buffer grows to 4 MiB (`tcp_wmem`), and the rest is read-ahead of the proxy.
const MOST_AHEAD: u64 = 6 * MIB;

/// A client with a small receive buffer, so that nearly all bytes pulled are those that the proxy
/// reads. By default the kernel lets the buffer grow to the limit of the machine (`tcp_rmem`).
fn client_with_a_small_socket(proxy: &Proxy) -> Client {
    let client = Client::connect(proxy);
    let socket = SockRef::from(client.socket());
    socket.set_recv_buffer_size(64 * 1024).expect("an open socket");
    client
}

fn a_client_that_stops_reading_stops_the_reading_from_s3(driver: Driver) {
    let (s3, proxy) = serve(driver, 1024 * MIB);
    let rss = proxy.rss_bytes();
    let mut client = client_with_a_small_socket(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().content_length(), 1024 * MIB);
    let pulled = settled(|| s3.pulled_bytes());
    assert!(pulled < MOST_AHEAD, "{pulled} bytes were read from S3 for a client that took none");
    let grown = proxy.rss_bytes().saturating_sub(rss);
    assert!(grown < 4 * MIB, "{grown} bytes of memory for one waiting client");
}

fn a_parked_client_gets_every_byte_when_it_reads_on(driver: Driver) {
    let (s3, proxy) = serve(driver, 64 * MIB);
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().status, 200);
    settled(|| s3.pulled_bytes());
    for mib in 0..64 {
        let bytes = client.exactly(MIB as usize);
        assert!(bytes == synthetic_bytes(mib * MIB, MIB as usize), "MiB {mib}");
    }
    client.assert_open();
}

fn parked_clients_do_not_keep_others_waiting(driver: Driver) {
    let (s3, proxy) = serve(driver, 64 * MIB);
    s3.put("small.bai", "index");
    let parked: Vec<_> = (0..50)
        .map(|_| {
            let mut client = Client::connect(&proxy);
            client.send(request_head("GET", TARGET, &[("Range", "bytes=100-")]));
            assert_eq!(client.head().status, 206);
            client
        })
        .collect();
    for _ in 0..20 {
        get(&proxy, "/files/small.bai").assert(200, "index");
    }
    let rss = proxy.rss_bytes();
    assert!(rss < 64 * MIB, "{rss} bytes for {} parked clients", parked.len());
}

fn a_client_that_never_reads_is_finally_disconnected(driver: Driver) {
    let s3 = TestS3::with("big.bam", Object::synthetic(64 * MIB));
    let proxy = Config::over(driver, &s3).set("client_stall_timeout", "1s").start();
    let mut client = client_with_a_small_socket(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    eventually("S3 is connected", || s3.server.open_connections() == 1);
    eventually("the transfer is aborted", || s3.server.open_connections() == 0);
    let head = client.head();
    assert_eq!(head.status, 200);
    let came = client.rest().len() as u64;
    assert!(came < head.content_length(), "the body cannot be complete");
}

fn memory_does_not_grow_with_the_object(driver: Driver) {
    let (_s3, proxy) = serve(driver, 512 * MIB);
    let rss = proxy.rss_bytes();
    let mut stream = proxy.connect();
    let mut client = Client::on(stream.try_clone().expect("a second handle"));
    client.send(request_head("GET", TARGET, &[("Connection", "close")]));
    assert_eq!(client.head().status, 200);
    let mut buffer = vec![0; 1 << 20];
    let mut most = 0;
    let mut turn = 0;
    while stream.read(&mut buffer).expect("a body") > 0 {
        turn += 1;
        if turn % 64 == 0 {
            most = most.max(proxy.rss_bytes());
        }
    }
    let grown = most.saturating_sub(rss);
    assert!(grown < 4 * MIB, "{grown} bytes for one transfer");
}

/// Serves `length` bytes in three parts. After the first the client disconnects, the second makes
/// the proxy notice, and the third is the remainder. Later requests get a short complete response
/// that names their connection.
fn three_parts(length: usize) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| {
        if !peer.next_request() {
            return;
        }
        if peer.number == 0 {
            peer.send(ok_head(length));
            peer.send(vec![b'x'; 1000]);
            std::thread::sleep(Duration::from_millis(300));
            peer.send(vec![b'y'; 1000]);
            std::thread::sleep(Duration::from_millis(300));
            peer.send(vec![b'z'; length - 2000]);
        } else {
            peer.send(ok("on a fresh connection"));
        }
        while peer.next_request() {
            peer.send(ok("on the same connection"));
        }
    })
}

/// Aborts a transfer after its first part, waits, and sends another request.
fn next_response_after_an_abort(driver: Driver, upstream: &ScriptedUpstream) -> String {
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().status, 200);
    assert!(client.exactly(1000) == [b'x'; 1000]);
    reset(client);
    std::thread::sleep(Duration::from_millis(1200));
    get(&proxy, "/files/another").text()
}

fn a_small_remainder_is_drained_and_the_connection_kept(driver: Driver) {
    let upstream = three_parts(20_000);
    assert_eq!(next_response_after_an_abort(driver, &upstream), "on the same connection");
}

fn a_large_remainder_is_not_read(driver: Driver) {
    let upstream = three_parts(64 << 20);
    assert_eq!(next_response_after_an_abort(driver, &upstream), "on a fresh connection");
}

fn a_client_gone_before_the_head_does_no_harm(driver: Driver) {
    let s3 = TestS3::with("big.bam", Object::synthetic(MIB));
    // Without idle connections to S3 the sockets can be compared exactly.
    let proxy = Config::over(driver, &s3).set("upstream_idle_timeout", "500ms").start();
    assert!(get(&proxy, TARGET).body == synthetic_bytes(0, MIB as usize));
    let no_connection = |story| eventually(story, || s3.server.open_connections() == 0);
    no_connection("the connections to S3 are closed");
    let sockets = proxy.socket_count();
    s3.set_delay(Duration::from_millis(300));
    for number in 0..50 {
        let mut client = Client::connect(&proxy);
        let method = if number % 2 == 0 { "GET" } else { "HEAD" };
        client.send(request_head(method, &format!("{TARGET}?{number}"), &[]));
    }
    // All clients are accepted before the count, so that none of them is missing from it.
    eventually("S3 is connected", || s3.server.open_connections() > 0);
    no_connection("the connections to S3 are closed again");
    eventually("every socket is closed", || proxy.socket_count() <= sockets);
    s3.set_delay(Duration::ZERO);
    assert!(get(&proxy, TARGET).body == synthetic_bytes(0, MIB as usize));
}

fn an_open_ended_get_that_is_aborted_wastes_few_bytes(driver: Driver) {
    const SIZE: u64 = 1 << 30;
    let taken = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&taken);
    let upstream = ScriptedUpstream::start(move |peer| {
        // Fails when the proxy closes, long before the end.
        peer.respond_with_part(SIZE, 32 << 20);
        seen.store(peer.bytes_taken(), Ordering::SeqCst);
    });
    for splice in ["auto", "off"] {
        let proxy = Config::new(driver, &upstream.endpoint()).set("splice", splice).start();
        for wanted in [100_000, 300_000, 800_000] {
            // Bytes in the client's receive buffer count as delivered, so the buffer is small.
            let mut client = client_with_a_small_socket(&proxy);
            client.send(request_head("GET", TARGET, &[("Range", "bytes=1000000-")]));
            client.head();
            assert!(client.exactly(wanted) == synthetic_bytes(1_000_000, wanted));
            drop(client);
            eventually("S3 notices", || taken.load(Ordering::SeqCst) > 0);
            let wasted = taken.swap(0, Ordering::SeqCst).saturating_sub(wanted as u64);
            assert!(wasted < 1 << 20, "{wasted} bytes beyond the {wanted} that were wanted");
        }
    }
}
