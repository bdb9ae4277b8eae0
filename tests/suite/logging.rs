//! The log when nothing reads it, when its file is rotated or the disk is full, and its lines for
//! S3's errors.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver, Process, Proxy, proxy_over};
use crate::support::raw_http::{Client, get, request};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream, ok, ok_head, s3_error};
use crate::support::{PATIENCE, eventually};

both_drivers!(
    a_log_that_nobody_reads_blocks_nothing_and_the_gap_is_counted,
    standard_error_that_nobody_reads_stops_nothing,
    standard_output_that_nobody_reads_stops_nothing,
    a_hangup_reopens_the_log_file_and_no_line_is_lost,
    a_hangup_without_a_log_file_changes_nothing,
    a_log_file_that_cannot_be_reopened_stays_in_use,
    a_file_that_may_grow_no_more_gets_whole_lines,
    the_log_cannot_disturb_a_terminal_or_be_forged,
    lines_logged_just_before_shutdown_are_written,
    every_error_of_s3_but_a_plain_404_is_logged_with_its_code_and_request_id,
    a_flood_of_denials_is_counted_and_hides_no_other_error,
    an_archived_object_is_403_and_says_so,
);

mod with_a_disk_of_its_own {
    use super::on_a_full_disk_lines_go_on_where_they_stopped;

    both_drivers!(
        #[ignore = "needs root"]
        on_a_full_disk_lines_go_on_where_they_stopped,
    );
}

const TARGET: &str = "/files/reads.bam";

/// A named pipe with a reader that does not read.
fn stalled_pipe(directory: &Path) -> (PathBuf, File) {
    let path = directory.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    let reader = OpenOptions::new().read(true).write(true).open(&path).expect("a named pipe");
    (path, reader)
}

/// Sends requests whose log lines exceed the capacity of pipe and queue together.
fn overflow(proxy: &Proxy) {
    let target = format!("/files/{}", "k".repeat(900));
    let mut client = Client::connect(proxy);
    let agent = "a".repeat(1000);
    for _ in 0..1500 {
        client.request("HEAD", &target, &[("User-Agent", &agent)]);
    }
}

fn a_log_that_nobody_reads_blocks_nothing_and_the_gap_is_counted(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, reader) = stalled_pipe(directory.path());
    let yaml = Config::over(driver, &s3).set("log_file", &path.display().to_string()).yaml();
    let mut proxy = Proxy::start(Process::with_config(&yaml));
    overflow(&proxy);
    get(&proxy, TARGET).assert(200, "ACGT");
    // The reader continues: it finds complete lines, and the number of missing ones.
    let mut lines = BufReader::new(reader).lines();
    let mut read = 0;
    let told = loop {
        let line = lines.next().expect("a pipe that is open").expect("text");
        if line.contains("dropped") {
            break line;
        }
        assert!(line.contains("\"HEAD ") && line.contains(" ms="), "not whole: {line}");
        read += 1;
    };
    let missing = told.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    assert!(missing.is_some_and(|missing| missing > 0 && missing < 1500), "{read}: {told}");
    assert!(told.contains("could not be written fast enough"), "{told}");
    drop(lines);
    // The reader stops again.
    let reader = OpenOptions::new().read(true).write(true).open(&path).expect("a named pipe");
    overflow(&proxy);
    let asked = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(reader);
}

fn standard_error_that_nobody_reads_stops_nothing(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let process = Process::with_config(&Config::over(driver, &s3).yaml()).stderr_to(writer);
    let mut proxy = Proxy::start(process);
    overflow(&proxy);
    proxy.signal(Signal::HUP);
    proxy.signal(Signal::USR1);
    get(&proxy, TARGET).assert(200, "ACGT");
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    let text = std::io::read_to_string(reader).expect("text");
    assert!(text.ends_with('\n') && text.lines().all(is_whole), "{text}");
}

