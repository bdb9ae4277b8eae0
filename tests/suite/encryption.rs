//! Objects encrypted with a customer-provided key (SSE-C), which is sent with each request and
//! never shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::eventually;
use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::object::Object;
use crate::support::process::Finished;
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{get, get_range, head};
use crate::support::s3_server::PUBLIC_BUCKET;

both_drivers!(
    an_encrypted_object_is_read_with_its_key,
    a_key_may_be_raw_or_base64_with_any_line_end,
    each_mount_has_its_own_key,
    a_missing_key_is_the_proxys_fault_and_named_in_the_log,
    a_key_that_is_not_wanted_is_the_proxys_fault_too,
    a_wrong_key_is_403_and_named_in_the_log,
    an_anonymous_mount_sends_its_key_too,
);

const KEY: [u8; 32] = *b"hush-hush-0123456789-hush-hush-!";
const OTHER_KEY: [u8; 32] = *b"hush-hush-another-key-hush-hush!";
const TARGET: &str = "/files/reads.bam";

/// Starts the program with `content` in the file `key` of its directory.
fn start_with_key(config: &Config, content: &[u8]) -> Proxy {
    let mut process = Process::with_config(&config.yaml());
    process.write("key", content);
    Proxy::start(process)
}

fn with_key(driver: Driver, s3: &TestS3) -> Config {
    Config::over(driver, s3).set("sse_customer_key_file", "key")
}

fn encrypted() -> TestS3 {
    TestS3::with("reads.bam", Object::new("0123456789").encrypted_with(KEY))
}

/// Fails if the text contains a key, raw or encoded.
#[track_caller]
fn assert_keeps_the_secret(text: &str) {
    for key in [KEY, OTHER_KEY] {
        let encoded = STANDARD.encode(key);
        assert!(!text.contains("hush") && !text.contains(&encoded[..8]), "{text}");
    }
}

fn an_encrypted_object_is_read_with_its_key(driver: Driver) {
    let s3 = encrypted();
    let proxy = start_with_key(&with_key(driver, &s3).set("log_level", "trace"), &KEY);
    assert_eq!(head(&proxy, TARGET).content_length(), 10);
    let response = get(&proxy, TARGET);
    response.assert(200, "0123456789");
    for name in ["algorithm", "key", "key-md5"] {
        let name = format!("x-amz-server-side-encryption-customer-{name}");
        assert_eq!(response.field(&name), None, "not for clients");
    }
    get_range(&proxy, TARGET, "bytes=3-5").assert(206, "345");
    get(&proxy, "/files/missing").assert_error(404);
    assert_keeps_the_secret(&proxy.stderr());
}

fn a_key_may_be_raw_or_base64_with_any_line_end(driver: Driver) {
    let s3 = encrypted();
    let encoded = STANDARD.encode(KEY);
    for end in ["", "\n", "\r\n"] {
        let proxy = start_with_key(&with_key(driver, &s3), format!("{encoded}{end}").as_bytes());
        get(&proxy, TARGET).assert(200, "0123456789");
    }
}

fn each_mount_has_its_own_key(driver: Driver) {
    let s3 = encrypted();
    s3.put_in("other-bucket", "reads.bam", Object::new("other").encrypted_with(OTHER_KEY));
    s3.put_in("plain-bucket", "reads.bam", "plain");
    let mounts = format!(
        "{{ /files/: {{ bucket: {BUCKET}, sse_customer_key_file: key }}, \
         /other/: {{ bucket: other-bucket, sse_customer_key_file: other }}, \
         /plain/: {{ bucket: plain-bucket }} }}"
    );
    let config = Config::over(driver, &s3).without("bucket_name").set("mounts", &mounts);
    let mut process = Process::with_config(&config.yaml());
    process.write("key", KEY);
    process.write("other", OTHER_KEY);
    let proxy = Proxy::start(process);
    get(&proxy, TARGET).assert(200, "0123456789");
    get(&proxy, "/other/reads.bam").assert(200, "other");
    get(&proxy, "/plain/reads.bam").assert(200, "plain");
}

/// Both methods get `status`, and the log names the setting that may be wrong.
#[track_caller]
fn assert_blames_the_key(proxy: &Proxy, status: u16) {
    let response = get(proxy, TARGET);
    response.assert_error(status);
    assert_keeps_the_secret(&response.text());
    eventually("the log names the setting", || {
        proxy.stderr().contains("check 'sse_customer_key_file' of this mount")
    });
    let response = head(proxy, TARGET);
    assert_eq!((response.status, response.field("content-length")), (status, None));
    assert_keeps_the_secret(&proxy.stderr());
}

