//! Conditional requests (RFC 9110 §13): 304 and 412, on a cache miss and on a hit.

use hyper::header::{IF_MATCH, IF_NONE_MATCH};

use crate::support::memory_store::TestS3;
use crate::support::object::{LAST_MODIFIED, Object};
use crate::support::proxy::{Config, Driver, proxy_over};
use crate::support::raw_http::{Client, get, request};
use crate::support::scripted_upstream::{ScriptedUpstream, ok, ok_head, s3_error};

both_drivers!(
    every_condition_is_evaluated_the_same_on_a_cache_miss_and_a_hit,
    all_combinations_of_conditions_are_evaluated_in_the_order_of_rfc_9110,
    a_server_that_looks_at_the_range_first_does_not_change_the_order,
    conditions_of_any_size_are_evaluated_by_the_proxy,
    a_cached_object_needs_no_s3_for_304_and_is_checked_before_412,
    a_304_carries_the_validators_and_leaves_the_connection_open,
    a_412_is_one_line_and_leaves_the_connection_open,
);

const TEXT: &str = "ACGTACGTAC";
const BEFORE: &str = "Thu, 29 Feb 2024 12:30:44 GMT";
const AFTER: &str = "Thu, 29 Feb 2024 12:30:46 GMT";

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// Conditions and the resulting status; `tag` is the object's entity tag.
fn rows<'a>(tag: &'a str, weak: &'a str, list: &'a str) -> Vec<(Fields<'a>, u16)> {
    vec![
        (vec![("If-None-Match", tag)], 304),
        (vec![("If-None-Match", weak)], 304),
        (vec![("If-None-Match", list)], 304),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", "\"other\"")], 200),
        (vec![("If-Modified-Since", LAST_MODIFIED)], 304),
        (vec![("If-Modified-Since", AFTER)], 304),
        (vec![("If-Modified-Since", BEFORE)], 200),
        (vec![("If-Modified-Since", "yesterday")], 200),
        (vec![("If-Match", tag)], 200),
        (vec![("If-Match", list)], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", "\"other\"")], 412),
        // A weak tag never matches strongly (RFC 9110 §8.8.3.2).
        (vec![("If-Match", weak)], 412),
        (vec![("If-Unmodified-Since", LAST_MODIFIED)], 200),
        (vec![("If-Unmodified-Since", AFTER)], 200),
        (vec![("If-Unmodified-Since", BEFORE)], 412),
        (vec![("If-Unmodified-Since", "yesterday")], 200),
        // Precedence (RFC 9110 §13.2.2): a tag outweighs its date.
        (vec![("If-Match", tag), ("If-Unmodified-Since", BEFORE)], 200),
        (vec![("If-None-Match", "\"other\""), ("If-Modified-Since", LAST_MODIFIED)], 200),
        (vec![("If-None-Match", tag), ("If-Modified-Since", BEFORE)], 304),
        (vec![("If-Match", "\"other\""), ("If-None-Match", tag)], 412),
        (vec![("If-Match", tag), ("If-None-Match", tag)], 304),
        (vec![("If-Unmodified-Since", BEFORE), ("If-Modified-Since", AFTER)], 412),
        // The range is evaluated last.
        (vec![("Range", "bytes=0-3"), ("If-None-Match", tag)], 304),
        (vec![("Range", "bytes=0-3"), ("If-None-Match", list)], 304),
        (vec![("Range", "bytes=0-3"), ("If-Match", "\"other\"")], 412),
        (vec![("Range", "bytes=0-3"), ("If-Match", tag)], 206),
        (vec![("Range", "bytes=10-"), ("If-None-Match", tag)], 304),
        (vec![("Range", "bytes=10-"), ("If-Match", "\"other\"")], 412),
    ]
}

/// Runs `check` for every row, and each row for GET and HEAD, under a key of its own.
fn for_each_row(s3: &TestS3, mut check: impl FnMut(&str, &str, &[(&str, &str)], u16)) {
    let tag = Object::new(TEXT).quoted_e_tag();
    let (weak, list) = (format!("W/{tag}"), format!("\"x\", {tag}, \"y\""));
    for method in ["GET", "HEAD"] {
        for (number, (fields, status)) in rows(&tag, &weak, &list).into_iter().enumerate() {
            let key = format!("{method}-{number}");
            s3.put(&key, Object::new(TEXT).with_cache_control("max-age=60"));
            let status = if method == "HEAD" && status == 206 { 200 } else { status };
            check(method, &format!("/files/{key}"), &fields, status);
        }
    }
}

