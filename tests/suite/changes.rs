//! Objects that are replaced, deleted or created while the proxy runs. After one
//! response has shown the change, no later one contradicts it, on any worker and for any method.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::object::Object;
use crate::support::proxy::{Config, Driver, Proxy, proxy_over};
use crate::support::raw_http::{Client, Response, get, get_range, head, request, request_head};
use crate::support::scripted_upstream::{ScriptedUpstream, ok, s3_error};

both_drivers!(
    a_get_of_a_replaced_object_tells_all_workers,
    a_worker_without_the_old_entry_still_invalidates_the_others,
    a_deletion_tells_all_workers,
    a_creation_tells_all_workers,
    a_replaced_version_of_a_versioned_object_is_seen_by_all,
    a_412_from_memory_asks_s3_first,
    a_416_from_memory_asks_s3_first,
    a_failed_if_range_from_memory_asks_s3_first,
    a_copy_with_no_cache_is_validated_by_s3,
    a_412_of_s3_invalidates_the_entry,
    a_304_of_s3_updates_the_entry,
    a_client_with_no_cache_gets_metadata_of_at_most_five_seconds,
    a_client_with_max_age_0_has_a_missing_key_looked_up_again,
    an_overtaken_response_does_not_bring_the_old_object_back,
    a_body_that_cannot_be_resumed_invalidates_its_entry,
);

const TARGET: &str = "/files/reads.bam";
const WORKERS: &str = "4";
/// Enough that each worker gets at least one, except once in a million runs.
const CONNECTIONS: usize = 60;

fn workers_over(driver: Driver, s3: &TestS3) -> Proxy {
    Config::over(driver, s3).set("workers", WORKERS).start()
}

/// Connections to all workers.
fn connections(proxy: &Proxy) -> Vec<Client> {
    (0..CONNECTIONS).map(|_| Client::connect(proxy)).collect()
}

/// The response to HEAD on every connection: status and length.
fn heads(clients: &mut [Client]) -> Vec<(u16, u64)> {
    let mut told: Vec<_> = clients
        .iter_mut()
        .map(|client| client.request("HEAD", TARGET, &[]))
        .map(|response| match response.status {
            200 => (200, response.content_length()),
            failed => (failed, 0),
        })
        .collect();
    told.dedup();
    told
}

fn a_get_of_a_replaced_object_tells_all_workers(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "old");
    let proxy = workers_over(driver, &s3);
    let mut clients = connections(&proxy);
    assert_eq!(heads(&mut clients), [(200, 3)]);
    for (round, size) in (10..14).enumerate() {
        let newer = Object::new(vec![b'n'; size]);
        let tag = newer.quoted_e_tag();
        s3.put("reads.bam", newer);
        let range = format!("bytes={}-", size - 1);
        let response = clients[round].request("GET", TARGET, &[("Range", &range)]);
        response.assert(206, "n");
        assert_eq!(heads(&mut clients), [(200, size as u64)], "round {round}");
        for client in &mut clients {
            client.request("GET", TARGET, &[("If-Match", &tag)]).assert(200, vec![b'n'; size]);
            client.request("HEAD", TARGET, &[("If-None-Match", &tag)]).assert(304, "");
        }
    }
    let asked = s3.count("HEAD", "reads.bam");
    assert!(asked <= 4 * 5, "{asked} HEADs: each worker sends one for each change");
}

fn a_worker_without_the_old_entry_still_invalidates_the_others(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "old");
    let proxy = workers_over(driver, &s3);
    let mut knows = Client::connect(&proxy);
    assert_eq!(knows.request("HEAD", TARGET, &[]).content_length(), 3);
    for (round, mut other) in connections(&proxy).into_iter().enumerate() {
        let size = 10 + round;
        s3.put("reads.bam", vec![b'n'; size]);
        let response = other.request("GET", TARGET, &[("Range", "bytes=0-0")]);
        response.assert(206, "n");
        assert_eq!(knows.request("HEAD", TARGET, &[]).content_length(), size as u64);
    }
}

