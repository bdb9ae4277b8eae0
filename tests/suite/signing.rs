//! Requests as they reach S3: signed, for one object, and without other fields of the client.

use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, RANGE, USER_AGENT};

use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::object::Object;
use crate::support::proxy::{Config, Driver, proxy_over};
use crate::support::raw_http::{get, head, request};
use crate::support::s3_server::ACCESS_KEY;
use crate::support::scripted_upstream::{ScriptedUpstream, ok};

both_drivers!(
    nothing_of_the_client_but_range_and_conditions_reaches_s3,
    a_session_token_is_sent_and_signed,
    virtual_addressing_puts_the_bucket_into_the_host,
    a_stored_gzip_encoding_is_not_passed_on_for_genomic_files,
    idle_connections_to_s3_are_closed_after_their_time,
);

const TARGET: &str = "/files/reads.bam";

fn nothing_of_the_client_but_range_and_conditions_reaches_s3(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    let fields = [
        ("Range", "bytes=1-2"),
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("Cookie", "session=1"),
        ("User-Agent", "htslib/1.16"),
        ("X-Amz-Date", "20000101T000000Z"),
        ("X-Amz-Security-Token", "forged"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Http-Method-Override", "DELETE"),
    ];
    request(&proxy, "GET", TARGET, &fields).assert(206, "CG");
    let seen = &s3.server.requests()[0];
    assert_eq!(seen.field(RANGE), Some("bytes=1-2"));
    let signature = seen.field(AUTHORIZATION).expect("a signature");
    assert!(signature.contains(&format!("Credential={ACCESS_KEY}/")), "{signature}");
    assert_eq!(seen.field(COOKIE), None);
    assert_ne!(seen.field(USER_AGENT), Some("htslib/1.16"));
    for name in ["x-amz-security-token", "x-forwarded-for", "x-http-method-override"] {
        assert_eq!(seen.field(HeaderName::from_static(name)), None, "{name}");
    }
    assert_ne!(seen.field(HeaderName::from_static("x-amz-date")), Some("20000101T000000Z"));
}

fn a_session_token_is_sent_and_signed(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let token = "FwoGZXIvYXdzEBc/+=token";
    let proxy = Config::over(driver, &s3).set("AWS_SESSION_TOKEN", token).start();
    get(&proxy, TARGET).assert(200, "ACGT");
    let seen = &s3.server.requests()[0];
    assert_eq!(seen.field(HeaderName::from_static("x-amz-security-token")), Some(token));
    let signature = seen.field(AUTHORIZATION).expect("a signature");
    let names = signature.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next());
    let names = names.expect("names of signed fields");
    assert!(names.split(';').any(|name| name == "x-amz-security-token"), "{names}");
    assert!(names.split(';').any(|name| name == "host"), "{names}");
}

fn virtual_addressing_puts_the_bucket_into_the_host(driver: Driver) {
    let upstream = ScriptedUpstream::always(ok("ACGT"));
    // Names below `localhost` do not resolve everywhere, but an address can be split into a
    // bucket called 127 and an endpoint called 0.0.1.
    let endpoint = upstream.endpoint().replace("127.0.0.1", "0.0.1");
    let config = Config::new(driver, &endpoint).set("bucket_name", "'127'");
    let proxy = config.set("addressing", "virtual").start();
    get(&proxy, TARGET).assert(200, "ACGT");
    let request = &upstream.heads()[0];
    assert!(request.starts_with("GET /reads.bam HTTP/1.1\r\n"), "{request}");
    let authority = upstream.endpoint().replace("http://", "");
    let host = format!("{HOST}: {authority}\r\n");
    assert!(request.to_ascii_lowercase().contains(&host), "{request}");
}

fn a_stored_gzip_encoding_is_not_passed_on_for_genomic_files(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let rows = [
        ("reads.bam", None),
        ("calls.vcf.gz", None),
        ("calls.vcf.gz.tbi", None),
        ("reads.bam.bai", None),
        ("genome.fa.gz", None),
        ("notes.txt", Some("gzip")),
        ("table.csv.gz", None),
        ("bam", Some("gzip")),
    ];
    for (key, passed_on) in rows {
        s3.put(key, Object::new("ACGT").with_content_encoding("gzip"));
        let target = format!("/files/{key}");
        for _ in 0..2 {
            let response = get(&proxy, &target);
            response.assert(200, "ACGT");
            assert_eq!(response.field("content-encoding"), passed_on, "{key}");
            assert_eq!(head(&proxy, &target).field("content-encoding"), passed_on, "{key}");
        }
    }
}

fn idle_connections_to_s3_are_closed_after_their_time(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("upstream_idle_timeout", "1s").start();
    get(&proxy, TARGET).assert(200, "ACGT");
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!((s3.server.accepted_connections(), s3.server.open_connections()), (1, 1));
    eventually("the idle connection is closed", || s3.server.open_connections() == 0);
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(s3.server.accepted_connections(), 2);
}
