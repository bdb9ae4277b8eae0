//! Corrections that S3's error responses teach the proxy: the time, and the region of a bucket.

use super::TARGET;
use crate::support::eventually;
use crate::support::proxy::{Config, Driver};
use crate::support::raw_http::get;
use crate::support::scripted_upstream::{ScriptedUpstream, error_xml, ok, s3_error};

both_drivers!(
    a_wrong_clock_is_learned_from_s3,
    a_bucket_of_another_region_is_found_there,
    a_region_that_s3_names_only_in_the_body_is_learned_too,
);

fn a_wrong_clock_is_learned_from_s3(driver: Driver) {
    // S3's clock is in 2031, and it rejects requests with another time.
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            if peer.last_head().contains("x-amz-date: 20310101T0000") {
                peer.send(ok("right on time").replace("2024", "2031"));
                continue;
            }
            let xml = error_xml("RequestTimeTooSkewed");
            peer.send(format!(
                "HTTP/1.1 403 Forbidden\r\nDate: Wed, 01 Jan 2031 00:00:00 GMT\r\n\
                 Content-Length: {}\r\n\r\n{xml}",
                xml.len()
            ));
        }
    });
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    get(&proxy, TARGET).assert(200, "right on time");
    get(&proxy, TARGET).assert(200, "right on time");
    assert_eq!(upstream.heads().len(), 3, "learned once, used from then on");
    eventually("the log says so", || proxy.stderr().contains("set the clock (NTP)"));
    let told = proxy.stderr().matches("set the clock (NTP)").count();
    assert_eq!(told, 1, "{}", proxy.stderr());
}

/// Serves requests that are signed for `eu-central-1`; all others get `refusal`.
fn in_eu_central(refusal: String) -> ScriptedUpstream {
    ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            match peer.last_head().contains("/eu-central-1/s3/aws4_request") {
                true => peer.send(ok("here it is")),
                false => peer.send(&refusal),
            }
        }
    })
}

fn assert_finds_the_region(driver: Driver, upstream: &ScriptedUpstream) {
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    for _ in 0..3 {
        get(&proxy, TARGET).assert(200, "here it is");
    }
    assert_eq!(upstream.heads().len(), 4, "learned once, used from then on");
    eventually("the log says so", || proxy.stderr().contains("is in region eu-central-1"));
    let log = proxy.stderr();
    assert_eq!(log.matches("is in region eu-central-1").count(), 1, "{log}");
    assert!(log.contains("set 'region: eu-central-1'"), "{log}");
}

fn a_bucket_of_another_region_is_found_there(driver: Driver) {
    let moved = s3_error("301 Moved Permanently", "PermanentRedirect")
        .replace("Server: scripted", "x-amz-bucket-region: eu-central-1");
    assert_finds_the_region(driver, &in_eu_central(moved.clone()));
    // An invalid region is ignored, and so is a cycle of redirects.
    for other in ["https://evil.example/", "ap-south-1"] {
        let upstream = in_eu_central(moved.replace("eu-central-1", other));
        let proxy = Config::new(driver, &upstream.endpoint()).start();
        get(&proxy, TARGET).assert_error(502);
        assert!(upstream.heads().len() <= 2);
    }
}

fn a_region_that_s3_names_only_in_the_body_is_learned_too(driver: Driver) {
    let xml = error_xml("AuthorizationHeaderMalformed")
        .replace("</Error>", "<Region>eu-central-1</Region></Error>");
    let upstream = in_eu_central(format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{xml}",
        xml.len()
    ));
    assert_finds_the_region(driver, &upstream);
}