fn a_missing_key_is_the_proxys_fault_and_named_in_the_log(driver: Driver) {
    let s3 = encrypted();
    let proxy = Config::over(driver, &s3).start();
    assert_blames_the_key(&proxy, 502);
    let proxy = Config::over(driver, &s3).start();
    assert_eq!(head(&proxy, TARGET).status, 502, "a HEAD alone finds out too");
}

fn a_key_that_is_not_wanted_is_the_proxys_fault_too(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "not encrypted");
    let proxy = start_with_key(&with_key(driver, &s3), &KEY);
    assert_blames_the_key(&proxy, 502);
}

fn a_wrong_key_is_403_and_named_in_the_log(driver: Driver) {
    let s3 = encrypted();
    let proxy = start_with_key(&with_key(driver, &s3), &OTHER_KEY);
    // S3 responds with `AccessDenied`, as for an object that nobody may read.
    assert_blames_the_key(&proxy, 403);
}

fn an_anonymous_mount_sends_its_key_too(driver: Driver) {
    let s3 = TestS3::start();
    s3.put_in(PUBLIC_BUCKET, "reads.bam", Object::new("public").encrypted_with(KEY));
    let config = with_key(driver, &s3)
        .set("bucket_name", PUBLIC_BUCKET)
        .set("credentials", "anonymous")
        .without("AWS_ACCESS_KEY_ID")
        .without("AWS_SECRET_ACCESS_KEY");
    let proxy = start_with_key(&config, &KEY);
    get(&proxy, TARGET).assert(200, "public");
    assert!(!s3.server.requests()[0].is_signed());
}

/// Runs `--check` with this endpoint and this content of the key file.
fn check(endpoint: &str, content: Option<&[u8]>) -> Finished {
    let config = Config::new(Driver::Epoll, endpoint).set("sse_customer_key_file", "key");
    let mut process = Process::with_config(&config.yaml()).argument("--check");
    if let Some(content) = content {
        process.write("key", content);
    }
    process.run()
}

#[test]
fn a_key_file_that_holds_no_key_is_refused_in_one_line() {
    for (content, part) in [
        (None, "cannot be read: No such file or directory"),
        (Some(&b""[..]), "the file is empty"),
        (Some(&KEY[..31]), "the file has 31 bytes, which are not base64"),
        (Some(b"aHVzaA==\n"), "the file has the base64 of 4 bytes"),
    ] {
        let finished = check("http://127.0.0.1:9", content);
        assert_eq!(finished.code, 78, "{finished:?}");
        let said = finished.stderr;
        assert!(said.contains("sse_customer_key_file: ") && said.contains(part), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_keeps_the_secret(&said);
    }
}

#[test]
fn a_key_in_the_place_of_its_files_name_is_not_repeated() {
    let config = Config::new(Driver::Epoll, "http://127.0.0.1:9");
    let config = config.set("sse_customer_key_file", &STANDARD.encode(KEY));
    let finished = Process::with_config(&config.yaml()).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert_keeps_the_secret(&finished.stderr);
}

#[test]
fn sending_the_key_unencrypted_logs_a_warning() {
    let s3 = encrypted();
    let check_at = |endpoint: &str| check(endpoint, Some(&KEY)).stdout;
    let here = check_at(&s3.server.endpoint());
    assert!(here.contains("(encryption key): ok") && !here.contains("unencrypted"), "{here}");
    // Nothing listens there, and the warning comes before any request is sent.
    let elsewhere = "http://192.0.2.1:9";
    let config = Config::new(Driver::Epoll, elsewhere).set("sse_customer_key_file", "key");
    let proxy = start_with_key(&config, &KEY);
    let warning = "the encryption key ('sse_customer_key_file') is sent to http://192.0.2.1:9";
    eventually("the log warns", || proxy.stderr().contains(warning));
    let proxy = start_with_key(&config.set("endpoint", &s3.server.endpoint()), &KEY);
    get(&proxy, TARGET).assert(200, "0123456789");
    assert!(!proxy.stderr().contains("unencrypted"), "{}", proxy.stderr());
}