fn every_condition_is_evaluated_the_same_on_a_cache_miss_and_a_hit(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    for_each_row(&s3, |method, target, fields, status| {
        for cache in ["miss", "hit"] {
            let response = request(&proxy, method, target, fields);
            let story = format!("{method} with {fields:?}, cache {cache}");
            assert_eq!(response.status, status, "{story}");
            match (method, status) {
                ("GET", 200) => response.assert(200, TEXT),
                ("GET", 206) => response.assert(206, &TEXT[..4]),
                ("GET", 412) => response.assert_error(412),
                _ => response.assert(status, ""),
            }
        }
    });
}

/// RFC 9110 §13.2.2, implemented independently of the proxy. `None` is a field that is not sent;
/// for a tag field the flag says whether it matches, for a date field whether the object is as old
/// or older.
fn expected(
    if_match: Option<bool>,
    if_unmodified_since: Option<bool>,
    if_none_match: Option<bool>,
    if_modified_since: Option<bool>,
    range: Option<bool>,
) -> u16 {
    if !if_match.or(if_unmodified_since).unwrap_or(true) {
        return 412;
    }
    if if_none_match.or(if_modified_since).unwrap_or(false) {
        return 304;
    }
    range.map_or(200, |satisfiable| if satisfiable { 206 } else { 416 })
}

fn all_combinations_of_conditions_are_evaluated_in_the_order_of_rfc_9110(driver: Driver) {
    let tag = Object::new(TEXT).quoted_e_tag();
    let (weak, list) = (format!("W/{tag}"), format!("\"x\", {tag}, \"y\""));
    let long = format!("\"{}\", {tag}", "x".repeat(5_000));
    // Each with its result of the strong and the weak comparison.
    let tags = [
        None,
        Some((tag.as_str(), true, true)),
        Some((&list, true, true)),
        Some((&long, true, true)),
        Some((&weak, false, true)),
        Some(("*", true, true)),
        Some(("\"x\"", false, false)),
        Some(("\"x\", \"y\"", false, false)),
    ];
    let dates =
        [None, Some((BEFORE, Some(false))), Some((AFTER, Some(true))), Some(("yesterday", None))];
    let ranges = [None, Some(("bytes=0-3", true)), Some(("bytes=10-", false))];
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let mut client = Client::connect(&proxy);
    for (number, (a, b, c)) in (0..8 * 8 * 3).map(|n| (n / 24, n / 3 % 8, n % 3)).enumerate() {
        // Over all turns, every pair of dates.
        for turn in [number, number + 7, number + 14] {
            let (until, since) = (dates[turn % 4], dates[turn / 4 % 4]);
            let mut fields = Vec::new();
            fields.extend(tags[a].map(|(value, ..)| ("If-Match", value)));
            fields.extend(until.map(|(value, _)| ("If-Unmodified-Since", value)));
            fields.extend(tags[b].map(|(value, ..)| ("If-None-Match", value)));
            fields.extend(since.map(|(value, _)| ("If-Modified-Since", value)));
            fields.extend(ranges[c].map(|(value, _)| ("Range", value)));
            let expected = |range: Option<bool>| {
                expected(
                    tags[a].map(|(_, strongly, _)| strongly),
                    until.and_then(|(_, holds)| holds),
                    tags[b].map(|(_, _, weakly)| weakly),
                    since.and_then(|(_, holds)| holds),
                    range,
                )
            };
            for method in ["GET", "HEAD"] {
                let key = format!("{method}-{number}-{turn}");
                s3.put(&key, TEXT);
                let range = ranges[c].map(|(_, satisfiable)| satisfiable);
                let status = expected(range.filter(|_| method == "GET"));
                for cache in ["miss", "hit"] {
                    let response = client.request(method, &format!("/files/{key}"), &fields);
                    assert_eq!(response.status, status, "{method}, cache {cache}: {fields:?}");
                }
            }
        }
    }
}

/// A server with an object of ten bytes that evaluates the range before conditions.
fn range_first() -> ScriptedUpstream {
    ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            let head = peer.last_head();
            match head.contains("\r\nRange: bytes=10-") {
                true => peer.send(s3_error("416 Range Not Satisfiable", "InvalidRange")),
                false if head.starts_with("HEAD") => peer.send(ok_head(TEXT.len())),
                false => peer.send(ok(TEXT)),
            }
        }
    })
}

