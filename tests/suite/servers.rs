//! Stories over foreign S3 servers that check signatures: moto, `OpenStack` Swift and Garage. They
//! share no code with the S3 server of the other tests.
//!
//! These tests are ignored by default, because the servers have to be installed: `./tests/run` does
//! both. By hand, for one server:
//!
//! ```text
//! ./tests/servers/install swift
//! cargo test --test suite -- --include-ignored servers::swift
//! ```
//!
//! The tests fail if the server is not installed.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::keys::torture_list;
use crate::support::genomics::write_bam;
use crate::support::object::synthetic_bytes;
use crate::support::proxy::{Driver, Process, Proxy};
use crate::support::raw_http::{Client, encode, get, get_range, head, request, request_head};
use crate::support::real_s3::{Implementation, RealS3, running};
use crate::support::tools::{run, run_any};

/// Makes each story two tests for each server, with names such as
/// `servers::swift::an_aborted_client_does_no_harm::epoll`.
macro_rules! on_every_server {
    ($($story:ident),+ $(,)?) => {
        on_every_server!(moto Moto $($story)+);
        on_every_server!(moto_tls MotoTls $($story)+);
        on_every_server!(swift Swift $($story)+);
        on_every_server!(garage Garage $($story)+);
    };
    ($module:ident $server:ident $($story:ident)+) => {
        mod $module {$(
            mod $story {
                use super::super::{self as servers, Implementation};
                use crate::support::proxy::Driver;

                #[test]
                #[ignore = "./tests/run installs the server"]
                fn io_uring() {
                    servers::$story(servers::filled(Implementation::$server), Driver::IoUring);
                }

                #[test]
                #[ignore = "./tests/run installs the server"]
                fn epoll() {
                    servers::$story(servers::filled(Implementation::$server), Driver::Epoll);
                }
            }
        )+}
    };
}

on_every_server!(
    the_server_checks_signatures,
    a_whole_object_is_what_the_server_has,
    every_form_of_range_is_exact,
    a_range_past_the_end_is_416_with_the_size,
    an_empty_object_is_empty_and_has_no_ranges,
    a_missing_key_or_bucket_is_404,
    every_key_that_the_server_takes_comes_back_as_itself,
    conditions_are_evaluated_with_the_servers_validators,
    if_range_decides_between_the_part_and_the_whole,
    a_wrong_secret_is_502_and_an_unknown_access_key_too,
    check_tells_good_credentials_from_bad_ones,
    a_large_body_is_exact,
    an_aborted_client_does_no_harm,
    ranges_at_the_same_time_are_exact,
    samtools_view_finds_regions,
);

const DIGITS: &str = "0123456789";
const BIG_BYTES: usize = (20 << 20) + 123;

/// The genomic files, made once for all servers.
fn files() -> &'static Path {
    static FILES: OnceLock<TempDir> = OnceLock::new();
    let directory = FILES.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_bam(&directory.path().join("reads.bam"), 20_000).expect("a BAM");
        directory
    });
    directory.path()
}

fn filled(implementation: Implementation) -> &'static RealS3 {
    running(implementation, || {
        let file = |name: &str| fs::read(files().join(name)).expect("a file made before");
        let own = [
            ("digits.txt", DIGITS.into()),
            ("empty", Vec::new()),
            ("big.bam", synthetic_bytes(0, BIG_BYTES)),
            ("run 7/reads.bam", file("reads.bam")),
            ("run 7/reads.bam.bai", file("reads.bam.bai")),
        ];
        let own = own.into_iter().map(|(key, bytes)| (key.to_owned(), bytes));
        own.chain(torture_list().into_iter().map(|key| (key.clone(), content_of(&key)))).collect()
    })
}

/// The content of a key of the torture list.
fn content_of(key: &str) -> Vec<u8> {
    format!("stored under {key:?}").into_bytes()
}

fn proxy_over(s3: &RealS3, driver: Driver) -> Proxy {
    s3.config(driver).start()
}

fn the_server_checks_signatures(s3: &RealS3, _driver: Driver) {
    let good = s3.get("digits.txt");
    assert_eq!((good.status, good.body.as_slice()), (200, DIGITS.as_bytes()), "{good:?}");
    let forged = s3.get_with_secret("digits.txt", "wrong");
    assert_eq!(forged.status, 403, "{forged:?}");
    assert!(!String::from_utf8_lossy(&forged.body).contains(DIGITS), "{forged:?}");
    // 403 at AWS, and 400 at Swift, which also has APIs other than S3's.
    let unsigned = s3.get_unsigned("digits.txt");
    assert!(matches!(unsigned.status, 400 | 401 | 403), "{unsigned:?}");
}

