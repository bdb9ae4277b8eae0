//! Keys reach S3 byte for byte: the response is the object stored under exactly those bytes, and
//! never one with another key.

use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::object::Object;
use crate::support::proxy::{Config, Driver, proxy_over};
use crate::support::raw_http::{Client, encode, get, get_range, head};

both_drivers!(
    every_key_of_the_torture_list_comes_back_as_itself,
    a_key_that_only_looks_the_same_is_another_one,
    raw_utf8_and_unescaped_signs_in_the_target_are_understood,
    an_encoded_slash_is_a_slash_and_nothing_is_decoded_twice,
    a_key_of_1024_bytes_is_served_and_one_more_is_414,
    a_prefix_counts_towards_the_length_of_a_key,
    no_query_ever_reaches_s3,
    the_empty_key_never_becomes_a_listing,
    a_path_without_a_key_says_so,
    a_target_that_cannot_be_a_key_is_400,
);

/// "Å" composed, and as "A" with a combining ring.
const NFC: &str = "\u{c5}ngström.bam";
const NFD: &str = "A\u{30a}ngström.bam";

/// Keys that a component between client and disk could confuse with another key.
pub(crate) fn torture_list() -> Vec<String> {
    let all_ascii: String = (0x20..0x7f_u8).map(char::from).collect();
    let controls: String = (0x01..0x20_u8).chain([0x7f]).map(char::from).collect();
    [
        "plain.bam",
        "with space.bam",
        " leading and trailing ",
        "a+b",
        "a%b",
        "100%",
        "a%20b",
        "a%2Fb",
        "%",
        "%25",
        "a#b",
        "a?b",
        "a?acl",
        "a&b=c",
        "=",
        "\"quoted\"",
        "it's",
        "`tick`",
        "(1)[2]{3}<4>",
        "a:b@c",
        "chr1:100-200",
        "user@host",
        "a;b,c",
        "$HOME",
        "~root",
        "a\\b",
        "a|b^c",
        "*",
        "!",
        "//",
        "a//b",
        "/a",
        "//a",
        "a/",
        "a//",
        "./a",
        "a/./b",
        "../a",
        "a/..",
        "a/../b",
        "..",
        ".",
        "...",
        "a/.",
        NFC,
        NFD,
        "日本語/ゲノム.bam",
        "🧬/🦠.bam",
        "\u{200b}zero-width",
        "\u{202e}right-to-left",
        "\u{feff}bom",
        "\u{7f}",
        "\u{80}",
        "\u{10ffff}",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "a\r\nX-Injected: 1",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([all_ascii, controls])
    .collect()
}

fn every_key_of_the_torture_list_comes_back_as_itself(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let keys = torture_list();
    for key in &keys {
        s3.put(key, format!("stored under {key:?}"));
    }
    let mut client = Client::connect(&proxy);
    for key in &keys {
        let (target, expected) =
            (format!("/files/{}", encode(key)), format!("stored under {key:?}"));
        let response = client.request("GET", &target, &[]);
        assert_eq!(response.text(), expected, "GET {target}");
        response.assert(200, &expected);
        let part = client.request("GET", &target, &[("Range", "bytes=0-5")]);
        part.assert(206, "stored");
        let length = client.request("HEAD", &target, &[]).content_length();
        assert_eq!(length, expected.len() as u64, "HEAD {target}");
    }
}

fn a_key_that_only_looks_the_same_is_another_one(driver: Driver) {
    let pairs = [
        (NFC, NFD),
        (NFD, NFC),
        ("a//b", "a/b"),
        ("a/b", "a//b"),
        ("a/./b", "a/b"),
        ("a/b", "a/./b"),
        ("a/../b", "b"),
        ("b", "a/../b"),
        ("a/", "a"),
        ("a", "a/"),
        ("/a", "a"),
        ("a", "/a"),
        ("a b", "a+b"),
        ("a+b", "a b"),
        ("a%2Fb", "a/b"),
        ("A", "a"),
        ("a ", "a"),
        ("..", "../.."),
        ("\u{212b}", "\u{c5}"),
        ("ﬁle", "file"),
        ("a?acl", "a"),
        ("a%20b", "a b"),
    ];
    for (stored, asked) in pairs {
        let s3 = TestS3::with(stored, "the right one");
        let proxy = proxy_over(driver, &s3);
        get(&proxy, &format!("/files/{}", encode(asked))).assert_error(404);
        get(&proxy, &format!("/files/{}", encode(stored))).assert(200, "the right one");
        assert_eq!(head(&proxy, &format!("/files/{}", encode(asked))).status, 404, "{asked:?}");
    }
}

fn raw_utf8_and_unescaped_signs_in_the_target_are_understood(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    for key in
        [NFC, NFD, "日本語.bam", "🧬", "a+b", "a:b@c!$&'()*,;=", "chr1:1-2", "[a]|b^c\"d\"<>"]
    {
        s3.put(key, key);
        get(&proxy, &format!("/files/{key}")).assert(200, key);
    }
    s3.put("a b/å", "lower-case hex");
    get(&proxy, "/files/a%20b/%c3%a5").assert(200, "lower-case hex");
    get(&proxy, "/files/%61%20%62/%C3%a5").assert(200, "lower-case hex");
}

fn an_encoded_slash_is_a_slash_and_nothing_is_decoded_twice(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    s3.put("a/b", "slash");
    s3.put("a%2Fb", "percent");
    s3.put("a+b", "plus");
    get(&proxy, "/files/a%2Fb").assert(200, "slash");
    get(&proxy, "/files/a%2fb").assert(200, "slash");
    get(&proxy, "/files/a%252Fb").assert(200, "percent");
    get(&proxy, "/files/a+b").assert(200, "plus");
    get(&proxy, "/files/a%2Bb").assert(200, "plus");
}

fn a_key_of_1024_bytes_is_served_and_one_more_is_414(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    for character in ["k", "é", "🧬"] {
        let longest = character.repeat(1024 / character.len());
        s3.put(&longest, character);
        let target = format!("/files/{}", encode(&longest));
        get(&proxy, &target).assert(200, character);
        get_range(&proxy, &target, "bytes=0-0").assert(206, &character.as_bytes()[..1]);
        s3.server.forget();
        get(&proxy, &format!("{target}x")).assert_error(414);
        assert_eq!(s3.server.requests().len(), 0);
    }
}

fn a_prefix_counts_towards_the_length_of_a_key(driver: Driver) {
    let s3 = TestS3::start();
    let mounts = format!("{{ /files/: {{ bucket: {BUCKET}, prefix: runs/ }} }}");
    let proxy = Config::over(driver, &s3).without("bucket_name").set("mounts", &mounts).start();
    let longest = "k".repeat(1024 - "runs/".len());
    s3.put(&format!("runs/{longest}"), "fits");
    get(&proxy, &format!("/files/{longest}")).assert(200, "fits");
    get(&proxy, &format!("/files/{longest}k")).assert_error(414);
}

fn no_query_ever_reaches_s3(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    let queries = [
        "acl",
        "uploads",
        "versionId=1",
        "tagging",
        "list-type=2",
        "location",
        "X-Amz-Expires=1",
        "response-content-type=text/html",
        "",
        "?",
        "/../secret",
        "partNumber=1",
        "a=b&c=d",
    ];
    for query in queries {
        let target = format!("/files/reads.bam?{query}");
        get(&proxy, &target).assert(200, "ACGT");
        assert_eq!(head(&proxy, &target).content_length(), 4);
    }
    for seen in s3.server.requests() {
        assert_eq!(seen.target, format!("/{BUCKET}/reads.bam"));
    }
}

fn the_empty_key_never_becomes_a_listing(driver: Driver) {
    let s3 = TestS3::with("secret-name", Object::new("x"));
    let proxy = proxy_over(driver, &s3);
    for target in ["/files/", "/files", "/files/?list-type=2", "/", "/?list-type=2"] {
        get(&proxy, target).assert_error(404);
        let response = head(&proxy, target);
        assert_eq!((response.status, response.field("content-length")), (404, None), "{target}");
    }
    assert_eq!(s3.server.requests().len(), 0);
}

fn a_target_that_cannot_be_a_key_is_400(driver: Driver) {
    let s3 = TestS3::start();
    let proxy = proxy_over(driver, &s3);
    let targets = [
        "/files/a%00b",
        "/files/%00",
        "/files/%FF",
        "/files/%C3%28",
        "/files/%ED%A0%80",
        "/files/%C0%AF",
        "/files/%",
        "/files/%4",
        "/files/%zz",
        "/files/%4g",
        "/files/%F4%90%80%80",
    ];
    for target in targets {
        let mut client = Client::connect(&proxy);
        let response = client.request("GET", target, &[]);
        response.assert_error(400);
        assert!(response.announces_close(), "{target}");
        client.assert_closed();
    }
    let mut client = Client::connect(&proxy);
    client.send(b"GET /files/\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n");
    client.response_to("GET").assert_error(400);
    assert_eq!(s3.server.requests().len(), 0);
}

fn a_path_without_a_key_says_so(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let proxy = proxy_over(driver, &s3);
    for path in ["/files/", "/files", "/%66iles/", "/files/?versionId=1"] {
        let response = get(&proxy, path);
        response.assert_error(404);
        assert!(response.text().starts_with("no object name"), "{path}: {}", response.text());
        assert_eq!(head(&proxy, path).status, 404, "{path}");
    }
    for path in ["/", "/file", "/filesystem/", "/other/reads.bam"] {
        let response = get(&proxy, path);
        response.assert_error(404);
        assert!(response.text().contains("outside every mount"), "{path}: {}", response.text());
    }
    assert!(s3.server.requests().is_empty());
}