fn a_deletion_tells_all_workers(driver: Driver) {
    for method in ["GET", "HEAD"] {
        let s3 = TestS3::with("reads.bam", "old");
        let proxy = workers_over(driver, &s3);
        let mut clients = connections(&proxy);
        assert_eq!(heads(&mut clients), [(200, 3)]);
        s3.delete("reads.bam");
        // A plain HEAD may get the cached old object, one with `no-cache` may not.
        std::thread::sleep(Duration::from_millis(5_100));
        let fields = [("Cache-Control", "no-cache")];
        assert_eq!(clients[0].request(method, TARGET, &fields).status, 404, "{method}");
        assert_eq!(heads(&mut clients), [(404, 0)], "{method}");
    }
}

fn a_creation_tells_all_workers(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = Config::over(driver, &s3)
        .set("workers", WORKERS)
        .set("metadata_negative_ttl", "5m")
        .start();
    let mut clients = connections(&proxy);
    assert_eq!(heads(&mut clients), [(404, 0)]);
    s3.put("reads.bam", "new");
    assert_eq!(heads(&mut clients), [(404, 0)], "remembered");
    std::thread::sleep(Duration::from_millis(5_100));
    clients[0].request("GET", TARGET, &[("Pragma", "no-cache")]).assert(200, "new");
    assert_eq!(heads(&mut clients), [(200, 3)]);
}

fn a_replaced_version_of_a_versioned_object_is_seen_by_all(driver: Driver) {
    let s3 = TestS3::start();
    s3.put_version("reads.bam", "v1", "old");
    let proxy =
        Config::over(driver, &s3).set("workers", WORKERS).set("allow_version_id", "true").start();
    let mut clients = connections(&proxy);
    assert_eq!(heads(&mut clients), [(200, 3)]);
    s3.put_version("reads.bam", "v2", "newer");
    clients[0].request("GET", TARGET, &[]).assert(200, "newer");
    assert_eq!(heads(&mut clients), [(200, 5)]);
    for client in &mut clients {
        let response = client.request("HEAD", "/files/reads.bam?versionId=v1", &[]);
        assert_eq!((response.status, response.content_length()), (200, 3));
        assert_eq!(response.field("x-amz-version-id"), Some("v1"));
    }
}

/// Replaces a cached object by a larger one, and returns the new `ETag`.
fn replaced(s3: &TestS3, proxy: &Proxy) -> String {
    s3.put("reads.bam", "old");
    std::thread::sleep(Duration::from_millis(20));
    get(proxy, TARGET).assert(200, "old");
    let newer = Object::new("newer");
    let tag = newer.quoted_e_tag();
    s3.put("reads.bam", newer);
    tag
}

fn assert_is_new(response: &Response, tag: &str) {
    assert_eq!((response.status, response.content_length()), (200, 5));
    assert_eq!(response.field("etag"), Some(tag));
}

fn a_412_from_memory_asks_s3_first(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = Config::over(driver, &s3).set("metadata_negative_ttl", "0s").start();
    for method in ["GET", "HEAD"] {
        let tag = replaced(&s3, &proxy);
        let list = format!("\"other\", {tag}");
        assert_is_new(&request(&proxy, method, TARGET, &[("If-Match", &tag)]), &tag);
        assert_is_new(&head(&proxy, TARGET), &tag);
        let tag = replaced(&s3, &proxy);
        assert_is_new(&request(&proxy, method, TARGET, &[("If-Match", &list)]), &tag);
        assert_is_new(&head(&proxy, TARGET), &tag);
        // The old tag is rejected, correctly.
        assert_eq!(request(&proxy, method, TARGET, &[("If-Match", "\"other\"")]).status, 412);
        s3.delete("reads.bam");
        assert_eq!(request(&proxy, method, TARGET, &[("If-Match", "\"other\"")]).status, 404);
        assert_eq!(head(&proxy, TARGET).status, 404);
    }
}