fn standard_output_that_nobody_reads_stops_nothing(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("a pipe");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("a pipe");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).expect("a pipe");
    let mut process = Process::new(&["-c", "test.yaml"]).stdout_to(writer);
    let socket = process.path_of("proxy.sock");
    let listen = format!("unix:{socket}");
    process.write("test.yaml", Config::over(driver, &s3).set("listen", &listen).yaml());
    let mut running = process.spawn();
    eventually("it listens", || UnixStream::connect(&socket).is_ok());
    let mut client = UnixStream::connect(&socket).expect("a listening proxy");
    client.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
    client.write_all(b"GET /files/reads.bam HTTP/1.0\r\n\r\n").expect("a listening proxy");
    let response = std::io::read_to_string(client).expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("ACGT"), "{response}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
}

/// Whether this is a complete line of [`overflow`] or of the program's end.
fn is_whole(line: &str) -> bool {
    let of_a_request = line.contains("\"HEAD ") || line.contains("\"GET ");
    (of_a_request && line.contains(" ms=")) || line.contains("Z WARN ") || line.contains("Z INFO ")
}

fn hang_up(proxy: &Proxy) {
    proxy.signal(Signal::HUP);
}

fn lines_of(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().matches("GET /files/").count()
}

fn a_hangup_reopens_the_log_file_and_no_line_is_lost(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("log_file", "proxy.log").start();
    let path = proxy.directory().join("proxy.log");
    let mut client = Client::connect(&proxy);
    for rotation in 0..5 {
        (0..20).for_each(|_| client.request("GET", TARGET, &[]).assert(200, "ACGT"));
        fs::rename(&path, path.with_extension(rotation.to_string())).expect("a log file");
        hang_up(&proxy);
        eventually("there is a new file", || path.exists());
    }
    client.request("GET", TARGET, &[]).assert(200, "ACGT");
    let all = || {
        let old = (0..5).map(|rotation| path.with_extension(rotation.to_string()));
        old.map(|path| lines_of(&path)).sum::<usize>() + lines_of(&path)
    };
    eventually("every request is logged", || all() == 101);
    assert!(lines_of(&path) >= 1);
}

fn a_hangup_without_a_log_file_changes_nothing(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let mut proxy = proxy_over(driver, &s3);
    hang_up(&proxy);
    get(&proxy, TARGET).assert(200, "ACGT");
    eventually("the request is logged", || proxy.stderr().contains("GET /files/reads.bam"));
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
}

fn a_log_file_that_cannot_be_reopened_stays_in_use(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("log_file", "proxy.log").start();
    let (path, old) = (proxy.directory().join("proxy.log"), proxy.directory().join("old.log"));
    fs::rename(&path, &old).expect("a log file");
    fs::create_dir(&path).expect("a free name");
    hang_up(&proxy);
    get(&proxy, TARGET).assert(200, "ACGT");
    eventually("the old file has the line", || lines_of(&old) == 1);
    let text = fs::read_to_string(&old).expect("the old file");
    assert!(text.contains("cannot reopen ") && text.contains("stays in use"), "{text}");
}

fn a_file_that_may_grow_no_more_gets_whole_lines(driver: Driver) {
    const MOST: u64 = 64 * 1024 + 7;
    let s3 = TestS3::with("reads.bam", "ACGT");
    let yaml = Config::over(driver, &s3).set("log_file", "proxy.log").yaml();
    let process = Process::with_config(&yaml).before_exec(|| {
        let limit = Rlimit { current: Some(MOST), maximum: Some(MOST) };
        Ok(setrlimit(Resource::Fsize, limit)?)
    });
    let mut proxy = Proxy::start(process);
    let path = proxy.directory().join("proxy.log");
    overflow(&proxy);
    eventually("the file is full", || fs::metadata(&path).is_ok_and(|file| file.len() == MOST));
    get(&proxy, TARGET).assert(200, "ACGT");
    // Truncated, as by an operator who needs space.
    File::create(&path).expect("a log file");
    eventually("logging continues", || fs::metadata(&path).is_ok_and(|file| file.len() > 1000));
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    let text = fs::read_to_string(&path).expect("a log file");
    assert!(text.ends_with('\n'), "the end of a line: {:?}", &text[text.len() - 50..]);
    text.lines().for_each(|line| assert!(is_whole(line), "not whole: {line}"));
}

