//! The fields about an object's content: `Content-Encoding` and `Cache-Control`.

use crate::support::memory_store::TestS3;
use crate::support::object::Object;
use crate::support::proxy::{Config, Driver, Process, Proxy, proxy_over};
use crate::support::raw_http::{Response, get, get_range, head, request};

both_drivers!(
    the_framing_of_an_upload_is_never_passed_on,
    a_part_of_an_object_has_no_content_encoding,
    names_that_say_they_are_compressed_have_no_content_encoding,
    an_object_without_cache_control_is_sent_with_no_cache,
    a_stored_cache_control_wins,
    cache_control_can_be_set_for_each_mount_and_switched_off,
    a_cache_control_that_no_header_can_have_is_refused,
);

/// Checks GET and HEAD responses on a cache miss and a hit: 200, 206 and 304.
fn each_response(proxy: &Proxy, s3: &TestS3, key: &str, mut check: impl FnMut(&str, &Response)) {
    let object = |number: usize| format!("/files/{number}/{key}");
    let stored = s3.get(key);
    for number in 0..4 {
        s3.put(&format!("{number}/{key}"), stored.clone());
    }
    let tag = stored.quoted_e_tag();
    let unchanged = [("If-None-Match", tag.as_str())];
    for state in ["cold", "warm"] {
        let told = get(proxy, &object(0));
        assert_eq!(told.status, 200, "{state}");
        check("200", &told);
        let told = head(proxy, &object(1));
        assert_eq!(told.status, 200, "{state}");
        check("HEAD", &told);
        let told = get_range(proxy, &object(2), "bytes=0-");
        assert_eq!(told.status, 206, "{state}");
        check("206", &told);
        let told = request(proxy, "GET", &object(3), &unchanged);
        assert_eq!(told.status, 304, "{state}");
        check("304", &told);
        let told = request(proxy, "HEAD", &object(3), &unchanged);
        assert_eq!(told.status, 304, "{state}");
        check("304", &told);
    }
}

fn encoded(value: &str) -> Object {
    Object::new("ACGT").with_content_encoding(value)
}

fn the_framing_of_an_upload_is_never_passed_on(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    for (number, (stored, told)) in [
        ("aws-chunked", None),
        ("AWS-CHUNKED", None),
        ("aws-chunked,", None),
        ("gzip,aws-chunked", Some("gzip")),
        ("aws-chunked, gzip", Some("gzip")),
        ("Aws-Chunked , br,gzip", Some("br, gzip")),
        ("gzip", Some("gzip")),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("{number}.txt");
        s3.put(&key, encoded(stored));
        each_response(&proxy, &s3, &key, |kind, response| {
            let told = if matches!(kind, "206" | "304") { None } else { told };
            assert_eq!(response.field("content-encoding"), told, "{stored} {kind}");
        });
    }
}

fn a_part_of_an_object_has_no_content_encoding(driver: Driver) {
    let s3 = TestS3::with("a.txt", encoded("gzip"));
    let proxy = proxy_over(driver, &s3);
    for range in ["bytes=0-", "bytes=1-2", "bytes=-1"] {
        for _ in 0..2 {
            let response = get_range(&proxy, "/files/a.txt", range);
            assert_eq!(
                (response.status, response.field("content-encoding")),
                (206, None),
                "{range}"
            );
        }
        assert_eq!(head(&proxy, "/files/a.txt").field("content-encoding"), Some("gzip"));
        assert_eq!(get(&proxy, "/files/a.txt").field("content-encoding"), Some("gzip"));
    }
}