fn a_416_from_memory_asks_s3_first(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let tag = replaced(&s3, &proxy);
    get_range(&proxy, TARGET, "bytes=3-").assert(206, "er");
    assert_is_new(&head(&proxy, TARGET), &tag);
    s3.put("reads.bam", "");
    assert_eq!(get_range(&proxy, TARGET, "bytes=3-").field("content-range"), Some("bytes */0"));
    assert_eq!(head(&proxy, TARGET).content_length(), 0);
    s3.put("reads.bam", "again");
    get_range(&proxy, TARGET, "bytes=0-").assert(206, "again");
    s3.delete("reads.bam");
    get_range(&proxy, TARGET, "bytes=9-").assert_error(404);
    assert_eq!(head(&proxy, TARGET).status, 404);
}

fn a_failed_if_range_from_memory_asks_s3_first(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let tag = replaced(&s3, &proxy);
    let fields = [("Range", "bytes=0-1"), ("If-Range", tag.as_str())];
    request(&proxy, "GET", TARGET, &fields).assert(206, "ne");
    assert_is_new(&head(&proxy, TARGET), &tag);
}

fn a_copy_with_no_cache_is_validated_by_s3(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let old = Object::new("old").quoted_e_tag();
    for (fields, status, body) in [
        (vec![("If-None-Match", old.as_str())], 200, "newer"),
        (vec![("If-None-Match", old.as_str()), ("Range", "bytes=1-2")], 206, "ew"),
        (vec![("If-None-Match", "\"x\", W/\"y\""), ("Range", "bytes=1-2")], 206, "ew"),
    ] {
        let tag = replaced(&s3, &proxy);
        request(&proxy, "GET", TARGET, &fields).assert(status, body);
        assert_is_new(&head(&proxy, TARGET), &tag);
        let list = format!("\"x\", {tag}");
        for fields in [("If-None-Match", tag.as_str()), ("If-None-Match", &list)] {
            s3.server.forget();
            request(&proxy, "GET", TARGET, &[fields]).assert(304, "");
            assert_eq!(s3.server.requests().len(), 1);
        }
    }
}

fn a_412_of_s3_invalidates_the_entry(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let old = Object::new("old").quoted_e_tag();
    let tag = replaced(&s3, &proxy);
    request(&proxy, "GET", TARGET, &[("If-Match", &old)]).assert_error(412);
    assert_is_new(&head(&proxy, TARGET), &tag);
}

fn a_304_of_s3_updates_the_entry(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let tag = replaced(&s3, &proxy);
    request(&proxy, "GET", TARGET, &[("If-None-Match", &tag)]).assert(304, "");
    assert_is_new(&head(&proxy, TARGET), &tag);
}

fn a_client_with_no_cache_gets_metadata_of_at_most_five_seconds(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "old");
    let old = Object::new("old").quoted_e_tag();
    let spellings: [&[(&str, &str)]; 8] = [
        &[("Cache-Control", "no-cache")],
        &[("cache-control", "No-Cache")],
        &[("Cache-Control", "max-age=0")],
        &[("Cache-Control", "no-store, MAX-AGE=0")],
        &[("Cache-Control", "no-transform"), ("Cache-Control", "max-stale=9,no-cache")],
        &[("Cache-Control", "max-age=4")],
        &[("Pragma", "no-cache")],
        &[("Pragma", "no-cache"), ("Cache-Control", "no-cache")],
    ];
    let content: [&[(&str, &str)]; 3] = [
        &[],
        &[("Cache-Control", "max-age=60")],
        &[("Cache-Control", "max-stale"), ("Pragma", "no-cache")],
    ];
    let target = |number: usize| format!("/files/{number}");
    let proxy = proxy_over(driver, &s3);
    let count = 2 * spellings.len() + content.len();
    for number in 0..count {
        s3.put(&number.to_string(), "old");
        assert_eq!(head(&proxy, &target(number)).content_length(), 3);
        s3.put(&number.to_string(), "newer");
    }
    for number in 0..count {
        let fields = [("Cache-Control", "no-cache")];
        let response = request(&proxy, "HEAD", &target(number), &fields);
        assert_eq!(response.content_length(), 3, "not older than five seconds");
    }
    std::thread::sleep(Duration::from_millis(5_100));
    for (number, fields) in spellings.into_iter().enumerate() {
        let response = request(&proxy, "HEAD", &target(2 * number), fields);
        assert_eq!(response.content_length(), 5, "{fields:?}");
        let fields = [fields, &[("If-None-Match", &old)]].concat();
        request(&proxy, "GET", &target(2 * number + 1), &fields).assert(200, "newer");
    }
    for (number, fields) in content.into_iter().enumerate() {
        let response = request(&proxy, "HEAD", &target(2 * spellings.len() + number), fields);
        assert_eq!(response.content_length(), 3, "{fields:?}");
    }
}

