//! Live settings are replaced under traffic: new requests see the new mounts, a running body
//! finishes, and the old mounts and their refreshers are dropped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use s3proxy::internals::{
    Config, Environment, ListenAddress, Overrides, load_config, open_log, start_server,
};

const HALF: usize = 512 * 1024;

/// Reads one head.
fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("a head"), 1, "closed");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

/// Accepts a connection and responds with the head and the first half of the object.
fn send_first_half(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    read_head(&mut stream);
    let head = format!("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: {}\r\n\r\n", 2 * HALF);
    stream.write_all(head.as_bytes()).expect("a reader");
    stream.write_all(&vec![b'x'; HALF]).expect("a reader");
    stream
}

/// An S3 that sends its one object in two halves, the second when `go_on` receives.
fn slow_s3(go_on: Receiver<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket"));
    std::thread::spawn(move || {
        let mut stream = send_first_half(&listener);
        go_on.recv().expect("the test is running");
        stream.write_all(&vec![b'x'; HALF]).expect("a reader");
    });
    endpoint
}

/// An S3 that breaks its one object off in the middle, when it is told, and then sends the rest.
fn breaking_s3(go_on: Receiver<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket"));
    std::thread::spawn(move || {
        let stream = send_first_half(&listener);
        go_on.recv().expect("the test goes on");
        drop(stream);
        let (mut stream, _) = listener.accept().expect("another connection");
        let asked = read_head(&mut stream);
        assert!(asked.contains(&format!("bytes={HALF}-{}", 2 * HALF - 1)), "{asked}");
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Length: {HALF}\r\n\
             Content-Range: bytes {HALF}-{}/{}\r\n\r\n",
            2 * HALF - 1,
            2 * HALF
        );
        stream.write_all(head.as_bytes()).expect("a reader");
        stream.write_all(&vec![b'x'; HALF]).expect("a reader");
    });
    endpoint
}

fn config(directory: &std::path::Path, retries: u32, mounts: &str) -> Config {
    let file = directory.join("config.yaml");
    let log = directory.join("proxy.log");
    let text = format!(
        "listen: 127.0.0.1:0\nworkers: 2\ndriver: epoll\nregion: us-east-1\nretries: {retries}\nlog_file: {}\n\
         mounts:\n{mounts}",
        log.display()
    );
    std::fs::write(&file, text).expect("a new directory");
    load_config(Some(&file), &Environment::new(), &Overrides::default())
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn ends<T>(weak: &Weak<T>, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while weak.strong_count() > 0 {
        assert!(Instant::now() < deadline, "{what} is still held");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn replaced_settings_serve_new_requests_and_let_old_ones_finish() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (go_on, told) = mpsc::channel();
    let endpoint = slow_s3(told);
    let old = config(
        directory.path(),
        0,
        &format!(
            "  /old/: {{ bucket: old, endpoint: '{endpoint}', credentials: anonymous }}\n  \
             /refreshed/: {{ bucket: refreshed, endpoint: '{endpoint}', credentials: container }}\n"
        ),
    );
    let refreshed = old.live.mounts.iter().find(|mount| mount.path == "/refreshed/");
    let source = refreshed.and_then(|mount| mount.bucket.credentials.as_ref());
    let source = Arc::downgrade(source.expect("credentials"));
    let mount = Arc::downgrade(old.live.mounts.iter().find(|m| m.path == "/old/").expect("old"));
    let log = open_log(&old.settings).expect("a log file");
    let mut running = start_server(old.settings, old.live, &log).expect("a server");
    let ListenAddress::Tcp(address) = running.addresses[0] else { panic!("a TCP listener") };

    let request = |path: &str| {
        let mut client = TcpStream::connect(address).expect("a listening proxy");
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(head.as_bytes()).expect("a reader");
        let head = read_head(&mut client);
        (client, head)
    };
    let (mut reader, head) = request("/old/a.bam");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut half = vec![0; HALF];
    reader.read_exact(&mut half).expect("the first half");

    let new = config(
        directory.path(),
        0,
        "  /new/: { bucket: new, endpoint: 'http://127.0.0.1:9', credentials: anonymous }\n",
    );
    running.replace(new.live).expect("good settings");
    assert!(request("/old/a.bam").1.starts_with("HTTP/1.1 404"));
    assert!(request("/new/").1.starts_with("HTTP/1.1 404"));
    assert!(!request("/new/a.bam").1.starts_with("HTTP/1.1 404"), "it is a mount now");
    assert!(mount.strong_count() > 0, "its body is running");

    go_on.send(()).expect("a waiting S3");
    reader.read_exact(&mut half).expect("the second half");
    ends(&mount, "the old mount");
    ends(&source, "the refresher of credentials");
    assert_eq!(running.drain(), 0);
}

#[test]
fn a_bucket_whose_body_is_resumed_after_it_was_removed_is_not_held() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (go_on, told) = mpsc::channel();
    let endpoint = breaking_s3(told);
    let mount =
        format!("  /old/: {{ bucket: old, endpoint: '{endpoint}', credentials: anonymous }}\n");
    let old = config(directory.path(), 3, &mount);
    let bucket = Arc::downgrade(&old.live.mounts[0].bucket);
    let log = open_log(&old.settings).expect("a log file");
    let mut running = start_server(old.settings, old.live, &log).expect("a server");
    let ListenAddress::Tcp(address) = running.addresses[0] else { panic!("a TCP listener") };
    let mut reader = TcpStream::connect(address).expect("a listening proxy");
    reader.write_all(b"GET /old/a.bam HTTP/1.1\r\nHost: a\r\n\r\n").expect("a reader");
    assert!(read_head(&mut reader).starts_with("HTTP/1.1 200"));
    let mut half = vec![0; HALF];
    reader.read_exact(&mut half).expect("the first half");

    let mount =
        "  /new/: { bucket: new, endpoint: 'http://127.0.0.1:9', credentials: anonymous }\n";
    running.replace(config(directory.path(), 3, mount).live).expect("good settings");
    // Workers notice it within a second.
    std::thread::sleep(Duration::from_millis(1500));
    go_on.send(()).expect("a waiting S3");
    reader.read_exact(&mut half).expect("the second half");
    ends(&bucket, "the old bucket");
    assert_eq!(running.drain(), 0);
}
