//! HTTP/1.1 and 1.0 as a strict server parses them: a request that two servers in a row could
//! interpret differently is rejected and the connection closed; all other requests are served.

use crate::support::memory_store::TestS3;
use crate::support::proxy::{Driver, Proxy, proxy_over};
use crate::support::raw_http::{Client, head, request, request_head};

both_drivers!(
    a_request_that_breaks_the_rules_is_400_and_the_connection_is_closed,
    nothing_after_a_rejected_head_is_read_as_a_request,
    harmless_oddities_are_served,
    a_head_over_16_kib_is_431,
    a_head_just_below_16_kib_is_served,
    more_than_100_fields_are_431,
    other_methods_are_405_with_allow,
    options_asterisk_is_served,
    errors_to_head_have_neither_body_nor_length,
    a_rejected_head_request_gets_no_body,
);

pub(super) const TARGET: &str = "/files/reads.bam";
pub(super) const BASES: &str = "ACGTACGTAC";

/// A proxy over one object, [`TARGET`] with [`BASES`].
pub(super) fn serve(driver: Driver) -> (TestS3, Proxy) {
    let s3 = TestS3::with("reads.bam", BASES);
    let proxy = proxy_over(driver, &s3);
    (s3, proxy)
}

/// Heads that are rejected. All have `Host: h`, except in the tests of `Host`.
const REFUSED: [(&str, &str); 41] = [
    ("no version", "GET /files/reads.bam\r\n\r\n"),
    ("a version of another protocol", "GET /files/reads.bam HTTP/2.0\r\nHost: h\r\n\r\n"),
    ("a version that is none", "GET /files/reads.bam HTTP/1\r\nHost: h\r\n\r\n"),
    ("a lower-case version", "GET /files/reads.bam http/1.1\r\nHost: h\r\n\r\n"),
    ("two spaces", "GET  /files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a space in the target", "GET /files/a b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a tab for a space", "GET\t/files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a target without slash", "GET files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a fragment", "GET /files/reads.bam#top HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("an asterisk to GET", "GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a target of another scheme", "GET ftp://h/files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no Host", "GET /files/reads.bam HTTP/1.1\r\n\r\n"),
    ("two Hosts", "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
    ("a user in Host", "GET /files/reads.bam HTTP/1.1\r\nHost: user@h\r\n\r\n"),
    ("a path in Host", "GET /files/reads.bam HTTP/1.1\r\nHost: h/path\r\n\r\n"),
    ("two ports in Host", "GET /files/reads.bam HTTP/1.1\r\nHost: h:9000:80\r\n\r\n"),
    ("a port that is none", "GET /files/reads.bam HTTP/1.1\r\nHost: h:http\r\n\r\n"),
    ("a port without a host", "GET /files/reads.bam HTTP/1.1\r\nHost: :80\r\n\r\n"),
    ("an address without brackets", "GET /files/reads.bam HTTP/1.1\r\nHost: ::1\r\n\r\n"),
    ("a list of Hosts", "GET /files/reads.bam HTTP/1.1\r\nHost: h, user@g\r\n\r\n"),
    ("a bad Host of HTTP/1.0", "GET /files/reads.bam HTTP/1.0\r\nHost: user@h\r\n\r\n"),
    ("a user in the target", "GET http://u:p@h/files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("two ports in the target", "GET http://h:1:2/files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a minor version of two digits", "GET /files/reads.bam HTTP/1.10\r\nHost: h\r\n\r\n"),
    ("a bare line feed", "GET /files/reads.bam HTTP/1.1\nHost: h\n\n"),
    ("a bare line feed in the fields", "GET /files/reads.bam HTTP/1.1\r\nHost: h\nA: b\r\n\r\n"),
    ("a bare carriage return", "GET /files/reads.bam HTTP/1.1\r\nHost: h\rA: b\r\n\r\n"),
    ("a folded line", "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n"),
    ("a field that starts with a space", "GET /files/reads.bam HTTP/1.1\r\n Host: h\r\n\r\n"),
    ("a NUL", "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n"),
    ("a control character", "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nA: b\x01c\r\n\r\n"),
    ("no colon", "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nRange\r\n\r\n"),
    ("a space before the colon", "GET /files/reads.bam HTTP/1.1\r\nHost : h\r\n\r\n"),
    ("an empty name", "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n"),
    ("a body", "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
    (
        "a chunked body",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "Content-Length and Transfer-Encoding",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\
         Content-Length: 3\r\n\r\nabc",
    ),
    (
        "a list of lengths",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 3\r\n\r\nabc",
    ),
    (
        "a length that is none",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
    ),
    (
        "a coding that is none",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ),
];

fn a_request_that_breaks_the_rules_is_400_and_the_connection_is_closed(driver: Driver) {
    let (s3, proxy) = serve(driver);
    for (story, bytes) in REFUSED {
        let mut client = Client::connect(&proxy);
        client.send(bytes);
        let response = client.response_to("GET");
        assert_eq!(response.status, 400, "{story}: {}", response.text());
        response.assert_error(400);
        assert!(response.announces_close(), "{story}");
        client.assert_closed();
    }
    assert_eq!(s3.server.requests().len(), 0);
}

fn nothing_after_a_rejected_head_is_read_as_a_request(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    for (story, bytes) in REFUSED {
        let mut client = Client::connect(&proxy);
        client.send(format!("{bytes}{}", request_head("GET", TARGET, &[])));
        assert_eq!(client.response_to("GET").status, 400, "{story}");
        client.assert_closed();
    }
    // Another method may get 405, but its body is not read as a request either.
    let smuggled = request_head("GET", TARGET, &[]);
    let length = smuggled.len().to_string();
    let mut client = Client::connect(&proxy);
    client.send(request_head("POST", TARGET, &[("Content-Length", &length)]) + &smuggled);
    client.response_to("POST").assert_error(405);
    client.assert_closed();
}

fn harmless_oddities_are_served(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    for bytes in [
        "GET /files/reads.bam HTTP/1.1\r\nhost:h\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHOST:\t h \t\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h:5000\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://h/files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET HTTP://h:5000/files/reads.bam?x HTTP/1.1\r\nHost: other\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHost: [::1]:5000\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHost: my_host.example:\r\n\r\n",
        "GET http://[::1]:5000/files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /files/reads.bam HTTP/1.2\r\nHost: h\r\n\r\n",
        "GET /files/reads.bam HTTP/1.9\r\nHost: h\r\n\r\n",
        "GET /%66iles/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /%66%69%6C%65%73/%72eads%2ebam HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "\r\nGET /files/reads.bam HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nAccept: text/plain\r\n\
         Accept-Encoding: gzip, br\r\nX: \u{fc}ber\r\n\r\n",
        "GET /files/reads.bam HTTP/1.1\r\nHost: h\r\nA:\r\nA:\r\n\r\n",
    ] {
        let mut client = Client::connect(&proxy);
        client.send(bytes);
        let response = client.response_to("GET");
        response.assert(200, BASES);
        assert_eq!(response.field("content-encoding"), None);
        client.assert_open();
    }
}

/// A request for [`TARGET`] whose head has exactly this many bytes.
fn head_of_size(bytes: usize) -> String {
    let empty = request_head("GET", TARGET, &[("X", "")]).len();
    request_head("GET", TARGET, &[("X", &"x".repeat(bytes - empty))])
}

fn a_head_over_16_kib_is_431(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    for bytes in [16 * 1024 + 1, 20_000, 1_000_000] {
        let mut client = Client::connect(&proxy);
        client.try_send(head_of_size(bytes));
        let response = client.response_to("GET");
        response.assert_error(431);
        assert!(response.announces_close());
        client.assert_closed();
    }
    // The proxy must not wait for a head that never ends.
    let mut client = Client::connect(&proxy);
    client.try_send(format!("GET /{}", "a".repeat(40_000)));
    assert!(matches!(client.response_to("GET").status, 414 | 431));
}

fn a_head_just_below_16_kib_is_served(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    for bytes in [2047, 2048, 2049, 4096, 16 * 1024 - 1, 16 * 1024] {
        let mut client = Client::connect(&proxy);
        client.send(head_of_size(bytes));
        client.response_to("GET").assert(200, BASES);
        client.assert_open();
    }
}

fn more_than_100_fields_are_431(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    // `Host` is one of them.
    request(&proxy, "GET", TARGET, &[("A", "b"); 99]).assert(200, BASES);
    request(&proxy, "GET", TARGET, &[("A", "b"); 100]).assert_error(431);
}

fn other_methods_are_405_with_allow(driver: Driver) {
    let (s3, proxy) = serve(driver);
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "PROPFIND", "G"] {
        let response = request(&proxy, method, TARGET, &[]);
        response.assert_error(405);
        let allow = response.field("allow").expect("RFC 9110 §15.5.6 wants it");
        let mut allowed: Vec<_> = allow.split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["GET", "HEAD", "OPTIONS"]);
    }
    assert_eq!(s3.server.requests().len(), 0, "only reading can reach S3");
}

fn options_asterisk_is_served(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    let response = request(&proxy, "OPTIONS", "*", &[]);
    assert!(matches!(response.status, 200 | 204), "{}", response.status);
    assert!(response.field("allow").is_some_and(|allow| allow.contains("GET")));
}

fn errors_to_head_have_neither_body_nor_length(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    let mut client = Client::connect(&proxy);
    for target in ["/files/missing", "/files/missing", "/elsewhere", "/files/"] {
        let response = client.request("HEAD", target, &[]);
        // htsjdk uses the length of any response to HEAD.
        assert_eq!((response.status, response.field("content-length")), (404, None), "{target}");
    }
    let failed = client.request("HEAD", TARGET, &[("If-Match", "\"other\"")]);
    assert_eq!((failed.status, failed.field("content-length")), (412, None));
    client.assert_open();
    let bad = head(&proxy, "/files/%zz");
    assert_eq!((bad.status, bad.field("content-length")), (400, None));
}

fn a_rejected_head_request_gets_no_body(driver: Driver) {
    let (_s3, proxy) = serve(driver);
    let refused = REFUSED.map(|(_, bytes)| bytes.replace("GET ", "HEAD "));
    let too_large =
        format!("HEAD {TARGET} HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for head in refused.into_iter().chain([too_large]).filter(|head| head.starts_with("HEAD ")) {
        let mut client = Client::connect(&proxy);
        client.try_send(&head);
        let response = client.head();
        assert!(matches!(response.status, 400 | 431), "{head:?}: {}", response.status);
        assert_eq!(response.field("content-length"), None, "{head:?}");
        client.assert_closed();
    }
}