fn names_that_say_they_are_compressed_have_no_content_encoding(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let names = [
        "g.gff3.gz",
        "A.GZ",
        "a.vcf.bgz",
        "a.bam",
        "a.bam.bai",
        "a.bai",
        "a.csi",
        "a.vcf.gz.tbi",
        "a.crai",
        "a.gzi",
        "a.fa.fai",
        "a.Cram",
    ];
    for key in names {
        s3.put(key, encoded("gzip"));
        each_response(&proxy, &s3, key, |kind, response| {
            assert_eq!(response.field("content-encoding"), None, "{key} {kind}");
        });
    }
    for key in ["a.json", "gz", "a.gz.txt"] {
        s3.put(key, encoded("gzip"));
        assert_eq!(head(&proxy, &format!("/files/{key}")).field("content-encoding"), Some("gzip"));
    }
    let chosen = Config::over(driver, &s3).set("genomic_suffixes", "[.json]").start();
    for (key, told) in [("a.json", None), ("g.gff3.gz", Some("gzip")), ("a.bam", Some("gzip"))] {
        assert_eq!(get(&chosen, &format!("/files/{key}")).field("content-encoding"), told, "{key}");
    }
}

fn an_object_without_cache_control_is_sent_with_no_cache(driver: Driver) {
    let s3 = TestS3::with("a.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    each_response(&proxy, &s3, "a.bam", |kind, response| {
        assert_eq!(response.field("cache-control"), Some("no-cache"), "{kind}");
    });
    assert_eq!(get(&proxy, "/files/none").field("cache-control"), Some("no-store"));
}

fn a_stored_cache_control_wins(driver: Driver) {
    let s3 = TestS3::with("a.bam", Object::new("ACGT").with_cache_control("max-age=9, immutable"));
    for value in ["no-cache", "off", "max-age=60"] {
        let proxy = Config::over(driver, &s3).set("cache_control", value).start();
        each_response(&proxy, &s3, "a.bam", |kind, response| {
            let told = response.field("cache-control");
            assert_eq!(told, Some("max-age=9, immutable"), "{kind} with {value}");
        });
    }
}

fn cache_control_can_be_set_for_each_mount_and_switched_off(driver: Driver) {
    let s3 = TestS3::with("a.bam", "ACGT");
    let bucket = crate::support::memory_store::BUCKET;
    let mounts = format!(
        "{{/files/: {{bucket: {bucket}}}, /off/: {{bucket: {bucket}, cache_control: off}}, \
         /own/: {{bucket: {bucket}, cache_control: 'max-age=60, must-revalidate'}}}}"
    );
    let config = Config::over(driver, &s3).without("bucket_name").set("mounts", &mounts);
    let top = config.clone().set("cache_control", "max-age=5").start();
    let default = config.start();
    for (proxy, path, told) in [
        (&default, "/files/", Some("no-cache")),
        (&default, "/off/", None),
        (&default, "/own/", Some("max-age=60, must-revalidate")),
        (&top, "/files/", Some("max-age=5")),
        (&top, "/off/", None),
        (&top, "/own/", Some("max-age=60, must-revalidate")),
    ] {
        for _ in 0..2 {
            let target = format!("{path}a.bam");
            assert_eq!(get(proxy, &target).field("cache-control"), told, "{path}");
            assert_eq!(head(proxy, &target).field("cache-control"), told, "{path}");
        }
    }
}

fn a_cache_control_that_no_header_can_have_is_refused(driver: Driver) {
    let s3 = TestS3::start();
    let long = format!("x{}", "y".repeat(256));
    for (value, words) in [
        (
            "\"a\\r\\nSet-Cookie: b\"",
            "cache_control: has a character that is not allowed in a header field",
        ),
        ("\"no-caché\"", "cache_control: has a character that is not allowed in a header field"),
        ("''", "cache_control: is empty; write directives such as 'no-cache'"),
        (long.as_str(), "cache_control: is longer than 256 bytes"),
        ("[no-cache]", "cache_control: is a list"),
    ] {
        let yaml = Config::over(driver, &s3).set("cache_control", value).yaml();
        let finished = Process::with_config(&yaml).run();
        assert_eq!(finished.code, 78, "{value}");
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
}