fn a_whole_object_is_what_the_server_has(s3: &RealS3, driver: Driver) {
    let proxy = proxy_over(s3, driver);
    let direct = s3.get("digits.txt");
    for method in ["GET", "HEAD", "GET"] {
        let response = request(&proxy, method, "/files/digits.txt", &[]);
        response.assert(200, if method == "GET" { DIGITS } else { "" });
        assert_eq!(response.content_length(), 10);
        assert_eq!(response.field("accept-ranges"), Some("bytes"));
        for name in ["etag", "last-modified", "content-type"] {
            assert!(response.field(name).is_some(), "a {method} without {name}");
            assert_eq!(response.field(name), direct.field(name), "{name} of a {method}");
        }
        let e_tag = response.field("etag").expect("was there");
        assert!(e_tag.len() > 2 && e_tag.starts_with('"') && e_tag.ends_with('"'), "{e_tag}");
    }
}

fn every_form_of_range_is_exact(s3: &RealS3, driver: Driver) {
    let rows = [
        ("bytes=0-0", 0, 0),
        ("bytes=2-4", 2, 4),
        ("bytes=5-", 5, 9),
        ("bytes=0-", 0, 9),
        ("bytes=-1", 9, 9),
        ("bytes=-3", 7, 9),
        ("bytes=-10", 0, 9),
        ("bytes=-11", 0, 9),
        ("bytes=0-9", 0, 9),
        ("bytes=8-99999", 8, 9),
    ];
    let whole = s3.get("digits.txt");
    for (range, first, last) in rows {
        // A new proxy each time: the first response is a cache miss.
        let proxy = proxy_over(s3, driver);
        for _ in 0..2 {
            let response = get_range(&proxy, "/files/digits.txt", range);
            response.assert(206, &DIGITS[first..=last]);
            let content_range = format!("bytes {first}-{last}/10");
            assert_eq!(response.field("content-range"), Some(content_range.as_str()), "{range}");
            assert_eq!(response.field("etag"), whole.field("etag"), "{range}");
            assert_eq!(response.field("last-modified"), whole.field("last-modified"), "{range}");
        }
    }
    let proxy = proxy_over(s3, driver);
    for ignored in ["bytes=0-1,4-5", "bytes=4-2", "lines=0-1"] {
        get_range(&proxy, "/files/digits.txt", ignored).assert(200, DIGITS);
    }
}

fn a_range_past_the_end_is_416_with_the_size(s3: &RealS3, driver: Driver) {
    for range in ["bytes=10-", "bytes=10-10", "bytes=11-20", "bytes=-0"] {
        let proxy = proxy_over(s3, driver);
        for _ in 0..2 {
            let response = get_range(&proxy, "/files/digits.txt", range);
            response.assert_error(416);
            assert_eq!(response.field("content-range"), Some("bytes */10"), "{range}");
        }
    }
}

fn an_empty_object_is_empty_and_has_no_ranges(s3: &RealS3, driver: Driver) {
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let proxy = proxy_over(s3, driver);
        for _ in 0..2 {
            let response = get_range(&proxy, "/files/empty", range);
            response.assert_error(416);
            assert_eq!(response.field("content-range"), Some("bytes */0"), "{range}");
        }
    }
    let proxy = proxy_over(s3, driver);
    for response in [get(&proxy, "/files/empty"), head(&proxy, "/files/empty")] {
        response.assert(200, "");
        assert_eq!(response.content_length(), 0);
    }
}

fn a_missing_key_or_bucket_is_404(s3: &RealS3, driver: Driver) {
    let proxy = proxy_over(s3, driver);
    assert_eq!(head(&proxy, "/files/missing.bam.csi").status, 404);
    get(&proxy, "/files/missing.bam").assert_error(404);
    get_range(&proxy, "/files/missing.bam.bai", "bytes=0-9").assert_error(404);
    let proxy = s3.config(driver).set("bucket_name", "there-is-no-such-bucket").start();
    get(&proxy, "/files/digits.txt").assert_error(404);
    assert_eq!(head(&proxy, "/files/another.txt").status, 404);
}

