//! Clients that read nothing for a while. They hold no resource that others need, lose no byte, and
//! are disconnected only if their kernel accepts no bytes for `client_stall_timeout`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::certificates::Authority;
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Proxy};
use crate::support::raw_http::{Client, get, request_head};
use crate::support::scripted_upstream::ScriptedUpstream;
use crate::support::{PATIENCE, eventually};

both_drivers!(
    clients_that_read_nothing_do_not_keep_others_from_s3,
    responses_behind_a_full_queue_do_not_keep_others_from_s3,
    a_client_that_pauses_gives_its_connection_to_s3_up_and_loses_nothing,
    a_client_that_pauses_again_and_again_loses_nothing,
    a_body_that_has_come_whole_gives_its_connection_back,
    a_body_without_a_strong_tag_keeps_its_connection,
    an_object_that_changed_during_a_pause_is_cut_short,
    a_client_that_goes_on_waits_for_its_turn,
    a_slow_reader_is_not_given_up,
    a_slow_reader_on_a_unix_socket_is_not_given_up,
);

const TARGET: &str = "/files/big.bam";
const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;

/// Runs a story for each kind of transfer: spliced, copied, and over HTTPS.
fn each_way(driver: Driver, story: impl Fn(&TestS3, Config)) {
    let authority = Authority::new();
    let tls = authority.server("localhost", rustls::ALL_VERSIONS);
    let (spliced, copied, https) = (TestS3::start(), TestS3::start(), TestS3::start_tls(tls));
    let file = authority.file();
    for (s3, key, value) in [
        (&spliced, "splice", "auto"),
        (&copied, "splice", "off"),
        (&https, "ca_file", file.to_str().expect("a path of ASCII")),
    ] {
        s3.put("big.bam", Object::synthetic(SIZE));
        s3.put("small.bai", "index");
        story(s3, Config::over(driver, s3).set(key, value));
    }
}

/// A client with a small receive buffer.
fn connect(proxy: &Proxy) -> Client {
    let client = Client::connect(proxy);
    let socket = SockRef::from(client.socket());
    socket.set_recv_buffer_size(64 * 1024).expect("an open socket");
    client
}

/// Clients that requested all of [`TARGET`] and read only the head.
fn stalled(proxy: &Proxy, count: usize) -> Vec<Client> {
    let stall = |_| {
        let mut client = connect(proxy);
        client.send(request_head("GET", TARGET, &[]));
        assert_eq!(client.head().content_length(), SIZE);
        client
    };
    (0..count).map(stall).collect()
}

#[track_caller]
fn assert_reads_all(client: &mut Client) {
    assert!(client.exactly(SIZE as usize) == synthetic_bytes(0, SIZE as usize), "other bytes");
    client.assert_open();
}

fn clients_that_read_nothing_do_not_keep_others_from_s3(driver: Driver) {
    each_way(driver, |_s3, config| {
        let config = config.set("upstream_max_connections", "3").set("retries", "0");
        let proxy = config.set("client_pause_timeout", "10m").start();
        let mut clients = stalled(&proxy, 3);
        for _ in 0..3 {
            get(&proxy, "/files/small.bai").assert(200, "index");
        }
        // As many again; each takes a connection from a stalled one.
        clients.extend(stalled(&proxy, 6));
        get(&proxy, "/files/small.bai").assert(200, "index");
        clients.iter_mut().for_each(assert_reads_all);
    });
}

fn responses_behind_a_full_queue_do_not_keep_others_from_s3(driver: Driver) {
    const LENGTH: usize = 60_000;
    each_way(driver, |_s3, config| {
        let proxy = config.set("upstream_max_connections", "1").set("retries", "0").start();
        let mut client = connect(&proxy);
        let range = format!("bytes=0-{}", LENGTH - 1);
        let request = request_head("GET", TARGET, &[("Range", &range)]);
        client.send(request.repeat(150));
        std::thread::sleep(Duration::from_millis(300));
        get(&proxy, "/files/small.bai").assert(200, "index");
        for _ in 0..150 {
            client.response_to("GET").assert(206, synthetic_bytes(0, LENGTH));
        }
    });
}

