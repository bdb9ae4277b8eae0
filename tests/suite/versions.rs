//! Versions of objects: served if a mount allows it, and never confused with each other or with the
//! latest one.

use std::time::Duration;

use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::object::Object;
use crate::support::proxy::{Config, Driver, Proxy};
use crate::support::raw_http::{get, get_range, head, request};
use crate::support::scripted_upstream::{ScriptedUpstream, s3_error};

both_drivers!(
    a_requested_version_is_served,
    without_allow_version_id_a_version_is_ignored,
    versions_are_cached_apart_from_each_other_and_from_the_latest,
    a_version_can_be_pinned_by_the_id_in_the_latest_response,
    a_version_is_the_only_parameter_that_reaches_s3,
    a_version_with_odd_characters_is_signed_as_it_is_sent,
    a_malformed_version_is_400_and_never_reaches_s3,
    a_version_id_that_s3_rejects_is_400_without_a_warning,
    an_unknown_version_is_404_and_cached,
    a_delete_marker_is_404_by_name_and_as_the_latest,
    a_405_without_a_version_is_not_a_missing_object,
    conditions_and_ranges_are_those_of_the_version,
    heads_of_two_versions_at_once_get_their_own_responses,
);

const TARGET: &str = "/files/reads.bam";

/// Two versions, the second with more bytes.
fn two_versions() -> TestS3 {
    let s3 = TestS3::start();
    s3.put_version("reads.bam", "v1", "first");
    s3.put_version("reads.bam", "v2", "the second");
    s3
}

fn with_versions(driver: Driver, s3: &TestS3) -> Proxy {
    Config::over(driver, s3).set("allow_version_id", "true").start()
}

fn version(id: &str) -> String {
    format!("{TARGET}?versionId={id}")
}

fn a_requested_version_is_served(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    for (target, id, body) in [
        (version("v1"), "v1", "first"),
        (version("v2"), "v2", "the second"),
        (TARGET.to_owned(), "v2", "the second"),
    ] {
        let response = get(&proxy, &target);
        response.assert(200, body);
        assert_eq!(response.field("x-amz-version-id"), Some(id), "{target}");
        let response = head(&proxy, &target);
        assert_eq!(
            (response.status, response.content_length()),
            (200, body.len() as u64),
            "{target}"
        );
        assert_eq!(response.field("x-amz-version-id"), Some(id), "{target}");
    }
    assert_eq!(s3.count("GET", "reads.bam?versionId=v1"), 1);
}

fn without_allow_version_id_a_version_is_ignored(driver: Driver) {
    let s3 = two_versions();
    let mounts = format!(
        "{{ /files/: {{ bucket: {BUCKET} }}, \
         /versions/: {{ bucket: {BUCKET}, allow_version_id: true }} }}"
    );
    let proxy = Config::over(driver, &s3).without("bucket_name").set("mounts", &mounts).start();
    for query in ["versionId=v1", "versionId=", "versionId=a&versionId=b", "versionId=%ZZ"] {
        let response = get(&proxy, &format!("{TARGET}?{query}"));
        response.assert(200, "the second");
        assert_eq!(response.field("x-amz-version-id"), None, "this mount does not serve versions");
    }
    assert_eq!(s3.count("GET", "reads.bam"), 4);
    get(&proxy, "/versions/reads.bam?versionId=v1").assert(200, "first");
}

fn versions_are_cached_apart_from_each_other_and_from_the_latest(driver: Driver) {
    let s3 = two_versions();
    s3.put("reads.bamv1", "a key that looks like key and version");
    let proxy = with_versions(driver, &s3);
    for _ in 0..3 {
        assert_eq!(head(&proxy, &version("v1")).content_length(), 5);
        assert_eq!(head(&proxy, TARGET).content_length(), 10);
        assert_eq!(head(&proxy, &version("v2")).content_length(), 10);
        assert_eq!(head(&proxy, "/files/reads.bamv1").content_length(), 37);
    }
    assert_eq!(s3.server.requests().len(), 4);
    assert_eq!(head(&proxy, &version("v3")).status, 404);
    assert_eq!(head(&proxy, TARGET).status, 200, "a missing version does not hide the latest");
    // No key can collide with a version.
    get(&proxy, "/files/reads.bam%00v1").assert_error(400);
}

fn a_version_can_be_pinned_by_the_id_in_the_latest_response(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    let latest = head(&proxy, TARGET);
    let id = latest.field("x-amz-version-id").expect("the id of the latest").to_owned();
    let e_tag = latest.field("etag").expect("an entity tag").to_owned();
    s3.put_version("reads.bam", "v3", "a third one");
    get(&proxy, &version(&id)).assert(200, "the second");
    get(&proxy, TARGET).assert(200, "a third one");
    let same = request(&proxy, "GET", &version(&id), &[("If-None-Match", &e_tag)]);
    assert_eq!((same.status, same.field("x-amz-version-id")), (304, Some("v2")));
}