fn a_client_with_max_age_0_has_a_missing_key_looked_up_again(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = Config::over(driver, &s3).set("metadata_negative_ttl", "5m").start();
    for key in ["a", "b"] {
        get(&proxy, &format!("/files/{key}")).assert_error(404);
        s3.put(key, "new");
    }
    std::thread::sleep(Duration::from_millis(5_100));
    get(&proxy, "/files/a").assert_error(404);
    let fields = [("Cache-Control", "max-age=0")];
    request(&proxy, "GET", "/files/a", &fields).assert(200, "new");
    get(&proxy, "/files/a").assert(200, "new");
    assert_eq!(request(&proxy, "HEAD", "/files/b", &fields).status, 200);
    assert_eq!(head(&proxy, "/files/b").status, 200);
}

/// A 200 response with this tag; only its head in response to HEAD.
fn described(method: &str, tag: &str, body: &str) -> Vec<u8> {
    let mut response = ok(body).replace("0123456789abcdef", tag).into_bytes();
    if method == "HEAD" {
        response.truncate(response.len() - body.len());
    }
    response
}

fn an_overtaken_response_does_not_bring_the_old_object_back(driver: Driver) {
    // The first request gets its response last, with the old object.
    let is_first = AtomicBool::new(true);
    let upstream = ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            let head = peer.last_head();
            let method = head.split(' ').next().expect("a method");
            if is_first.swap(false, Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(600));
                peer.send(described(method, "old", "old"));
            } else {
                peer.send(described(method, "new", "newer"));
            }
        }
    });
    let proxy = Config::new(driver, &upstream.endpoint()).set("workers", WORKERS).start();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| get(&proxy, TARGET).assert(200, "old"));
        eventually("the first request has arrived", || !upstream.heads().is_empty());
        get(&proxy, TARGET).assert(200, "newer");
        slow.join().expect("a response");
    });
    let mut clients = connections(&proxy);
    assert_eq!(heads(&mut clients), [(200, 5)]);
}

fn a_body_that_cannot_be_resumed_invalidates_its_entry(driver: Driver) {
    for (status, code) in
        [("412 Precondition Failed", "PreconditionFailed"), ("404 Not Found", "NoSuchKey")]
    {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let head = peer.last_head();
                if head.starts_with("HEAD") {
                    peer.send(described("HEAD", "new", "newer"));
                } else if head.to_ascii_lowercase().contains("if-match") {
                    peer.send(s3_error(status, code));
                } else {
                    // The body breaks off.
                    let old = described("GET", "old", &"o".repeat(100_000));
                    peer.send(&old[..50_000]);
                    return;
                }
            }
        });
        let proxy = Config::new(driver, &upstream.endpoint()).start();
        let mut client = Client::connect(&proxy);
        client.send(request_head("GET", TARGET, &[]));
        assert_eq!(client.head().content_length(), 100_000);
        assert!(client.rest().len() < 100_000);
        assert_eq!(head(&proxy, TARGET).content_length(), 5, "{status}");
    }
}
