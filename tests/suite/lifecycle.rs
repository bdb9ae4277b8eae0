//! The program as its operator meets it: start, configuration, signals, exit codes.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;
use seccompiler::{BpfProgram, apply_filter};

use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Process, Proxy, proxy_over};
use crate::support::raw_http::{Client, get, head, request_head};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};
use crate::support::seccomp::{ENOSYS, EPERM, refuse};
use crate::support::{PATIENCE, eventually};

both_drivers!(
    the_first_lines_say_where_it_listens_and_on_what,
    sigterm_lets_a_running_transfer_finish_and_exits_0,
    sigterm_closes_idle_connections_at_once,
    requests_that_arrived_before_sigterm_are_answered,
    a_transfer_that_outlasts_the_drain_is_cut,
    a_busy_port_is_one_clear_line_and_exit_1,
    it_listens_on_a_unix_socket,
    it_listens_on_several_addresses,
    several_workers_share_a_port,
    the_file_of_2014_works_unchanged,
    the_environment_overrides_the_file_and_flags_override_both,
    check_says_what_works,
    the_log_goes_where_the_configuration_says,
    the_example_with_a_bucket_filled_in_serves_every_key_as_it_is,
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

/// The process is stopped while the requests arrive, so that it finds them together with the signal.
fn requests_that_arrived_before_sigterm_are_answered(driver: Driver) {
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
    assert!(client.rest().len() < 64 << 20, "the body cannot have come whole");
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
    assert!(heads <= 3, "{heads} HEADs: each core remembers for itself, and asks once at most");
}

fn the_file_of_2014_works_unchanged(driver: Driver) {
    let s3 = TestS3::with("reads.bai", "index");
    let yaml = format!(
        "AWS_ACCESS_KEY_ID: {ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY: {SECRET_KEY}\n\
         bucket_name: {}\nrewrite_rules:\n  bai:\n    from: '\\.bam\\.bai$'\n    to: '.bai'\n",
        crate::support::memory_store::BUCKET
    );
    // The file knows neither endpoint nor port, so the test gives them from outside.
    let mut process = Process::new(&["--listen", "127.0.0.1:0"])
        .environment("AWS_ENDPOINT_URL", &s3.server.endpoint())
        .environment("S3PROXY_DRIVER", driver.name());
    process.write("config.yaml", &yaml);
    let proxy = Proxy::start(process);
    get(&proxy, "/files/reads.bam.bai").assert(200, "index");
}

fn the_environment_overrides_the_file_and_flags_override_both(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let yaml = Config::over(driver, &s3)
        .set("listen", "127.0.0.1:1")
        .set("AWS_SECRET_ACCESS_KEY", "of-the-file")
        .yaml();
    let process = Process::with_config(&yaml)
        .environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .environment("S3PROXY_LISTEN", "127.0.0.1:2")
        .argument("--listen")
        .argument("127.0.0.1:0");
    let proxy = Proxy::start(process);
    get(&proxy, TARGET).assert(200, "ACGT");
    assert!(proxy.directory().join("test.yaml").exists());
}

fn check_says_what_works(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let check = |config: Config| Process::with_config(&config.yaml()).argument("--check").run();

    let good = check(Config::over(driver, &s3));
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.stdout.contains(crate::support::memory_store::BUCKET), "{good:?}");
    assert!(!s3.server.requests().is_empty(), "it asks the bucket");

    let bad = check(Config::over(driver, &s3).set("AWS_SECRET_ACCESS_KEY", "wrong/secret"));
    assert_eq!(bad.code, 1, "{bad:?}");
    let said = format!("{}{}", bad.stdout, bad.stderr);
    assert!(said.contains("SignatureDoesNotMatch"), "{bad:?}");
    assert!(!said.contains("wrong/secret"), "{bad:?}");

    let none = check(Config::over(driver, &s3).set("bucket_name", "no-such-bucket"));
    assert_eq!(none.code, 1, "{none:?}");
    assert!(format!("{}{}", none.stdout, none.stderr).contains("no-such-bucket"), "{none:?}");
}

fn the_log_goes_where_the_configuration_says(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let line = "\"GET /files/reads.bam HTTP/1.1\" 200 4";
    let to_stderr = proxy_over(driver, &s3);
    get(&to_stderr, TARGET).assert(200, "ACGT");
    eventually("the request is logged", || to_stderr.stderr().contains(line));

    let to_file = Config::over(driver, &s3).set("log_file", "proxy.log").start();
    get(&to_file, TARGET).assert(200, "ACGT");
    let path = to_file.directory().join("proxy.log");
    let logged = || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(line));
    eventually("the request is logged to the file", logged);
    assert_eq!(to_file.stderr(), "");

    let silent = Config::over(driver, &s3).set("access_log", "false").start();
    get(&silent, TARGET).assert(200, "ACGT");
    get(&silent, TARGET).assert(200, "ACGT");
    assert!(!silent.stderr().contains("GET /files"), "{}", silent.stderr());
}

/// `config.example.yaml` copied as its head says.
fn copied_example(driver: Driver, s3: &TestS3) -> Process {
    let bucket = crate::support::memory_store::BUCKET;
    let example = include_str!("../../config.example.yaml");
    let yaml = example.replace("bucket_name: my-bucket", &format!("bucket_name: {bucket}"));
    Process::with_config(&yaml)
        .environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .environment("AWS_ENDPOINT_URL", &s3.server.endpoint())
        .environment("S3PROXY_LISTEN", "127.0.0.1:0")
        .environment("S3PROXY_DRIVER", driver.name())
}

