//! Start, listeners, signals, shutdown and exit codes.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;
use seccompiler::{BpfProgram, apply_filter};

use crate::support::PATIENCE;
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Process, Proxy, proxy_over};
use crate::support::raw_http::{Client, get, head, request_head};
use crate::support::seccomp::{ENOSYS, EPERM, refuse};

both_drivers!(
    the_first_lines_say_where_it_listens_and_on_what,
    sigterm_lets_a_running_transfer_finish_and_exits_0,
    sigterm_closes_idle_connections_at_once,
    requests_that_arrived_before_sigterm_are_served,
    a_transfer_that_outlasts_the_drain_is_cut,
    a_busy_port_is_one_clear_line_and_exit_1,
    it_listens_on_a_unix_socket,
    it_listens_on_several_addresses,
    several_workers_share_a_port,
);

const TARGET: &str = "/files/reads.bam";

fn the_first_lines_say_where_it_listens_and_on_what(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    assert_ne!(proxy.address().port(), 0);
    let other = if driver == Driver::Epoll { Driver::IoUring } else { Driver::Epoll };
    assert!(proxy.driver_line.contains(driver.name()), "{}", proxy.driver_line);
    assert!(!proxy.driver_line.contains(other.name()), "{}", proxy.driver_line);
}

fn sigterm_lets_a_running_transfer_finish_and_exits_0(driver: Driver) {
    let size = 32 << 20;
    let s3 = TestS3::with("reads.bam", Object::synthetic(size));
    let mut proxy = proxy_over(driver, &s3);
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().content_length(), size);
    proxy.terminate();
    std::thread::sleep(Duration::from_millis(300));
    assert!(proxy.is_running(), "a transfer is running");
    let refused = std::net::TcpStream::connect(proxy.address()).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        io::Read::read(&mut &stream, &mut [0])
    });
    assert!(!matches!(refused, Ok(1)), "a new connection after SIGTERM is not served");
    assert!(client.exactly(size as usize) == synthetic_bytes(0, size as usize));
    client.assert_closed();
    assert_eq!(proxy.exit_code(), Some(0));
}

fn sigterm_closes_idle_connections_at_once(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let mut proxy = Config::over(driver, &s3).set("drain_timeout", "60s").start();
    let mut idle = Client::connect(&proxy);
    idle.request("GET", TARGET, &[]).assert(200, "ACGT");
    let mut silent = Client::connect(&proxy);
    proxy.terminate();
    idle.assert_closed();
    silent.assert_closed();
    assert_eq!(proxy.exit_code(), Some(0));
}

/// The process is stopped while the requests arrive, so that they and the signal are pending
/// together.
fn requests_that_arrived_before_sigterm_are_served(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    for workers in ["1", "2"] {
        let config = Config::over(driver, &s3).set("drain_timeout", "60s").set("workers", workers);
        let mut proxy = config.start();
        let mut kept: Vec<_> = (0..20).map(|_| Client::connect(&proxy)).collect();
        for client in &mut kept {
            client.request("GET", TARGET, &[]).assert(200, "ACGT");
        }
        let mut silent: Vec<_> = (0..20).map(|_| Client::connect(&proxy)).collect();
        let mut partly: Vec<_> = (0..4).map(|_| Client::connect(&proxy)).collect();
        let [first, rest] = ["GET /files/reads.bam HTTP/1.1\r\n", "Host: x\r\n\r\n"];
        for client in &mut partly {
            client.send(first);
        }
        get(&proxy, TARGET).assert(200, "ACGT");
        proxy.signal(Signal::STOP);
        let mut queued: Vec<_> = (0..200).map(|_| Client::connect(&proxy)).collect();
        let mut pipelining = Client::connect(&proxy);
        for (number, client) in kept.iter_mut().chain(&mut silent).chain(&mut queued).enumerate() {
            let method = if number % 2 == 0 { "GET" } else { "HEAD" };
            client.send(request_head(method, TARGET, &[]));
        }
        for client in &mut partly {
            client.send(rest);
        }
        for method in ["GET", "HEAD", "GET"] {
            pipelining.send(request_head(method, TARGET, &[]));
        }
        proxy.terminate();
        proxy.signal(Signal::CONT);
        for (number, client) in kept.iter_mut().chain(&mut silent).chain(&mut queued).enumerate() {
            let method = if number % 2 == 0 { "GET" } else { "HEAD" };
            let response = client.response_to(method);
            response.assert(200, if method == "GET" { "ACGT" } else { "" });
            client.assert_closed();
        }
        for client in &mut partly {
            client.response_to("GET").assert(200, "ACGT");
            client.assert_closed();
        }
        pipelining.response_to("GET").assert(200, "ACGT");
        pipelining.response_to("HEAD").assert(200, "");
        pipelining.response_to("GET").assert(200, "ACGT");
        pipelining.assert_closed();
        assert_eq!(proxy.exit_code(), Some(0), "{}", proxy.stderr());
    }
}

