//! Counts heap allocations per whole request in the real server, on both event loops.
//!
//! It counts the whole process, so client and S3 in this file do not allocate, and the file has
//! only one test.

#![allow(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use s3proxy::internals::{
    Environment, ListenAddress, Overrides, load_config, open_log, start_server,
};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HEAD: &[u8] = b"HEAD /files/reads.bam HTTP/1.1\r\nHost: proxy\r\n\r\n";
const VERSION_HEAD: &[u8] =
    b"HEAD /files/reads.bam?versionId=3HL4%2B HTTP/1.1\r\nHost: proxy\r\n\r\n";
const GET: &[u8] = b"GET /files/reads.bam HTTP/1.1\r\nHost: proxy\r\nRange: bytes=0-4095\r\n\r\n";
const S3_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 1000000\r\n\
    Last-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n";
const S3_PART: &[u8] = b"HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\nContent-Length: 4096\r\n\
    Content-Range: bytes 0-4095/1000000\r\nLast-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n";
const REPETITIONS: u64 = 200;

/// Responds to each request as S3 would, on one connection.
fn serve_as_s3(listener: TcpListener) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let mut part = S3_PART.to_vec();
    part.resize(S3_PART.len() + 4096, b'x');
    let mut request = [0; 4096];
    let mut length = 0;
    while let Ok(count @ 1..) = stream.read(&mut request[length..]) {
        length += count;
        if request[..length].ends_with(b"\r\n\r\n") {
            let is_head = request.starts_with(b"HEAD ");
            length = 0;
            let response = if is_head { S3_HEAD } else { part.as_slice() };
            if stream.write_all(response).is_err() {
                return;
            }
        }
    }
}

/// Sends a request and reads its response, which has a body of `body` bytes.
fn ask(stream: &mut TcpStream, request: &[u8], body: usize) {
    stream.write_all(request).expect("a listening proxy");
    let mut response = [0; 8192];
    let mut length = 0;
    loop {
        let end = response[..length].windows(4).position(|four| four == b"\r\n\r\n");
        if end.is_some_and(|end| length >= end + 4 + body) {
            break;
        }
        let count = stream.read(&mut response[length..]).expect("a response");
        assert!(count > 0, "the proxy closed the connection");
        length += count;
    }
    assert!(response.starts_with(b"HTTP/1.1 20"));
}

/// Allocations per request in steady state.
fn allocations_per(stream: &mut TcpStream, request: &[u8], body: usize) -> f64 {
    // The first fill pools, maps, and the log's buffers.
    (0..400).for_each(|_| ask(stream, request, body));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..REPETITIONS).for_each(|_| ask(stream, request, body));
    (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / REPETITIONS as f64
}

#[test]
fn a_head_of_a_cached_object_allocates_nothing_and_a_get_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_file = directory.path().join("proxy.log");
    for driver in ["io_uring", "epoll"] {
        let s3 = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = s3.local_addr().expect("a bound socket");
        std::thread::spawn(|| serve_as_s3(s3));
        let text = format!(
            "listen: 127.0.0.1:0\nworkers: 1\nlog_file: {}\ndriver: {driver}\n\
             endpoint: http://{endpoint}\nregion: us-east-1\nbucket_name: files\n\
             AWS_ACCESS_KEY_ID: AKIDEXAMPLE\nAWS_SECRET_ACCESS_KEY: secret\n\
             allow_version_id: true\nrequester_pays: true\n",
            log_file.display()
        );
        let file = directory.path().join("config.yaml");
        std::fs::write(&file, text).expect("a new directory");
        let config = load_config(Some(&file), &Environment::new(), &Overrides::default());
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let log = open_log(&config.settings).expect("a log file");
        let mut running = start_server(config.settings, config.live, &log).expect("a server");
        let ListenAddress::Tcp(address) = running.addresses[0] else { panic!("a TCP listener") };
        let mut client = TcpStream::connect(address).expect("a listening proxy");

        // Timers of the event loop or the deadline sweep may allocate meanwhile.
        let head = allocations_per(&mut client, HEAD, 0);
        assert!(head < 0.05, "{driver}: {head} allocations per HEAD of a cached object");
        let version = allocations_per(&mut client, VERSION_HEAD, 0);
        assert!(version < 0.05, "{driver}: {version} allocations per HEAD of a cached version");
        let get = allocations_per(&mut client, GET, 4096);
        assert!((0.95..1.05).contains(&get), "{driver}: {get} allocations per GET");
        drop(client);
        running.drain();
    }
}
