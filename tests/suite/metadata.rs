//! The metadata cache of one worker: how often S3 gets a request, and that no response is stale for
//! longer than the configuration allows.

use std::time::Duration;

use crate::support::memory_store::TestS3;
use crate::support::object::Object;
use crate::support::proxy::{Config, Driver, Proxy, proxy_over};
use crate::support::raw_http::{Client, get, get_range, head};

both_drivers!(
    a_head_reaches_s3_once_and_is_then_cached,
    a_get_fills_the_cache_for_a_later_head,
    a_ranged_get_caches_the_whole_size,
    a_get_never_costs_an_extra_head,
    a_missing_key_is_cached_for_a_short_time,
    a_forbidden_key_is_cached_too,
    a_cached_object_expires,
    a_ttl_of_zero_asks_s3_every_time,
    an_object_that_changed_replaces_the_cached_entry,
    a_suffix_range_of_a_replaced_object_is_of_the_new_one,
    many_heads_of_one_uncached_key_make_one_s3_request,
    many_heads_of_one_missing_key_make_one_s3_request,
    a_failed_head_does_not_poison_those_that_waited_for_it,
    a_full_cache_still_serves_correctly,
    many_missing_names_take_little_memory_and_push_out_no_object,
);

const TARGET: &str = "/files/reads.bam";

fn a_head_reaches_s3_once_and_is_then_cached(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    for _ in 0..5 {
        let response = head(&proxy, TARGET);
        response.assert(200, "");
        assert_eq!(response.content_length(), 4);
    }
    assert_eq!(s3.server.requests().len(), 1);
    assert_eq!(s3.count("HEAD", "reads.bam"), 1);
}

fn a_get_fills_the_cache_for_a_later_head(driver: Driver) {
    let object =
        Object::new("ACGT").with_content_type("text/x-bases").with_cache_control("max-age=9");
    let e_tag = object.quoted_e_tag();
    let s3 = TestS3::with("reads.bam", object);
    let proxy = proxy_over(driver, &s3);
    get(&proxy, TARGET).assert(200, "ACGT");
    let response = head(&proxy, TARGET);
    response.assert(200, "");
    assert_eq!(response.content_length(), 4);
    assert_eq!(response.field("etag"), Some(e_tag.as_str()));
    assert_eq!(response.field("content-type"), Some("text/x-bases"));
    assert_eq!(response.field("cache-control"), Some("max-age=9"));
    assert_eq!(s3.server.requests().len(), 1);
}

fn a_ranged_get_caches_the_whole_size(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "0123456789");
    let proxy = proxy_over(driver, &s3);
    get_range(&proxy, TARGET, "bytes=3-4").assert(206, "34");
    let response = head(&proxy, TARGET);
    assert_eq!((response.status, response.content_length()), (200, 10));
    assert_eq!(response.field("content-range"), None);
    assert_eq!(s3.server.requests().len(), 1);
}

fn a_get_never_costs_an_extra_head(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "0123456789");
    let proxy = proxy_over(driver, &s3);
    for range in ["bytes=0-1", "bytes=4-", "bytes=-2"] {
        assert_eq!(get_range(&proxy, TARGET, range).status, 206);
    }
    get(&proxy, TARGET).assert(200, "0123456789");
    assert_eq!((s3.count("GET", "reads.bam"), s3.count("HEAD", "reads.bam")), (4, 0));
}

fn a_missing_key_is_cached_for_a_short_time(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = Config::over(driver, &s3).set("metadata_negative_ttl", "1s").start();
    for _ in 0..4 {
        assert_eq!(head(&proxy, TARGET).status, 404);
    }
    get(&proxy, TARGET).assert_error(404);
    assert_eq!(s3.server.requests().len(), 1);
    s3.put("reads.bam", "ACGT");
    std::thread::sleep(Duration::from_millis(1_200));
    get(&proxy, TARGET).assert(200, "ACGT");
}

fn a_forbidden_key_is_cached_too(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    s3.deny("reads.bam");
    let proxy = proxy_over(driver, &s3);
    assert_eq!(head(&proxy, TARGET).status, 403);
    let asked = s3.server.requests().len();
    assert!(asked <= 2, "a HEAD and the one-byte GET that finds out the reason: {asked}");
    assert_eq!(head(&proxy, TARGET).status, 403);
    get(&proxy, TARGET).assert_error(403);
    assert_eq!(s3.server.requests().len(), asked);
}

fn a_cached_object_expires(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "old");
    let proxy = Config::over(driver, &s3).set("metadata_ttl", "1s").start();
    assert_eq!(head(&proxy, TARGET).content_length(), 3);
    s3.put("reads.bam", "newer");
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(head(&proxy, TARGET).content_length(), 5);
    assert_eq!(s3.count("HEAD", "reads.bam"), 2);
}

