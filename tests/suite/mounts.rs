//! Several buckets behind one server, prefixes, and rewriting rules.

use hyper::header::HeaderName;

use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::proxy::{Config, Driver, proxy_over};
use crate::support::raw_http::{get, get_range, head};
use crate::support::s3_server::PUBLIC_BUCKET;

both_drivers!(
    each_mount_serves_its_own_bucket,
    the_longest_mount_wins,
    a_prefix_is_put_in_front_as_it_is,
    outside_every_mount_is_404,
    an_anonymous_mount_sends_no_signature,
    the_same_key_in_two_mounts_is_two_objects,
    rewrite_rules_choose_the_key_that_s3_is_asked_for,
    rewrite_rules_run_in_file_order,
    a_requester_pays_bucket_is_read_only_with_the_setting,
);

/// The configuration with these mounts in place of the short form.
fn with_mounts(driver: Driver, s3: &TestS3, mounts: &str) -> Config {
    Config::over(driver, s3).without("bucket_name").set("mounts", mounts)
}

fn each_mount_serves_its_own_bucket(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "first");
    s3.put_in("second-bucket", "reads.bam", "second");
    let mounts =
        format!("{{ /files/: {{ bucket: {BUCKET} }}, /two/: {{ bucket: second-bucket }} }}");
    let proxy = with_mounts(driver, &s3, &mounts).start();
    get(&proxy, "/files/reads.bam").assert(200, "first");
    get(&proxy, "/two/reads.bam").assert(200, "second");
}

fn the_longest_mount_wins(driver: Driver) {
    let s3 = TestS3::start();
    s3.put("b/reads.bam", "through the short mount");
    s3.put_in("second-bucket", "reads.bam", "through the long mount");
    let mounts = format!("{{ /a/: {{ bucket: {BUCKET} }}, /a/b/: {{ bucket: second-bucket }} }}");
    let proxy = with_mounts(driver, &s3, &mounts).start();
    get(&proxy, "/a/b/reads.bam").assert(200, "through the long mount");
    get(&proxy, "/a//b/reads.bam").assert_error(404);
    get(&proxy, "/a/c").assert_error(404);
    s3.put("bb", "beside");
    get(&proxy, "/a/bb").assert(200, "beside");
}

fn a_prefix_is_put_in_front_as_it_is(driver: Driver) {
    let s3 = TestS3::start();
    s3.put("runs/2024/reads.bam", "deep");
    s3.put("runs-2024/reads.bam", "no slash");
    s3.put("reads.bam", "outside");
    s3.put("runs/../reads.bam", "dots");
    let mounts = format!(
        "{{ /files/: {{ bucket: {BUCKET}, prefix: runs/ }}, \
         /odd/: {{ bucket: {BUCKET}, prefix: runs- }} }}"
    );
    let proxy = with_mounts(driver, &s3, &mounts).start();
    get(&proxy, "/files/2024/reads.bam").assert(200, "deep");
    get(&proxy, "/odd/2024/reads.bam").assert(200, "no slash");
    get(&proxy, "/files/reads.bam").assert_error(404);
    // Dots are ordinary characters of a key, so they do not lead out of the prefix.
    get(&proxy, "/files/../reads.bam").assert(200, "dots");
}

fn outside_every_mount_is_404(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    for target in
        ["/", "/reads.bam", "/Files/reads.bam", "/files", "/filesreads.bam", "//files/reads.bam"]
    {
        get(&proxy, target).assert_error(404);
        let response = head(&proxy, target);
        assert_eq!((response.status, response.field("content-length")), (404, None), "{target}");
    }
    assert_eq!(s3.server.requests().len(), 0);
}