fn the_example_with_a_bucket_filled_in_serves_every_key_as_it_is(driver: Driver) {
    let s3 = TestS3::with("a.bam", "reads");
    s3.put("a.bam.bai", "index");
    let proxy = Proxy::start(copied_example(driver, &s3));
    get(&proxy, "/files/a.bam").assert(200, "reads");
    get(&proxy, "/files/a.bam.bai").assert(200, "index");
    get(&proxy, "/files/a.bai").assert_error(404);
    assert_eq!(head(&proxy, "/files/a.bam.bai").content_length(), 5);
    let checked = copied_example(driver, &s3).argument("--check").run();
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[test]
fn files_that_cannot_be_used_are_mistakes_of_the_configuration() {
    let yaml = Config::new(Driver::Epoll, "http://127.0.0.1:1").yaml();
    let lines = yaml.lines().count();
    for (setting, words) in [
        ("log_file: /no/such/directory/x.log", "cannot be written to: No such file or directory"),
        ("log_file: .", "cannot be written to: Is a directory"),
        ("log_file: 'a/\u{1b}[31m.log'", r"'a/\u{1b}[31m.log' cannot be written to"),
        ("ca_file: /no/such.pem", "cannot be read: No such file or directory"),
        ("ca_file: test.yaml", "'test.yaml' holds no certificate"),
        ("sse_customer_key_file: /no/such.key", "the file cannot be read"),
    ] {
        let setting = setting.replace('\u{1b}', "\\e").replace('\'', "\"");
        for check in [false, true] {
            let mut process = Process::with_config(&format!("{yaml}{setting}\n"));
            process = if check { process.argument("--check") } else { process };
            let finished = process.run();
            assert_eq!(finished.code, 78, "{setting}: {finished:?}");
            let place = format!("test.yaml:{}: ", lines + 1);
            assert!(finished.stderr.starts_with(&place), "{setting}: {finished:?}");
            assert!(finished.stderr.contains(words), "{setting}: {finished:?}");
            assert_eq!(finished.stderr.lines().count(), 1, "{setting}: {finished:?}");
        }
    }
    let finished = Process::new(&["--log-file", "/no/such/x.log"])
        .environment("S3PROXY_BUCKET_NAME", "lab")
        .run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.starts_with("--log-file: "), "{finished:?}");
}

#[test]
fn a_file_of_another_kind_is_not_quoted_line_by_line_nor_its_secrets() {
    let secrets: Vec<String> = (0..1000).map(|n| format!("s3cr3ts3cr3t{n:04}")).collect();
    let yaml: String = secrets.iter().map(|secret| format!("{secret}: x\n")).collect();
    let mut process = Process::new(&["-c", "a\n\u{1b}[31mb.yaml"]);
    process.write("a\n\u{1b}[31mb.yaml", yaml);
    let finished = process.run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 21, "{}", finished.stderr);
    assert!(finished.stderr.ends_with("\nand 980 more mistakes\n"), "{}", finished.stderr);
    assert!(finished.stderr.starts_with(r"a\n\u{1b}[31mb.yaml:1: "), "{}", finished.stderr);
    assert!(!finished.stderr.contains("s3cr3t") && !finished.stderr.contains('\u{1b}'));
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
fn a_kernel_that_refuses_io_uring_fails_who_insists_on_it() {
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

#[test]
fn all_mistakes_of_a_configuration_are_reported_at_once() {
    let yaml = "listen: 127.0.0.1:99999\nbucket_nam: lab\nworkers: many\nmetadata_ttl: 5 parsecs\n";
    let finished = Process::with_config(yaml).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert_eq!(finished.stdout, "");
    for (line, word) in [(1, "listen"), (2, "bucket_name"), (3, "workers"), (4, "metadata_ttl")] {
        let place = format!("test.yaml:{line}");
        let said = finished.stderr.lines().find(|said| said.contains(&place));
        let said = said.unwrap_or_else(|| panic!("nothing about {place}: {}", finished.stderr));
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_missing_configuration_is_78_and_names_the_file() {
    let finished = Process::new(&["-c", "nowhere.yaml"]).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("nowhere.yaml"), "{finished:?}");
    let finished = Process::new(&[]).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("config.yaml"), "{finished:?}");
}

#[test]
fn an_unknown_flag_is_2_and_help_and_version_are_0() {
    let finished = Process::new(&["--colour"]).run();
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("--colour"), "{finished:?}");
    let help = Process::new(&["--help"]).run();
    assert_eq!(help.code, 0);
    for flag in
        ["--config", "--listen", "--workers", "--log-level", "--log-file", "--debug", "--check"]
    {
        assert!(help.stdout.contains(flag), "{flag}: {}", help.stdout);
    }
    let version = Process::new(&["--version"]).run();
    assert_eq!(version.stdout, concat!("s3proxy ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// All of `io_uring`, as container runtimes refuse it by default, and each of its system calls alone:
/// a ring that can be set up may still not be entered.
fn refusals_of_io_uring(errno: u32) -> [BpfProgram; 4] {
    // io_uring_setup, io_uring_enter and io_uring_register have these numbers everywhere.
    [425..=427, 425..=425, 426..=426, 427..=427].map(|calls| refuse(calls, errno))
}