fn a_client_that_pauses_gives_its_connection_to_s3_up_and_loses_nothing(driver: Driver) {
    each_way(driver, |s3, config| {
        let config = config.set("client_pause_timeout", "1s").set("log_level", "debug");
        let proxy = config.set("retries", "0").set("retry_budget", "0").start();
        let mut clients = stalled(&proxy, 2);
        eventually("S3 is connected", || s3.server.open_connections() > 0);
        eventually("its connections are given up", || s3.server.open_connections() == 0);
        eventually("the log says so", || {
            proxy.stderr().matches("has paused: its S3 connection is given up").count() == 2
        });
        // They stay closed.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(s3.server.open_connections(), 0);
        clients.iter_mut().for_each(assert_reads_all);
        let log = proxy.stderr();
        assert!(!log.contains("WARN") && !log.contains("broke off"), "{log}");
    });
}

fn a_client_that_pauses_again_and_again_loses_nothing(driver: Driver) {
    each_way(driver, |_s3, config| {
        let proxy = config.set("client_pause_timeout", "200ms").start();
        let mut client = connect(&proxy);
        client.send(request_head("GET", TARGET, &[("Range", "bytes=1000-")]));
        assert_eq!(client.head().content_length(), SIZE - 1000);
        let mut at = 1000;
        for number in 0.. {
            let length = (SIZE - at).min(4_500_007);
            if length == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(300 + 100 * number));
            let bytes = client.exactly(length as usize);
            assert!(bytes == synthetic_bytes(at, length as usize), "other bytes at {at}");
            at += length;
        }
        client.assert_open();
    });
}

fn a_body_that_has_come_whole_gives_its_connection_back(driver: Driver) {
    const LENGTH: u64 = 200_000;
    for splice in ["auto", "off"] {
        let upstream =
            ScriptedUpstream::start(
                |peer| while peer.respond_with_part(LENGTH, LENGTH as usize) {},
            );
        let config = Config::new(driver, &upstream.endpoint()).set("splice", splice);
        let proxy = config.set("upstream_max_connections", "1").start();
        let mut client = connect(&proxy);
        client.send(request_head("GET", TARGET, &[]).repeat(40));
        std::thread::sleep(Duration::from_millis(500));
        get(&proxy, TARGET).assert(200, synthetic_bytes(0, LENGTH as usize));
        for _ in 0..40 {
            client.response_to("GET").assert(200, synthetic_bytes(0, LENGTH as usize));
        }
    }
}