fn a_server_that_looks_at_the_range_first_does_not_change_the_order(driver: Driver) {
    const TAG: &str = "\"0123456789abcdef\"";
    let upstream = range_first();
    for (name, value, status) in [
        ("If-None-Match", TAG, 304),
        ("If-None-Match", "\"x\"", 416),
        ("If-Match", "\"x\"", 412),
        ("If-Match", TAG, 416),
        ("If-Modified-Since", AFTER, 304),
        ("If-Unmodified-Since", BEFORE, 412),
        ("If-Range", TAG, 416),
        ("If-Range", "\"x\"", 200),
    ] {
        let proxy = Config::new(driver, &upstream.endpoint()).start();
        let fields = [("Range", "bytes=10-"), (name, value)];
        let response = request(&proxy, "GET", "/files/reads.bam", &fields);
        assert_eq!(response.status, status, "{name}: {value}");
        if status == 416 {
            assert_eq!(response.field("content-range"), Some("bytes */10"));
        }
    }
}

fn conditions_of_any_size_are_evaluated_by_the_proxy(driver: Driver) {
    let s3 = TestS3::with("reads.bam", TEXT);
    let (other, tag) = (format!("\"{}\"", "x".repeat(9_000)), Object::new(TEXT).quoted_e_tag());
    let both = format!("{other}, {tag}");
    for (name, value, status) in [
        ("If-None-Match", &other, 200),
        ("If-None-Match", &both, 304),
        ("If-Match", &other, 412),
        ("If-Match", &both, 200),
        ("If-Range", &other, 200),
    ] {
        let proxy = proxy_over(driver, &s3);
        for method in ["GET", "HEAD", "GET"] {
            let response = request(&proxy, method, "/files/reads.bam", &[(name, value)]);
            assert_eq!(response.status, status, "{method} with a long {name}");
        }
    }
    // S3 rejects a request head of more than 8 KiB.
    for name in [IF_MATCH, IF_NONE_MATCH] {
        let asked = s3.server.requests();
        assert!(asked.iter().all(|request| request.field(name.clone()).is_none()), "{asked:?}");
    }
}

fn a_cached_object_needs_no_s3_for_304_and_is_checked_before_412(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    for_each_row(&s3, |method, target, fields, status| {
        get(&proxy, target).assert(200, TEXT);
        s3.server.forget();
        assert_eq!(request(&proxy, method, target, fields).status, status, "{fields:?}");
        let refuses = status == 412 || (status == 200 && fields.iter().any(|f| f.0 == "If-Range"));
        let needed = match method {
            "GET" => usize::from(refuses) + usize::from(status == 200 || status == 206),
            _ => usize::from(status == 412),
        };
        assert_eq!(s3.server.requests().len(), needed, "{method} with {fields:?}");
    });
}

fn a_304_carries_the_validators_and_leaves_the_connection_open(driver: Driver) {
    let object = Object::new(TEXT).with_cache_control("max-age=60");
    let tag = object.quoted_e_tag();
    let s3 = TestS3::with("reads.bam", object);
    let proxy = proxy_over(driver, &s3);
    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        let response = client.request("GET", "/files/reads.bam", &[("If-None-Match", &tag)]);
        response.assert(304, "");
        assert_eq!(response.field("etag"), Some(tag.as_str()));
        assert_eq!(response.field("last-modified"), Some(LAST_MODIFIED));
        assert_eq!(response.field("cache-control"), Some("max-age=60"));
        assert!(matches!(response.field("content-length"), None | Some("10")), "RFC 9110 §8.6");
    }
    client.assert_open();
}

fn a_412_is_one_line_and_leaves_the_connection_open(driver: Driver) {
    let s3 = TestS3::with("reads.bam", TEXT);
    let proxy = proxy_over(driver, &s3);
    let mut client = Client::connect(&proxy);
    for _ in 0..2 {
        let response = client.request("GET", "/files/reads.bam", &[("If-Match", "\"other\"")]);
        response.assert_error(412);
    }
    let response = client.request("HEAD", "/files/reads.bam", &[("If-Match", "\"other\"")]);
    assert_eq!((response.status, response.field("content-length")), (412, None));
    client.assert_open();
}