fn on_a_full_disk_lines_go_on_where_they_stopped(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let yaml = Config::over(driver, &s3).set("log_file", "disk/proxy.log").yaml();
    let mut proxy = Proxy::start(Process::with_config(&yaml).with_small_disk("disk"));
    let path = proxy.path_in_its_mounts("disk/proxy.log");
    let other = proxy.path_in_its_mounts("disk/other");
    fs::write(&other, [0; 16 * 1024]).expect("room for it");
    let length = || fs::metadata(&path).map_or(0, |file| file.len());
    overflow(&proxy);
    eventually("the disk is full", || length() == 48 * 1024);
    get(&proxy, TARGET).assert(200, "ACGT");
    fs::remove_file(&other).expect("a file");
    eventually("the disk is full again", || length() == 64 * 1024);
    let file = File::open(&path).expect("a log file");
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    let text = std::io::read_to_string(file).expect("text");
    assert!(text.ends_with('\n'), "the end of a line: {:?}", &text[text.len() - 50..]);
    text.lines().for_each(|line| assert!(is_whole(line), "not whole: {line}"));
}

fn the_log_cannot_disturb_a_terminal_or_be_forged(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    let mut client = Client::connect(&proxy);
    client.send(
        b"GET /files/\xc3\xa9\xc2\x9b HTTP/1.1\r\nHost: x\r\nUser-Agent: \xff\xe2\x80\xae\r\n\r\n",
    );
    client.response_to("GET");
    let mut refused = Client::connect(&proxy);
    refused.send(b"GET  /\x1b[31m\xff\" HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(refused.response_to("GET").status, 400);
    eventually("both are logged", || proxy.stderr().matches(" 400 ").count() >= 1);
    eventually("both are logged", || proxy.stderr().contains("\\xff\\xe2\\x80\\xae"));
    let text = proxy.stderr();
    assert!(text.contains("\"GET  /\\x1b[31m\\xff\\x22 HTTP/1.1\" 400"), "{text}");
    assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text}");
}

fn lines_logged_just_before_shutdown_are_written(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let mut proxy = proxy_over(driver, &s3);
    let mut client = Client::connect(&proxy);
    (0..500).for_each(|_| client.request("GET", TARGET, &[]).assert(200, "ACGT"));
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    assert_eq!(proxy.stderr().matches("GET /files/reads.bam").count(), 500);
    assert!(proxy.stderr().contains("requests=500 "), "{}", proxy.stderr());
}

/// An error response of S3, without a body for HEAD.
fn refusal(peer: &Peer, status: &str, code: &str) -> String {
    let error = s3_error(status, code);
    let error = error.replacen("\r\n", "\r\nx-amz-request-id: 4442587FB7D0A2F9\r\n", 1);
    match peer.last_head().starts_with("HEAD") {
        true => error[..error.find("\r\n\r\n").expect("a head") + 4].to_owned(),
        false => error,
    }
}

/// The part of a target that names the object.
fn last_segment(head: &str) -> &str {
    head.split(' ').nth(1).and_then(|target| target.rsplit('/').next()).unwrap_or_default()
}