fn a_body_without_a_strong_tag_keeps_its_connection(driver: Driver) {
    for tag in ["ETag: W/\"weak\"\r\n", ""] {
        let upstream = ScriptedUpstream::start(move |peer| {
            if peer.next_request() {
                peer.send(format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: {SIZE}\r\n\r\n"));
                peer.send(synthetic_bytes(0, SIZE as usize));
            }
        });
        let config = Config::new(driver, &upstream.endpoint()).set("client_pause_timeout", "200ms");
        let proxy = config.start();
        let mut clients = stalled(&proxy, 1);
        std::thread::sleep(Duration::from_secs(2));
        assert!(clients[0].exactly(SIZE as usize) == synthetic_bytes(0, SIZE as usize));
        assert_eq!(upstream.connections(), 1);
    }
}

fn an_object_that_changed_during_a_pause_is_cut_short(driver: Driver) {
    each_way(driver, |s3, config| {
        let proxy = config.set("client_pause_timeout", "500ms").start();
        let mut clients = stalled(&proxy, 1);
        eventually("S3 is connected", || s3.server.open_connections() > 0);
        eventually("its connection is given up", || s3.server.open_connections() == 0);
        s3.put("big.bam", Object::synthetic_from(77, SIZE));
        let came = clients[0].rest();
        assert!((came.len() as u64) < SIZE, "the rest is another object's");
        assert!(came == synthetic_bytes(0, came.len()), "other bytes");
    });
}

fn a_client_that_goes_on_waits_for_its_turn(driver: Driver) {
    // Others keep the only connection busy for longer than a request waits for one.
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            let head = peer.last_head();
            let last = head.lines().find_map(|line| line.strip_prefix("Range: bytes="));
            let first = last.and_then(|range| range.split('-').next()?.parse::<u64>().ok());
            let first = first.unwrap_or(0);
            let (status, length) = match last {
                Some(_) => ("206 Partial Content", SIZE - first),
                None => ("200 OK", SIZE),
            };
            if head.contains("/other ") {
                std::thread::sleep(Duration::from_millis(1500));
            }
            peer.send(format!(
                "HTTP/1.1 {status}\r\nETag: \"e\"\r\nContent-Length: {length}\r\n\
                 Content-Range: bytes {first}-{}/{SIZE}\r\n\r\n",
                SIZE - 1
            ));
            peer.send(synthetic_bytes(first, length as usize));
        }
    });
    let config = Config::new(driver, &upstream.endpoint()).set("upstream_max_connections", "1");
    let config = config.set("upstream_wait_timeout", "300ms").set("upstream_max_waiting", "1");
    let proxy = config.set("client_pause_timeout", "500ms").start();
    let mut clients = stalled(&proxy, 1);
    // The only connection is closed, so that another can be opened.
    std::thread::sleep(Duration::from_millis(1500));
    let mut other = Client::connect(&proxy);
    other.send(request_head("GET", "/files/other", &[]));
    eventually("another connection requests the rest", || upstream.heads().len() == 2);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| assert_reads_all(&mut clients[0]));
        assert_eq!(other.head().status, 200);
        assert!(other.exactly(SIZE as usize) == synthetic_bytes(0, SIZE as usize));
        reading.join().expect("it gets all of its bytes");
    });
}

/// Reads 16 KiB after each `pause`, for longer than the stall timeout, then the rest.
fn read_slowly<S: Read + Write>(client: &mut Client<S>, pause: Duration, time: Duration) {
    let (started, mut at) = (Instant::now(), 0);
    while started.elapsed() < time {
        let piece = client.exactly(16 * 1024);
        assert!(piece == synthetic_bytes(at, piece.len()), "other bytes at {at}");
        at += piece.len() as u64;
        std::thread::sleep(pause);
    }
    let rest = client.exactly((SIZE - at) as usize);
    assert!(rest == synthetic_bytes(at, rest.len()), "other bytes");
}

fn a_slow_reader_is_not_given_up(driver: Driver) {
    each_way(driver, |_s3, config| {
        let proxy = config.set("client_stall_timeout", "1s").start();
        let mut client = connect(&proxy);
        // A range with an end, so that S3 may send far ahead from the start.
        let range = format!("bytes=0-{}", SIZE - 1);
        client.send(request_head("GET", TARGET, &[("Range", &range)]));
        assert_eq!(client.head().status, 206);
        read_slowly(&mut client, Duration::from_millis(80), Duration::from_secs(5));
    });
}

fn a_slow_reader_on_a_unix_socket_is_not_given_up(driver: Driver) {
    // For a Unix socket the kernel counts the bytes of a send of up to 100 KiB as taken only when
    // all were read, and reports the socket writable when nearly all were.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("s3proxy.sock");
    let s3 = TestS3::with("big.bam", Object::synthetic(SIZE));
    let config = Config::over(driver, &s3).set("client_stall_timeout", "4s");
    let _proxy = config.set("listen", &format!("unix:{}", path.display())).start();
    let stream = UnixStream::connect(&path).expect("a listening proxy");
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    let mut client = Client::on(stream);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().status, 200);
    read_slowly(&mut client, Duration::from_millis(400), Duration::from_secs(12));
}
