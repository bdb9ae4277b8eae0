//! Whole objects and ranges: the rows of README's table about them, on a cache miss and on a hit.

use hyper::header::RANGE;

use crate::support::memory_store::TestS3;
use crate::support::object::{LAST_MODIFIED, Object, synthetic_bytes};
use crate::support::proxy::{Driver, proxy_over};
use crate::support::raw_http::{Response, get, get_range, head, request};

both_drivers!(
    a_whole_object_comes_with_every_field_that_s3_stores,
    a_satisfiable_range_is_206_even_when_it_covers_everything,
    a_range_past_the_end_is_416_with_the_size,
    every_range_of_an_empty_object_is_416,
    anything_but_one_valid_range_is_ignored,
    a_range_that_is_ignored_never_reaches_s3,
    if_range_decides_between_the_part_and_the_whole,
    a_head_with_a_range_describes_the_whole_object,
    offsets_beyond_four_gibibytes_are_exact,
    a_range_over_many_buffers_is_exact,
);

const DIGITS: &str = "0123456789";

/// Asserts 206 with these bytes of [`DIGITS`].
#[track_caller]
fn assert_part(response: &Response, first: usize, last: usize) {
    response.assert(206, &DIGITS[first..=last]);
    let content_range = format!("bytes {first}-{last}/{}", DIGITS.len());
    assert_eq!(response.field("content-range"), Some(content_range.as_str()));
    assert_eq!(response.field("accept-ranges"), Some("bytes"));
    assert_eq!(response.field("etag"), Some(Object::new(DIGITS).quoted_e_tag().as_str()));
    assert_eq!(response.field("last-modified"), Some(LAST_MODIFIED));
}

fn a_whole_object_comes_with_every_field_that_s3_stores(driver: Driver) {
    let object = Object::new(DIGITS)
        .with_content_type("text/x-digits")
        .with_content_encoding("aws-chunked-not")
        .with_cache_control("max-age=60")
        .with_content_disposition("attachment; filename=\"digits.txt\"");
    let e_tag = object.quoted_e_tag();
    let s3 = TestS3::with("digits.txt", object);
    let proxy = proxy_over(driver, &s3);
    for method in ["GET", "HEAD", "GET"] {
        let response = request(&proxy, method, "/files/digits.txt", &[]);
        response.assert(200, if method == "GET" { DIGITS } else { "" });
        assert_eq!(response.content_length(), 10);
        for (name, value) in [
            ("accept-ranges", "bytes"),
            ("etag", e_tag.as_str()),
            ("last-modified", LAST_MODIFIED),
            ("content-type", "text/x-digits"),
            ("content-encoding", "aws-chunked-not"),
            ("cache-control", "max-age=60"),
            ("content-disposition", "attachment; filename=\"digits.txt\""),
        ] {
            assert_eq!(response.field(name), Some(value), "{name} of a {method}");
        }
        assert_eq!(response.field("content-range"), None);
    }
}

fn a_satisfiable_range_is_206_even_when_it_covers_everything(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let rows = [
        ("bytes=0-0", 0, 0),
        ("bytes=2-4", 2, 4),
        ("bytes=9-9", 9, 9),
        ("bytes=5-", 5, 9),
        ("bytes=0-", 0, 9),
        ("bytes=-1", 9, 9),
        ("bytes=-3", 7, 9),
        ("bytes=-10", 0, 9),
        ("bytes=-11", 0, 9),
        ("bytes=0-9", 0, 9),
        ("bytes=0-10", 0, 9),
        ("bytes=8-99999", 8, 9),
        ("bytes=8-18446744073709551616", 8, 9),
        ("Bytes=2-4", 2, 4),
    ];
    for (number, (range, first, last)) in rows.into_iter().enumerate() {
        let key = format!("object-{number}");
        s3.put(&key, DIGITS);
        let target = format!("/files/{key}");
        assert_part(&get_range(&proxy, &target, range), first, last);
        assert_part(&get_range(&proxy, &target, range), first, last);
        assert_eq!(s3.count("GET", &key), 2, "{range} cost other than one request each time");
        assert_eq!(s3.count("HEAD", &key), 0, "{range} cost a HEAD");
    }
}

fn a_range_past_the_end_is_416_with_the_size(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let ranges =
        ["bytes=10-", "bytes=10-10", "bytes=11-20", "bytes=-0", "bytes=99999999999999999999-"];
    for (number, range) in ranges.into_iter().enumerate() {
        let key = format!("object-{number}");
        s3.put(&key, DIGITS);
        let target = format!("/files/{key}");
        for _ in 0..2 {
            let response = get_range(&proxy, &target, range);
            response.assert_error(416);
            assert_eq!(response.field("content-range"), Some("bytes */10"), "{range}");
        }
        get(&proxy, &target).assert(200, DIGITS);
        s3.server.forget();
        assert_eq!(get_range(&proxy, &target, range).field("content-range"), Some("bytes */10"));
        assert_eq!(s3.count("HEAD", &key), 1, "S3 is asked whether the object has grown");
        assert_eq!(s3.server.requests().len(), 1);
    }
}

