//! Cross-origin requests: a genome browser on another site may read objects and the fields that it
//! needs, and a preflight tells it so.

use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver, proxy_over};
use crate::support::raw_http::{Client, Response, request};

both_drivers!(
    every_response_allows_every_origin_by_default,
    a_preflight_needs_no_s3,
    listed_origins_are_echoed_and_others_are_not,
    cors_can_be_switched_off,
);

const ORIGIN: (&str, &str) = ("Origin", "https://igv.org");
const TARGET: &str = "/files/reads.bam";

/// The values of a list field in lower case.
fn list(response: &Response, name: &str) -> Vec<String> {
    let value = response.field(name).unwrap_or_else(|| panic!("{name} is missing"));
    value.split(',').map(|value| value.trim().to_ascii_lowercase()).collect()
}

fn every_response_allows_every_origin_by_default(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    s3.put("secret", "x");
    s3.deny("secret");
    let proxy = proxy_over(driver, &s3);
    let rows = [
        ("GET", TARGET, vec![ORIGIN], 200),
        ("HEAD", TARGET, vec![ORIGIN], 200),
        ("GET", TARGET, vec![], 200),
        ("GET", TARGET, vec![ORIGIN, ("Range", "bytes=0-1")], 206),
        ("GET", TARGET, vec![ORIGIN, ("Range", "bytes=9-")], 416),
        ("GET", TARGET, vec![ORIGIN, ("If-None-Match", "*")], 304),
        ("GET", TARGET, vec![ORIGIN, ("If-Match", "\"x\"")], 412),
        ("GET", "/files/missing", vec![ORIGIN], 404),
        ("GET", "/files/secret", vec![ORIGIN], 403),
        ("GET", "/elsewhere", vec![ORIGIN], 404),
        ("GET", "/files/%zz", vec![ORIGIN], 400),
        ("PUT", TARGET, vec![ORIGIN], 405),
    ];
    for (method, target, fields, status) in rows {
        let response = request(&proxy, method, target, &fields);
        assert_eq!(response.status, status, "{method} {target} {fields:?}");
        let allowed = response.field("access-control-allow-origin");
        assert_eq!(allowed, Some("*"), "{method} {target} {fields:?}");
        if fields.contains(&ORIGIN) {
            let exposed = list(&response, "access-control-expose-headers");
            for name in [
                "content-range",
                "content-length",
                "content-encoding",
                "etag",
                "accept-ranges",
                "last-modified",
                "retry-after",
            ] {
                assert!(exposed.iter().any(|exposed| exposed == name), "{name} in {exposed:?}");
            }
        }
    }
}

fn a_preflight_needs_no_s3(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let mut client = Client::connect(&proxy);
    for target in [TARGET, "/files/missing"] {
        let fields = [
            ORIGIN,
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "range,authorization"),
        ];
        let response = client.request("OPTIONS", target, &fields);
        assert!(matches!(response.status, 200 | 204), "{}", response.status);
        assert_eq!(response.field("access-control-allow-origin"), Some("*"));
        let methods = list(&response, "access-control-allow-methods");
        assert!(methods.contains(&"get".to_owned()) && methods.contains(&"head".to_owned()));
        let fields = list(&response, "access-control-allow-headers");
        for name in ["range", "authorization"] {
            assert!(fields.iter().any(|allowed| allowed == name), "{name} in {fields:?}");
        }
        assert!(response.field("access-control-max-age").is_some());
    }
    client.assert_open();
    assert_eq!(s3.server.requests().len(), 0);
}

fn listed_origins_are_echoed_and_others_are_not(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let cors = "[\"https://igv.org\", \"http://localhost:8080\"]";
    let proxy = Config::over(driver, &s3).set("cors", cors).start();
    for origin in ["https://igv.org", "http://localhost:8080"] {
        let response = request(&proxy, "GET", TARGET, &[("Origin", origin)]);
        response.assert(200, "ACGT");
        assert_eq!(response.field("access-control-allow-origin"), Some(origin));
        assert!(list(&response, "vary").contains(&"origin".to_owned()));
    }
    for origin in ["https://evil.example", "https://igv.org.evil.example", "null"] {
        let response = request(&proxy, "GET", TARGET, &[("Origin", origin)]);
        assert_eq!(response.field("access-control-allow-origin"), None, "{origin}");
        assert!(list(&response, "vary").contains(&"origin".to_owned()));
    }
}

fn cors_can_be_switched_off(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = Config::over(driver, &s3).set("cors", "off").start();
    let response = request(&proxy, "GET", TARGET, &[ORIGIN]);
    response.assert(200, "ACGT");
    assert_eq!(response.field("access-control-allow-origin"), None);
    assert_eq!(response.field("access-control-expose-headers"), None);
}
