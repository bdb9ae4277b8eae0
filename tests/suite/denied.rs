//! `denied_is_missing`: without `s3:ListBucket` S3 denies access to keys that do not exist, but
//! programs that look for them need a 404.

use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::proxy::{Config, Driver, proxy_over};
use crate::support::raw_http::{get, get_range, head};
use crate::support::scripted_upstream::{ScriptedUpstream, s3_error};

both_drivers!(
    a_denied_key_is_missing_if_that_is_wanted,
    a_denied_key_is_denied_otherwise,
    each_mount_can_override_it,
    rejected_credentials_are_not_a_missing_key,
    an_archived_object_is_not_a_missing_key,
    an_index_that_is_denied_is_looked_for_under_its_other_name,
);

fn a_denied_key_is_missing_if_that_is_wanted(driver: Driver) {
    for cold in ["GET", "HEAD", "range"] {
        let s3 = TestS3::with("a.bam", "ACGT");
        s3.deny("a.bam.bai");
        let proxy = Config::over(driver, &s3).set("denied_is_missing", "true").start();
        let target = "/files/a.bam.bai";
        match cold {
            "GET" => get(&proxy, target).assert_error(404),
            "HEAD" => assert_eq!(head(&proxy, target).status, 404),
            _ => get_range(&proxy, target, "bytes=0-9").assert_error(404),
        }
        let asked = s3.server.requests().len();
        get(&proxy, target).assert_error(404);
        assert_eq!(head(&proxy, target).status, 404);
        get_range(&proxy, target, "bytes=0-9").assert_error(404);
        assert_eq!(s3.server.requests().len(), asked, "cached");
        get(&proxy, "/files/a.bam").assert(200, "ACGT");
    }
}

fn a_denied_key_is_denied_otherwise(driver: Driver) {
    let s3 = TestS3::start();
    s3.deny("a.bam.bai");
    let proxy = proxy_over(driver, &s3);
    get(&proxy, "/files/a.bam.bai").assert_error(403);
    assert_eq!(head(&proxy, "/files/a.bam.bai").status, 403);
}

fn each_mount_can_override_it(driver: Driver) {
    let s3 = TestS3::start();
    s3.deny("x");
    for (top, expected) in [("false", 404), ("true", 403)] {
        let own = if top == "true" { "false" } else { "true" };
        let mounts = format!(
            "{{/files/: {{bucket: {BUCKET}}}, /own/: {{bucket: {BUCKET}, denied_is_missing: {own}}}}}"
        );
        let proxy = Config::over(driver, &s3)
            .without("bucket_name")
            .set("mounts", &mounts)
            .set("denied_is_missing", top)
            .start();
        assert_eq!(head(&proxy, "/own/x").status, expected, "{top}");
        assert_eq!(head(&proxy, "/files/x").status, 807 - expected, "{top}");
    }
}

fn rejected_credentials_are_not_a_missing_key(driver: Driver) {
    let s3 = TestS3::with("a.bam", "ACGT");
    let config = Config::over(driver, &s3).set("denied_is_missing", "true");
    for config in [
        config.clone().set("AWS_SECRET_ACCESS_KEY", "wrong/secret"),
        config.set("AWS_ACCESS_KEY_ID", "AKIAUNKNOWNTOALL0000"),
    ] {
        let proxy = config.start();
        get(&proxy, "/files/a.bam").assert_error(502);
        assert_eq!(head(&proxy, "/files/a.bam").status, 502);
        assert_eq!(head(&proxy, "/files/missing").status, 502);
    }
}

fn an_archived_object_is_not_a_missing_key(driver: Driver) {
    for code in ["InvalidObjectState", "AllAccessDisabled"] {
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let error = s3_error("403 Forbidden", code);
                match peer.last_head().starts_with("HEAD") {
                    true => peer.send(&error[..error.find("\r\n\r\n").expect("a head") + 4]),
                    false => peer.send(error),
                }
            }
        });
        let config = Config::new(driver, &upstream.endpoint()).set("denied_is_missing", "true");
        let proxy = config.start();
        assert_eq!(head(&proxy, "/files/a.bam").status, 403, "{code}");
        get(&proxy, "/files/a.bam").assert_error(403);
        get(&proxy, "/files/b.bam").assert_error(403);
    }
}

fn an_index_that_is_denied_is_looked_for_under_its_other_name(driver: Driver) {
    let s3 = TestS3::with("a.bai", "index");
    s3.deny("a.bam.bai");
    let rules = "{bai: {from: '\\.bam\\.bai$', to: .bai, when: missing}}";
    let config = Config::over(driver, &s3).set("rewrite_rules", rules);
    get(&config.clone().start(), "/files/a.bam.bai").assert_error(403);
    let proxy = config.set("denied_is_missing", "true").start();
    get(&proxy, "/files/a.bam.bai").assert(200, "index");
    assert_eq!(head(&proxy, "/files/a.bam.bai").content_length(), 5);
}