fn every_range_of_an_empty_object_is_416(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    for (number, range) in ["bytes=0-", "bytes=0-0", "bytes=-1"].into_iter().enumerate() {
        let key = format!("empty-{number}");
        s3.put(&key, "");
        let target = format!("/files/{key}");
        for _ in 0..2 {
            let response = get_range(&proxy, &target, range);
            response.assert_error(416);
            assert_eq!(response.field("content-range"), Some("bytes */0"), "{range}");
        }
        let whole = get(&proxy, &target);
        whole.assert(200, "");
        assert_eq!(whole.content_length(), 0);
    }
}

/// Values of `Range` that RFC 9110 §14.2 lets a server ignore.
const IGNORED: [&str; 14] = [
    "bytes=0-1,4-5",
    "bytes=0-1, -1",
    "bytes=,0-1",
    "bytes=",
    "bytes=-",
    "bytes=4-2",
    "bytes=a-b",
    "bytes=1-2x",
    "bytes=--1",
    "bytes=0x1-2",
    "bytes",
    "bytes 0-1",
    "lines=0-1",
    "0-1",
];

fn anything_but_one_valid_range_is_ignored(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    for (number, range) in IGNORED.into_iter().enumerate() {
        let key = format!("object-{number}");
        s3.put(&key, DIGITS);
        for _ in 0..2 {
            let response = get_range(&proxy, &format!("/files/{key}"), range);
            response.assert(200, DIGITS);
            assert_eq!(response.field("content-range"), None, "{range}");
        }
    }
}

fn a_range_that_is_ignored_never_reaches_s3(driver: Driver) {
    let s3 = TestS3::with("digits", DIGITS);
    let proxy = proxy_over(driver, &s3);
    for range in IGNORED {
        get_range(&proxy, "/files/digits", range);
    }
    for seen in s3.server.requests() {
        assert_eq!(seen.field(RANGE), None);
    }
}

fn if_range_decides_between_the_part_and_the_whole(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let e_tag = Object::new(DIGITS).quoted_e_tag();
    let weak = format!("W/{e_tag}");
    let rows = [
        (e_tag.as_str(), true),
        ("\"another\"", false),
        (weak.as_str(), false),
        (LAST_MODIFIED, true),
        ("Thu, 29 Feb 2024 12:30:46 GMT", false),
        ("Thu, 29 Feb 2024 12:30:44 GMT", false),
        ("no validator at all", false),
    ];
    for (number, (validator, matches)) in rows.into_iter().enumerate() {
        let key = format!("object-{number}");
        s3.put(&key, DIGITS);
        let target = format!("/files/{key}");
        for _ in 0..2 {
            let fields = [("Range", "bytes=2-4"), ("If-Range", validator)];
            let response = request(&proxy, "GET", &target, &fields);
            if matches {
                assert_part(&response, 2, 4);
            } else {
                response.assert(200, DIGITS);
            }
        }
        // An unsatisfiable range is evaluated only if the validator matches.
        let fields = [("Range", "bytes=10-"), ("If-Range", validator)];
        let response = request(&proxy, "GET", &target, &fields);
        assert_eq!(response.status, if matches { 416 } else { 200 }, "If-Range: {validator}");
        request(&proxy, "GET", &target, &[("If-Range", validator)]).assert(200, DIGITS);
    }
}

fn a_head_with_a_range_describes_the_whole_object(driver: Driver) {
    let s3 = TestS3::with("digits", DIGITS);
    let proxy = proxy_over(driver, &s3);
    for range in ["bytes=2-4", "bytes=10-", "bytes=-3"] {
        let response = request(&proxy, "HEAD", "/files/digits", &[("Range", range)]);
        response.assert(200, "");
        assert_eq!(response.content_length(), 10, "RFC 9110 §14.2: Range is for GET");
    }
}

fn offsets_beyond_four_gibibytes_are_exact(driver: Driver) {
    let size = 6 << 30;
    let s3 = TestS3::with("genome.bam", Object::synthetic(size));
    let proxy = proxy_over(driver, &s3);
    let first = (5_u64 << 30) + 12_345;
    let range = format!("bytes={first}-{}", first + 99_999);
    let response = get_range(&proxy, "/files/genome.bam", &range);
    response.assert(206, synthetic_bytes(first, 100_000));
    let content_range = format!("bytes {first}-{}/{size}", first + 99_999);
    assert_eq!(response.field("content-range"), Some(content_range.as_str()));
    assert_eq!(head(&proxy, "/files/genome.bam").content_length(), size);
}

fn a_range_over_many_buffers_is_exact(driver: Driver) {
    let s3 = TestS3::with("genome.bam", Object::synthetic(32 << 20));
    let proxy = proxy_over(driver, &s3);
    // Lengths near the sizes of buffers.
    for length in [1, 4095, 4096, 65_535, 65_536, 65_537, 69_632, 262_145, 9_000_001] {
        let first = 1_000_003;
        let range = format!("bytes={first}-{}", first + length as u64 - 1);
        let response = get_range(&proxy, "/files/genome.bam", &range);
        response.assert(206, synthetic_bytes(first, length));
    }
}