fn a_transfer_that_outlasts_the_drain_is_cut(driver: Driver) {
    let s3 = TestS3::with("reads.bam", Object::synthetic(64 << 20));
    let mut proxy = Config::over(driver, &s3).set("drain_timeout", "1s").start();
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", TARGET, &[]));
    assert_eq!(client.head().status, 200);
    proxy.terminate();
    let code = proxy.exit_code();
    assert!(client.rest().len() < 64 << 20, "the body cannot be complete");
    assert_eq!(code, Some(1), "a client was cut");
    let stderr = proxy.stderr();
    assert!(stderr.contains("1 client connection was cut at the end of drain_timeout"), "{stderr}");
}

fn a_busy_port_is_one_clear_line_and_exit_1(driver: Driver) {
    let s3 = TestS3::start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket").to_string();
    let yaml = Config::over(driver, &s3).set("listen", &address).yaml();
    let finished = Process::with_config(&yaml).run();
    assert_eq!(finished.code, 1, "{finished:?}");
    assert_eq!(finished.stdout, "");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(&address), "{}", finished.stderr);
    assert!(finished.stderr.contains("already"), "{}", finished.stderr);
}

fn it_listens_on_a_unix_socket(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("proxy.sock");
    let listen = format!("unix:{}", path.display());
    let mut proxy = Config::over(driver, &s3).set("listen", &listen).start();
    assert_eq!(proxy.url, listen);
    let mut client = Client::on(UnixStream::connect(&path).expect("a listening socket"));
    client.request("GET", TARGET, &[]).assert(200, "ACGT");
    client.request("GET", TARGET, &[("Range", "bytes=1-2")]).assert(206, "CG");
    proxy.terminate();
    client.assert_closed();
    assert_eq!(proxy.exit_code(), Some(0));
    assert!(!path.exists(), "the socket is removed at the end");
}

fn it_listens_on_several_addresses(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("proxy.sock");
    let listen = format!("[\"127.0.0.1:0\", \"unix:{}\"]", path.display());
    let proxy = Config::over(driver, &s3).set("listen", &listen).start();
    get(&proxy, TARGET).assert(200, "ACGT");
    let mut client = Client::on(UnixStream::connect(&path).expect("a listening socket"));
    client.request("GET", TARGET, &[]).assert(200, "ACGT");
}

fn several_workers_share_a_port(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("workers", "3").start();
    for _ in 0..60 {
        get(&proxy, TARGET).assert(200, "ACGT");
        head(&proxy, TARGET).assert(200, "");
    }
    let heads = s3.count("HEAD", "reads.bam");
    assert!(heads <= 3, "{heads} HEADs: each worker caches separately and sends one at most");
}

#[test]
fn a_kernel_that_refuses_io_uring_is_served_with_epoll() {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let yaml = Config::over(Driver::IoUring, &s3).set("driver", "auto").yaml();
    for refuse in refusals_of_io_uring(EPERM) {
        let process = Process::with_config(&yaml)
            .before_exec(move || apply_filter(&refuse).map_err(|_| io::ErrorKind::Other.into()));
        let proxy = Proxy::start(process);
        assert!(proxy.driver_line.contains("epoll"), "{}", proxy.driver_line);
        get(&proxy, TARGET).assert(200, "ACGT");
    }
}

#[test]
fn a_kernel_that_refuses_io_uring_ends_a_proxy_that_demands_it() {
    let s3 = TestS3::start();
    for refuse in refusals_of_io_uring(ENOSYS) {
        let process = Process::with_config(&Config::over(Driver::IoUring, &s3).yaml())
            .before_exec(move || apply_filter(&refuse).map_err(|_| io::ErrorKind::Other.into()));
        let finished = process.run();
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(finished.stderr.contains("io_uring"), "{finished:?}");
        assert!(finished.stderr.contains("driver: auto"), "{finished:?}");
    }
}

/// Filters against all of `io_uring`, as in container runtimes by default, and against each of its
/// system calls alone: a ring may be set up and still be unusable.
fn refusals_of_io_uring(errno: u32) -> [BpfProgram; 4] {
    // io_uring_setup, io_uring_enter and io_uring_register have these numbers on every
    // architecture.
    [425..=427, 425..=425, 426..=426, 427..=427].map(|calls| refuse(calls, errno))
}
