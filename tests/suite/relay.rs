//! Bodies that are spliced or copied, and the reuse of pipes.

use std::io;
use std::time::Duration;

use seccompiler::apply_filter;
use socket2::SockRef;

use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{Client, get, get_range, head, request_head};
use crate::support::seccomp::{EPERM, refuse};

both_drivers!(
    large_bodies_are_spliced_and_small_ones_copied,
    without_splice_everything_is_copied,
    a_pipe_that_holds_bytes_of_a_client_that_left_serves_nobody_else,
    a_body_that_gets_no_pipe_is_copied,
    a_kernel_that_refuses_to_splice_is_found_out_once,
    long_bodies_let_others_have_their_turn,
    long_copied_bodies_let_others_have_their_turn,
    pipelined_heads_get_responses_in_order,
);

const MIB: usize = 1 << 20;
const TARGET: &str = "/files/big.bam";

/// Stops the proxy and reads a counter from its last log line.
fn counter(mut proxy: Proxy, name: &str) -> u64 {
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    let log = proxy.stderr();
    let value = log.split_whitespace().filter_map(|word| word.strip_prefix(name)).next_back();
    let value = value.and_then(|rest| rest.strip_prefix('='));
    value.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {name} in {log}"))
}

fn serve(driver: Driver, size: usize) -> (TestS3, Config) {
    let s3 = TestS3::with("big.bam", Object::synthetic(size as u64));
    let config = Config::over(driver, &s3);
    (s3, config)
}

fn large_bodies_are_spliced_and_small_ones_copied(driver: Driver) {
    let (_s3, config) = serve(driver, 4 * MIB);
    let proxy = config.start();
    get_range(&proxy, TARGET, "bytes=5-65540").assert(206, synthetic_bytes(5, 65_536));
    get_range(&proxy, TARGET, "bytes=7-").assert(206, synthetic_bytes(7, 4 * MIB - 7));
    get_range(&proxy, TARGET, "bytes=9-2097160").assert(206, synthetic_bytes(9, 2 * MIB));
    let spliced = counter(proxy, "bytes_spliced");
    // Bytes received together with a head are copied.
    let most = (6 * MIB - 7) as u64;
    assert!((most - 200_000..=most).contains(&spliced), "{spliced} of {most} bytes");
}

fn without_splice_everything_is_copied(driver: Driver) {
    let (_s3, config) = serve(driver, 4 * MIB);
    let proxy = config.set("splice", "off").start();
    get(&proxy, TARGET).assert(200, synthetic_bytes(0, 4 * MIB));
    assert_eq!(counter(proxy, "bytes_spliced"), 0);
}

/// Requests all of [`TARGET`] and does not read it.
fn parked(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy);
    let socket = SockRef::from(client.socket());
    socket.set_recv_buffer_size(64 * 1024).expect("an open socket");
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().status, 200);
    // Time for the socket buffers to fill, so that bytes stay in the pipe.
    std::thread::sleep(Duration::from_millis(500));
    client
}

fn a_pipe_that_holds_bytes_of_a_client_that_left_serves_nobody_else(driver: Driver) {
    let (s3, config) = serve(driver, 64 * MIB);
    let other = vec![b'b'; 3 * MIB];
    s3.put("other.bam", other.clone());
    let proxy = config.set("max_pipes", "1").start();
    for round in 0..4 {
        let client = parked(&proxy);
        if round % 2 == 0 {
            let socket = SockRef::from(client.socket());
            socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
        }
        drop(client);
        for _ in 0..3 {
            get(&proxy, "/files/other.bam").assert(200, &other);
        }
    }
    let spliced = counter(proxy, "bytes_spliced");
    assert!(spliced > 8 * other.len() as u64, "the others had pipes too: {spliced} bytes spliced");
}

fn a_body_that_gets_no_pipe_is_copied(driver: Driver) {
    let (_s3, config) = serve(driver, 64 * MIB);
    let proxy = config.set("max_pipes", "1").start();
    let client = parked(&proxy);
    let range = get_range(&proxy, TARGET, "bytes=100-2000099");
    range.assert(206, synthetic_bytes(100, 2_000_000));
    drop(client);
    assert_eq!(counter(proxy, "splice_no_pipe"), 1);
}

fn a_kernel_that_refuses_to_splice_is_found_out_once(driver: Driver) {
    let (_s3, config) = serve(driver, 4 * MIB);
    let filter = refuse([libc::SYS_splice], EPERM);
    let process = Process::with_config(&config.yaml())
        .before_exec(move || apply_filter(&filter).map_err(|_| io::ErrorKind::Other.into()));
    let proxy = Proxy::start(process);
    for _ in 0..3 {
        get(&proxy, TARGET).assert(200, synthetic_bytes(0, 4 * MIB));
    }
    let said = proxy.stderr().matches("refuses to splice").count();
    assert_eq!(said, 1, "{}", proxy.stderr());
    assert_eq!(counter(proxy, "splice_refused"), 1);
}

fn long_bodies_let_others_have_their_turn(driver: Driver) {
    others_have_their_turn(driver, "auto");
}

fn long_copied_bodies_let_others_have_their_turn(driver: Driver) {
    others_have_their_turn(driver, "off");
}

fn others_have_their_turn(driver: Driver, splice: &str) {
    const GIB: u64 = 1 << 30;
    let s3 = TestS3::with("big.bam", Object::synthetic(64 * GIB));
    s3.put("small.bai", "index");
    let proxy = Config::over(driver, &s3).set("splice", splice).start();
    let address = proxy.address();
    // These clients read as fast as they can, and would for minutes.
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(&proxy);
            client.send(request_head("GET", TARGET, &[]));
            let socket = client.socket().try_clone().expect("an open socket");
            let thread = std::thread::spawn(move || {
                let mut read = 0;
                let mut socket = client.socket();
                let mut buffer = vec![0; MIB];
                while let Ok(count @ 1..) = io::Read::read(&mut socket, &mut buffer) {
                    read += count as u64;
                }
                read
            });
            (socket, thread)
        })
        .collect();
    for _ in 0..50 {
        get(&proxy, "/files/small.bai").assert(200, "index");
    }
    for (socket, thread) in readers {
        assert!(!thread.is_finished(), "a reader of {address} was cut");
        socket.shutdown(std::net::Shutdown::Both).expect("a connected socket");
        let read = thread.join().expect("no panic");
        assert!(read > 0 && read < 64 * GIB);
    }
}

fn pipelined_heads_get_responses_in_order(driver: Driver) {
    let s3 = TestS3::start();
    let names: Vec<_> = (0..200).map(|number| format!("/files/object-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        s3.put(name.trim_start_matches("/files/"), "x".repeat(number));
    }
    let proxy = Config::over(driver, &s3).start();
    for cached in names.iter().step_by(2) {
        head(&proxy, cached).assert(200, "");
    }
    // The response for a cached object must wait for earlier ones that come from S3.
    let mut client = Client::connect(&proxy);
    let all: String = names.iter().map(|name| request_head("HEAD", name, &[])).collect();
    client.send(all + &request_head("GET", "/files/object-7", &[]));
    for number in 0..names.len() {
        let response = client.response_to("HEAD");
        assert_eq!((response.status, response.content_length()), (200, number as u64));
    }
    client.response_to("GET").assert(200, "x".repeat(7));
    client.assert_open();

    // Bytes that are not a request must not harm the response before them.
    client.send(request_head("HEAD", "/files/object-8", &[]) + "\x16\x03\r\n\r\n");
    assert_eq!(client.response_to("HEAD").content_length(), 8);
    client.assert_closed();
}