fn every_error_of_s3_but_a_plain_404_is_logged_with_its_code_and_request_id(driver: Driver) {
    const ERRORS: [(&str, &str); 9] = [
        ("400 Bad Request", "InvalidRequest"),
        ("403 Forbidden", "AccessDenied"),
        ("403 Forbidden", "AllAccessDisabled"),
        ("403 Forbidden", "InvalidObjectState"),
        ("404 Not Found", "NoSuchBucket"),
        ("412 Precondition Failed", "PreconditionFailed"),
        ("416 Range Not Satisfiable", "InvalidRange"),
        ("500 Internal Server Error", "InternalError"),
        ("503 Service Unavailable", "SlowDown"),
    ];
    let upstream = ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            let head = peer.last_head();
            let number = last_segment(&head).trim_start_matches(|c: char| !c.is_ascii_digit());
            let error = number.parse().ok().and_then(|number: usize| ERRORS.get(number));
            let (status, code) = error.copied().unwrap_or(("404 Not Found", "NoSuchKey"));
            peer.send(refusal(peer, status, code));
        }
    });
    let proxy = Config::new(driver, &upstream.endpoint()).set("retry_timeout", "1s").start();
    let fields = [("If-Match", "\"a\""), ("Range", "bytes=9-")];
    for number in 0..=ERRORS.len() {
        request(&proxy, "GET", &format!("/files/get{number}"), &fields);
        request(&proxy, "HEAD", &format!("/files/head{number}"), &[]);
    }
    eventually("the last one is logged", || proxy.stderr().contains("/head9 HTTP/1.1\" 404 "));
    let text = proxy.stderr();
    let logged = |key: &str, error: &str| {
        let (key, error) = (format!("\"{key}\""), format!("S3 said {error}"));
        let mut lines = text.lines().filter(|line| line.contains(&key));
        lines.any(|line| line.contains(&error) && line.contains("(request id 4442587FB7D0A2F9)"))
    };
    for (number, (status, code)) in ERRORS.iter().enumerate() {
        let error = format!("{} {code}: The test says so", &status[..3]);
        assert!(logged(&format!("get{number}"), &error), "GET {status} {code}:\n{text}");
        // A GET finds out the reason only for a HEAD's 400 and 403; its 404 is always plain.
        let error = if number < 4 { &error } else { &status[..3] };
        let is_plain = *code == "NoSuchBucket";
        assert!(
            is_plain || logged(&format!("head{number}"), error),
            "HEAD {status} {code}:\n{text}"
        );
    }
    assert!(!logged("get9", "404") && !logged("head9", "404"), "{text}");
}

fn a_flood_of_denials_is_counted_and_hides_no_other_error(driver: Driver) {
    let upstream = ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            let is_archived = last_segment(&peer.last_head()) == "archived";
            let code = if is_archived { "InvalidObjectState" } else { "AccessDenied" };
            peer.send(refusal(peer, "403 Forbidden", code));
        }
    });
    let mut proxy = Config::new(driver, &upstream.endpoint()).start();
    let mut client = Client::connect(&proxy);
    for number in 0..40 {
        let method = if number % 2 == 0 { "GET" } else { "HEAD" };
        assert_eq!(client.request(method, &format!("/files/{number}.bai"), &[]).status, 403);
    }
    client.request("GET", "/files/archived", &[]).assert_error(403);
    proxy.terminate();
    assert_eq!(proxy.exit_code(), Some(0));
    let text = proxy.stderr();
    let (counts, others): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| line.contains(" more of this kind within 60 s: "));
    let denied = |lines: &[&str]| lines.iter().filter(|line| line.contains("AccessDenied")).count();
    assert_eq!((denied(&others), denied(&counts)), (10, 1), "{text}");
    assert!(counts.iter().any(|line| line.contains(" WARN 30 more of this kind")), "{text}");
    assert!(others.iter().any(|line| line.contains("S3 said 403 InvalidObjectState")), "{text}");
}

fn an_archived_object_is_403_and_says_so(driver: Driver) {
    let restored = Arc::new(AtomicBool::new(false));
    let is_restored = Arc::clone(&restored);
    let upstream = ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            if peer.last_head().starts_with("HEAD") {
                peer.send(ok_head(4));
            } else if is_restored.load(Ordering::SeqCst) {
                peer.send(ok("ACGT"));
            } else {
                peer.send(refusal(peer, "403 Forbidden", "InvalidObjectState"));
            }
        }
    });
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    for _ in 0..2 {
        let response = get(&proxy, TARGET);
        response.assert_error(403);
        assert_eq!(response.text(), "the object is archived: restore it first\n");
        // S3 returns the metadata of archived objects.
        assert_eq!(request(&proxy, "HEAD", TARGET, &[]).status, 200);
    }
    eventually("it is logged", || {
        proxy.stderr().contains(
            "\"reads.bam\": S3 said 403 InvalidObjectState: The test says so (request id \
             4442587FB7D0A2F9); the object is archived: restore it first",
        )
    });
    restored.store(true, Ordering::SeqCst);
    get(&proxy, TARGET).assert(200, "ACGT");
}