fn a_ttl_of_zero_asks_s3_every_time(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "old");
    let proxy = Config::over(driver, &s3).set("metadata_ttl", "0s").start();
    assert_eq!(head(&proxy, TARGET).content_length(), 3);
    s3.put("reads.bam", "newer");
    assert_eq!(head(&proxy, TARGET).content_length(), 5);
    s3.delete("reads.bam");
    assert_eq!(head(&proxy, TARGET).status, 404);
    s3.put("reads.bam", "again");
    assert_eq!(head(&proxy, TARGET).status, 200);
    assert_eq!(s3.count("HEAD", "reads.bam"), 4);
}

fn an_object_that_changed_replaces_the_cached_entry(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "old");
    let proxy = proxy_over(driver, &s3);
    assert_eq!(head(&proxy, TARGET).content_length(), 3);
    let newer = Object::new("newer");
    let e_tag = newer.quoted_e_tag();
    s3.put("reads.bam", newer);
    let response = get(&proxy, TARGET);
    response.assert(200, "newer");
    assert_eq!(response.field("etag"), Some(e_tag.as_str()));
    let response = head(&proxy, TARGET);
    assert_eq!(response.content_length(), 5);
    assert_eq!(response.field("etag"), Some(e_tag.as_str()));
    assert_eq!(s3.count("HEAD", "reads.bam"), 1, "the GET has updated the entry");
}

fn a_suffix_range_of_a_replaced_object_is_of_the_new_one(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "0123456789");
    let proxy = proxy_over(driver, &s3);
    get(&proxy, TARGET).assert(200, "0123456789");
    s3.put("reads.bam", "abcdefghijklmnopqrstuvwxyz");
    let response = get_range(&proxy, TARGET, "bytes=-3");
    response.assert(206, "xyz");
    assert_eq!(response.field("content-range"), Some("bytes 23-25/26"));
    s3.put("reads.bam", "short");
    let response = get_range(&proxy, TARGET, "bytes=3-20");
    response.assert(206, "rt");
    assert_eq!(response.field("content-range"), Some("bytes 3-4/5"));
}

/// Statuses of many HEADs for [`TARGET`] sent at the same time.
fn heads_at_once(proxy: &Proxy) -> Vec<u16> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(|| head(proxy, TARGET).status)).collect();
        asking.into_iter().map(|thread| thread.join().expect("a response")).collect()
    })
}

fn many_heads_of_one_uncached_key_make_one_s3_request(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    s3.set_delay(Duration::from_millis(500));
    let proxy = proxy_over(driver, &s3);
    assert_eq!(heads_at_once(&proxy), [200; 16]);
    assert_eq!(s3.server.requests().len(), 1);
}

fn many_heads_of_one_missing_key_make_one_s3_request(driver: Driver) {
    let s3 = TestS3::start();
    s3.set_delay(Duration::from_millis(500));
    let proxy = proxy_over(driver, &s3);
    assert_eq!(heads_at_once(&proxy), [404; 16]);
    assert_eq!(s3.server.requests().len(), 1);
}

fn a_failed_head_does_not_poison_those_that_waited_for_it(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    s3.set_delay(Duration::from_millis(200));
    s3.set_outage(Some(s3s::S3ErrorCode::InternalError));
    let proxy = proxy_over(driver, &s3);
    for status in heads_at_once(&proxy) {
        assert!(status >= 500, "{status} in an outage");
    }
    s3.set_outage(None);
    assert_eq!(heads_at_once(&proxy), [200; 16], "an outage is not cached");
}

fn a_full_cache_still_serves_correctly(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = Config::over(driver, &s3).set("metadata_entries", "16").start();
    for round in 0..2 {
        for number in 1..=100 {
            let key = format!("object-{number}");
            s3.put(&key, vec![b'x'; number]);
            let response = head(&proxy, &format!("/files/{key}"));
            assert_eq!(
                (response.status, response.content_length()),
                (200, number as u64),
                "{round}"
            );
        }
    }
    let asked = s3.server.requests().len();
    assert!(asked > 150, "{asked} requests: more than 16 entries were kept");
}

fn many_missing_names_take_little_memory_and_push_out_no_object(driver: Driver) {
    const MIB: u64 = 1024 * 1024;
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3)
        .set("metadata_entries", "1000")
        .set("metadata_negative_ttl", "5m")
        .start();
    assert_eq!(head(&proxy, TARGET).status, 200);
    let ask = |range: std::ops::Range<usize>| {
        let mut client = Client::connect(&proxy);
        for number in range {
            let response = client.request("HEAD", &format!("/files/{number:0>1000}"), &[]);
            assert_eq!(response.status, 404);
        }
    };
    ask(0..500);
    let before = proxy.rss_bytes();
    std::thread::scope(|scope| {
        for first in [1_000, 4_000, 7_000, 10_000] {
            scope.spawn(move || ask(first..first + 3_000));
        }
    });
    let grown = proxy.rss_bytes().saturating_sub(before);
    assert!(grown < 6 * MIB, "12,000 missing names of 1,000 bytes took {grown} bytes");
    let asked = s3.server.requests().len();
    assert_eq!(head(&proxy, TARGET).status, 200);
    assert_eq!(s3.server.requests().len(), asked, "the object was still cached");
    // The latest of them are still cached too.
    ask(12_900..13_000);
    assert!(s3.server.requests().len() < asked + 100);
}