fn every_key_that_the_server_takes_comes_back_as_itself(s3: &RealS3, driver: Driver) {
    let proxy = proxy_over(s3, driver);
    let mut client = Client::connect(&proxy);
    for key in torture_list().iter().filter(|&key| !s3.refused_keys.contains(key)) {
        let (target, expected) = (format!("/files/{}", encode(key)), content_of(key));
        let length = client.request("HEAD", &target, &[]).content_length();
        assert_eq!(length, expected.len() as u64, "HEAD {target}");
        let response = client.request("GET", &target, &[]);
        assert_eq!(response.text(), String::from_utf8_lossy(&expected), "GET {target}");
        response.assert(200, &expected);
        client.request("GET", &target, &[("Range", "bytes=0-5")]).assert(206, "stored");
    }
    let refused: Vec<&str> = s3.refused_keys.iter().map(String::as_str).collect();
    let unexpected: Vec<_> =
        refused.iter().filter(|key| !may_refuse(s3.implementation, key)).collect();
    assert!(unexpected.is_empty(), "{:?} does not give back {unexpected:?}", s3.implementation);
}

/// Whether a server is known not to return the object of this key even to curl: deviations from AWS
/// that the proxy cannot mend.
fn may_refuse(implementation: Implementation, key: &str) -> bool {
    match implementation {
        // Truncates a key at its first line feed.
        Implementation::Moto | Implementation::MotoTls => key.contains('\n'),
        Implementation::Swift => false,
        Implementation::Garage => false,
    }
}

fn conditions_are_evaluated_with_the_servers_validators(s3: &RealS3, driver: Driver) {
    let direct = s3.get("digits.txt");
    let e_tag = direct.field("etag").expect("an ETag");
    let modified = direct.field("last-modified").expect("a date");
    let rows = [
        ("If-None-Match", e_tag, 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"another\"", 200),
        ("If-Match", e_tag, 200),
        ("If-Match", "*", 200),
        ("If-Match", "\"another\"", 412),
        ("If-Modified-Since", modified, 304),
        ("If-Modified-Since", "Thu, 29 Feb 2024 12:30:45 GMT", 200),
        ("If-Unmodified-Since", modified, 200),
        ("If-Unmodified-Since", "Thu, 29 Feb 2024 12:30:45 GMT", 412),
    ];
    for (name, value, status) in rows {
        for method in ["GET", "HEAD"] {
            let proxy = proxy_over(s3, driver);
            for _ in 0..2 {
                let response = request(&proxy, method, "/files/digits.txt", &[(name, value)]);
                assert_eq!(response.status, status, "{method} with {name}: {value}");
                if status < 400 {
                    assert_eq!(response.field("etag"), Some(e_tag), "{method} with {name}");
                    // moto's 304 has no `Last-Modified`, which is optional beside an ETag.
                    let date = response.field("last-modified");
                    let left_out = status == 304 && date.is_none();
                    assert!(left_out || date == Some(modified), "{method} with {name}: {date:?}");
                }
            }
        }
    }
    let proxy = proxy_over(s3, driver);
    let fields = [("Range", "bytes=2-4"), ("If-None-Match", e_tag)];
    assert_eq!(request(&proxy, "GET", "/files/digits.txt", &fields).status, 304);
    let fields = [("Range", "bytes=2-4"), ("If-Match", e_tag)];
    request(&proxy, "GET", "/files/digits.txt", &fields).assert(206, "234");
}

fn if_range_decides_between_the_part_and_the_whole(s3: &RealS3, driver: Driver) {
    let direct = s3.get("digits.txt");
    let rows = [
        (direct.field("etag").expect("an ETag"), true),
        ("\"another\"", false),
        ("Thu, 29 Feb 2024 12:30:45 GMT", false),
    ];
    for (validator, matches) in rows {
        let proxy = proxy_over(s3, driver);
        for _ in 0..2 {
            let fields = [("Range", "bytes=2-4"), ("If-Range", validator)];
            let response = request(&proxy, "GET", "/files/digits.txt", &fields);
            let (status, body) = if matches { (206, "234") } else { (200, DIGITS) };
            response.assert(status, body);
            let fields = [("Range", "bytes=10-"), ("If-Range", validator)];
            let response = request(&proxy, "GET", "/files/digits.txt", &fields);
            assert_eq!(response.status, if matches { 416 } else { 200 }, "If-Range: {validator}");
        }
    }
}