fn an_anonymous_mount_sends_no_signature(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "private");
    s3.put_in(PUBLIC_BUCKET, "reads.bam", "public");
    let mounts = format!(
        "{{ /files/: {{ bucket: {BUCKET} }}, \
         /public/: {{ bucket: {PUBLIC_BUCKET}, credentials: anonymous }}, \
         /refused/: {{ bucket: {BUCKET}, credentials: anonymous }} }}"
    );
    let proxy = with_mounts(driver, &s3, &mounts).start();
    get_range(&proxy, "/public/reads.bam", "bytes=0-2").assert(206, "pub");
    assert!(!s3.server.requests()[0].is_signed());
    get(&proxy, "/files/reads.bam").assert(200, "private");
    assert!(s3.server.requests()[1].is_signed());
    get(&proxy, "/refused/reads.bam").assert_error(403);
}

fn the_same_key_in_two_mounts_is_two_objects(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "12345");
    s3.put_in("second-bucket", "reads.bam", "1234567");
    let mounts =
        format!("{{ /files/: {{ bucket: {BUCKET} }}, /two/: {{ bucket: second-bucket }} }}");
    let proxy = with_mounts(driver, &s3, &mounts).start();
    for _ in 0..2 {
        assert_eq!(head(&proxy, "/files/reads.bam").content_length(), 5);
        assert_eq!(head(&proxy, "/two/reads.bam").content_length(), 7);
    }
    assert_eq!(s3.server.requests().len(), 2);
}

fn rewrite_rules_choose_the_key_that_s3_is_asked_for(driver: Driver) {
    let s3 = TestS3::with("reads.bai", "index");
    s3.put("reads.bam", "reads");
    let rules = r"{ bai: { from: '\.bam\.bai$', to: '.bai' } }";
    let proxy = Config::over(driver, &s3).set("rewrite_rules", rules).start();
    get(&proxy, "/files/reads.bam.bai").assert(200, "index");
    get(&proxy, "/files/reads.bai").assert(200, "index");
    get(&proxy, "/files/reads.bam").assert(200, "reads");
    assert_eq!(s3.count("GET", "reads.bai"), 2);
}

fn rewrite_rules_run_in_file_order(driver: Driver) {
    let s3 = TestS3::with("year=2024/run_7.bam", "found");
    let rules =
        r"{ year: { from: '^(\d{4})-', to: 'year=\1/' }, run: { from: 'run-', to: 'run_' } }";
    let proxy = Config::over(driver, &s3).set("rewrite_rules", rules).start();
    get(&proxy, "/files/2024-run-7.bam").assert(200, "found");
}

fn a_requester_pays_bucket_is_read_only_with_the_setting(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    s3.put_in("free-bucket", "reads.bam", "free");
    s3.let_requesters_pay();
    let mounts = format!(
        "{{ /pays/: {{ bucket: {BUCKET}, requester_pays: true }}, \
         /files/: {{ bucket: {BUCKET} }}, \
         /free/: {{ bucket: free-bucket, requester_pays: false }} }}"
    );
    let proxy = with_mounts(driver, &s3, &mounts).start();
    assert_eq!(head(&proxy, "/pays/reads.bam").content_length(), 4);
    get_range(&proxy, "/pays/reads.bam", "bytes=1-2").assert(206, "CG");
    get(&proxy, "/files/reads.bam").assert_error(403);
    get(&proxy, "/free/reads.bam").assert(200, "free");
    let payer = HeaderName::from_static("x-amz-request-payer");
    let requests = s3.server.requests();
    let said: Vec<_> = requests.iter().map(|seen| seen.field(payer.clone())).collect();
    assert_eq!(said, [Some("requester"), Some("requester"), None, None]);
    // A setting at the top level applies to every mount that does not override it.
    let proxy = with_mounts(driver, &s3, &mounts).set("requester_pays", "true").start();
    get(&proxy, "/files/reads.bam").assert(200, "ACGT");
    s3.server.forget();
    get(&proxy, "/free/reads.bam").assert(200, "free");
    assert_eq!(s3.server.requests()[0].field(payer), None);
}