fn a_version_is_the_only_parameter_that_reaches_s3(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    let query = "acl&response-content-type=text/html&versionId=v1&X-Amz-Signature=x&uploads";
    get(&proxy, &format!("{TARGET}?{query}")).assert(200, "first");
    get(&proxy, &format!("{TARGET}?versionid=v1&tagging")).assert(200, "the second");
    let targets: Vec<String> = s3.server.requests().into_iter().map(|seen| seen.target).collect();
    let path = format!("/{BUCKET}/reads.bam");
    assert_eq!(targets, [format!("{path}?versionId=v1"), path]);
}

fn a_version_with_odd_characters_is_signed_as_it_is_sent(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    // The store does not support this form, and says so only if the signature is valid.
    for id in ["a%2Fb%2bc%3D", "a/b+c="] {
        get(&proxy, &version(id)).assert_error(400);
    }
    assert_eq!(s3.count("GET", "reads.bam?versionId=a%2Fb%2Bc%3D"), 2);
}

fn a_malformed_version_is_400_and_never_reaches_s3(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    let long = format!("versionId={}", "v".repeat(1025));
    for query in [
        "versionId",
        "versionId=",
        "versionId=v1&versionId=v1",
        "versionId=v1&versionId=v2",
        "versionId=v%201",
        "versionId=%00",
        "versionId=v%0D%0AX:y",
        "versionId=%FF",
        "versionId=%C3%A9",
        "versionId=%",
        &long,
    ] {
        let target = format!("{TARGET}?{query}");
        get(&proxy, &target).assert_error(400);
        let response = head(&proxy, &target);
        assert_eq!((response.status, response.field("content-length")), (400, None), "{query}");
    }
    assert_eq!(s3.server.requests().len(), 0);
}

fn a_version_id_that_s3_rejects_is_400_without_a_warning(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    let response = get(&proxy, &version("not*one"));
    response.assert_error(400);
    assert!(response.text().contains("versionId"), "{}", response.text());
    assert_eq!(head(&proxy, &version("not*one")).status, 400);
    get(&proxy, TARGET).assert(200, "the second");
    assert!(!proxy.stderr().contains("WARN"), "clients could fill the log: {}", proxy.stderr());
}

fn an_unknown_version_is_404_and_cached(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    for _ in 0..3 {
        get(&proxy, &version("v9")).assert_error(404);
        assert_eq!(head(&proxy, &version("v9")).status, 404);
    }
    assert_eq!(s3.server.requests().len(), 1);
    get(&proxy, "/files/other.bam?versionId=v1").assert_error(404);
}

fn a_delete_marker_is_404_by_name_and_as_the_latest(driver: Driver) {
    let s3 = two_versions();
    s3.put_delete_marker("reads.bam", "gone");
    let proxy = with_versions(driver, &s3);
    for target in [TARGET, &version("gone")] {
        assert_eq!(head(&proxy, target).status, 404, "{target}");
        get(&proxy, target).assert_error(404);
        get_range(&proxy, target, "bytes=0-1").assert_error(404);
    }
    assert_eq!(s3.server.requests().len(), 2);
    get(&proxy, &version("v1")).assert(200, "first");
}

fn a_405_without_a_version_is_not_a_missing_object(driver: Driver) {
    // A server that responds like this to a plain GET is not S3, and 404 would hide that.
    let upstream = ScriptedUpstream::always(s3_error("405 Not Allowed", "MethodNotAllowed"));
    let config = Config::new(driver, &upstream.endpoint());
    let proxy = config.set("allow_version_id", "true").start();
    get(&proxy, TARGET).assert_error(502);
    get(&proxy, &version("v1")).assert_error(404);
}

fn conditions_and_ranges_are_those_of_the_version(driver: Driver) {
    let s3 = two_versions();
    let proxy = with_versions(driver, &s3);
    let e_tag = Object::new("first").quoted_e_tag();
    for _ in 0..2 {
        let response = get_range(&proxy, &version("v1"), "bytes=3-");
        response.assert(206, "st");
        assert_eq!(response.field("content-range"), Some("bytes 3-4/5"));
        get_range(&proxy, &version("v1"), "bytes=7-").assert_error(416);
        get_range(&proxy, TARGET, "bytes=7-").assert(206, "ond");
        let same = request(&proxy, "GET", &version("v1"), &[("If-None-Match", &e_tag)]);
        assert_eq!(same.status, 304);
        request(&proxy, "GET", TARGET, &[("If-None-Match", &e_tag)]).assert(200, "the second");
        request(&proxy, "GET", TARGET, &[("If-Match", &e_tag)]).assert_error(412);
    }
}

fn heads_of_two_versions_at_once_get_their_own_responses(driver: Driver) {
    let s3 = two_versions();
    s3.set_delay(Duration::from_millis(500));
    let proxy = with_versions(driver, &s3);
    let lengths: Vec<u64> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..12)
            .map(|number| {
                let target = if number % 2 == 0 { version("v1") } else { TARGET.to_owned() };
                let proxy = &proxy;
                scope.spawn(move || head(proxy, &target).content_length())
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().expect("a response")).collect()
    });
    assert_eq!(lengths, [5, 10].repeat(6));
    assert_eq!(s3.server.requests().len(), 2);
}