fn a_wrong_secret_is_502_and_an_unknown_access_key_too(s3: &RealS3, driver: Driver) {
    for (name, value) in
        [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "AKIANOSUCHKEYATALL00")]
    {
        let proxy = s3.config(driver).set(name, value).start();
        get(&proxy, "/files/digits.txt").assert_error(502);
        get_range(&proxy, "/files/digits.txt", "bytes=2-4").assert_error(502);
        assert_eq!(head(&proxy, "/files/digits.txt").status, 502, "HEAD with a wrong {name}");
        assert_eq!(head(&proxy, "/files/missing").status, 502, "HEAD with a wrong {name}");
        let log = proxy.stderr();
        assert!(log.contains("check the access key id"), "the operator is told why: {log}");
    }
}

fn check_tells_good_credentials_from_bad_ones(s3: &RealS3, driver: Driver) {
    let config = s3.config(driver);
    let good = Process::with_config(&config.yaml()).argument("--check").run();
    assert_eq!(good.code, 0, "{good:?}");
    let config = config.set("AWS_SECRET_ACCESS_KEY", "wrong");
    let bad = Process::with_config(&config.yaml()).argument("--check").run();
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.stdout.contains("the credentials are refused"), "{bad:?}");
}

fn a_large_body_is_exact(s3: &RealS3, driver: Driver) {
    let proxy = proxy_over(s3, driver);
    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        let response = client.request("GET", "/files/big.bam", &[]);
        response.assert(200, synthetic_bytes(0, BIG_BYTES));
    }
    // Lengths near `splice_threshold`.
    for length in [1, 65_536, 131_071, 131_072, 131_073, 9_000_001] {
        let range = format!("bytes=1000003-{}", 1_000_003 + length - 1);
        let response = client.request("GET", "/files/big.bam", &[("Range", &range)]);
        response.assert(206, synthetic_bytes(1_000_003, length));
    }
    let response = client.request("GET", "/files/big.bam", &[("Range", "bytes=-300000")]);
    response.assert(206, synthetic_bytes((BIG_BYTES - 300_000) as u64, 300_000));
}

fn an_aborted_client_does_no_harm(s3: &RealS3, driver: Driver) {
    let proxy = proxy_over(s3, driver);
    for number in 0..20 {
        let mut client = Client::connect(&proxy);
        let fields: &[_] = if number % 2 == 0 { &[] } else { &[("Range", "bytes=1000-")] };
        client.send(request_head("GET", "/files/big.bam", fields));
        let start = if number % 2 == 0 { 0 } else { 1000 };
        assert_eq!(client.head().status, if number % 2 == 0 { 200 } else { 206 });
        assert!(client.exactly(50_000) == synthetic_bytes(start, 50_000));
        drop(client);
        get_range(&proxy, "/files/digits.txt", "bytes=2-4").assert(206, "234");
    }
    let response = get_range(&proxy, "/files/big.bam", "bytes=5000000-7999999");
    response.assert(206, synthetic_bytes(5_000_000, 3_000_000));
}

fn ranges_at_the_same_time_are_exact(s3: &RealS3, driver: Driver) {
    let proxy = proxy_over(s3, driver);
    // The scope propagates a panic of any thread.
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = Client::connect(proxy);
                for turn in 0..8 {
                    let first = (thread * 8 + turn) * 310_007;
                    let length = [100, 20_000, 200_000][(turn % 3) as usize];
                    let range = format!("bytes={first}-{}", first + length - 1);
                    let response = client.request("GET", "/files/big.bam", &[("Range", &range)]);
                    response.assert(206, synthetic_bytes(first, length as usize));
                }
            });
        }
    });
}

fn samtools_view_finds_regions(s3: &RealS3, driver: Driver) {
    let proxy = proxy_over(s3, driver);
    let url = proxy.url_of("/files/run%207/reads.bam");
    // A directory of its own: htslib stores the index there.
    let directory = tempfile::tempdir_in(s3.directory()).expect("a temporary directory");
    for region in ["chr1:1-20000", "chr2:8990000-9000000", "chr3", "chrX:2990000-"] {
        let of_here = run(files(), "samtools", &["view", "--no-PG", "reads.bam", region]);
        let of_there = run(directory.path(), "samtools", &["view", "--no-PG", &url, region]);
        assert!(of_here == of_there, "{region} differs over the proxy");
        assert!(of_here.starts_with(b"FLOWCELL"), "{region} has no reads");
    }
    let missing = proxy.url_of("/files/run%207/missing.bam");
    let (code, _, _) = run_any(directory.path(), "samtools", &["quickcheck", &missing]);
    assert_ne!(code, Some(0));
}
