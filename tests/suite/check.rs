//! `--check` on buckets that work, that fail, and whose state it cannot determine.

use std::time::{Duration, Instant};

use s3s::S3ErrorCode;

use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::object::Object;
use crate::support::process::Finished;
use crate::support::proxy::{Config, Driver, Process};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};
use crate::support::scripted_upstream::ScriptedUpstream;

both_drivers!(
    a_bucket_that_denies_everything_does_not_pass,
    a_named_object_settles_it,
    an_object_may_be_named_in_several_ways,
    a_server_that_stays_silent_is_given_up,
    a_server_that_responds_for_hours_is_given_up,
    many_silent_servers_take_as_long_as_one,
    it_says_where_the_keys_come_from,
);

fn check(config: &Config, objects: &[&str]) -> Finished {
    let process = Process::with_config(&config.yaml()).argument("--check");
    objects.iter().fold(process, |process, object| process.argument(object)).run()
}

#[track_caller]
fn assert_says(finished: &Finished, code: i32, words: &str) {
    assert_eq!(finished.code, code, "{finished:?}");
    assert!(finished.stdout.contains(words), "{words}: {finished:?}");
}

fn a_bucket_that_denies_everything_does_not_pass(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    s3.set_outage(Some(S3ErrorCode::AccessDenied));
    let config = Config::over(driver, &s3);
    let said = check(&config, &[]);
    assert_says(&said, 1, ": cannot tell: ");
    assert!(said.stdout.contains("s3proxy --check /files/KEY"), "{said:?}");
    let anonymous = config.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    assert_says(&check(&anonymous.set("credentials", "anonymous"), &[]), 1, ": cannot tell: ");
}

fn a_named_object_settles_it(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    s3.put("secret.bam", "ACGT");
    s3.put("empty.bai", "");
    s3.deny("secret.bam");
    s3.deny("s3proxy-check-of-a-key-that-need-not-exist");
    let config = Config::over(driver, &s3);
    assert_says(&check(&config, &[]), 1, ": cannot tell: ");
    assert_says(&check(&config, &["reads.bam"]), 0, ": ok: \"reads.bam\" was read");
    assert_says(&check(&config, &["empty.bai"]), 0, ": ok: an empty object was read");
    let denied = check(&config, &["secret.bam"]);
    assert_says(&denied, 1, ": FAILED: S3 denies reading \"secret.bam\"");
    let missing = check(&config, &["no-such.bam"]);
    assert_says(&missing, 1, ": FAILED: there is no object \"no-such.bam\"");
}

fn an_object_may_be_named_in_several_ways(driver: Driver) {
    let s3 = TestS3::start();
    s3.put("runs/a b.bam", Object::synthetic(100_000));
    let mount = format!("{{ bucket: {BUCKET}, prefix: runs/ }}");
    let config = Config::over(driver, &s3).without("bucket_name");
    let one = config.clone().set("mounts", &format!("{{ /lab/: {mount} }}"));
    let s3_url = format!("s3://{BUCKET}/runs/a b.bam");
    for name in ["/lab/a%20b.bam", "http://127.0.0.1:5000/lab/a b.bam?x=y", "a b.bam", &s3_url] {
        assert_says(&check(&one, &[name]), 0, "\"runs/a b.bam\" was read");
    }
    for name in ["/files/a.bam", "s3://other-bucket/runs/a", &format!("s3://{BUCKET}/a"), "s3://"] {
        let said = check(&one, &[name]);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{name}: {said:?}");
        assert!(said.stderr.contains("is not an object of any mount"), "{said:?}");
    }
    let two = config.set("mounts", &format!("{{ /lab/: {mount}, /x/: {{ bucket: {BUCKET} }} }}"));
    let said = check(&two, &["/lab/a%20b.bam"]);
    assert_says(&said, 0, "\"runs/a b.bam\" was read");
    assert_eq!(said.stdout.matches(": ok: ").count(), 2, "{said:?}");
    let said = check(&two, &["a b.bam"]);
    assert!(said.code == 1 && said.stderr.contains("several mounts"), "{said:?}");
    assert_eq!(check(&two, &["serve"]).code, 0, "a command is not an object");
}

/// A server that accepts, reads, and says nothing.
fn silent() -> ScriptedUpstream {
    ScriptedUpstream::start(|peer| {
        peer.next_request();
        peer.waits_for_close();
    })
}

fn a_server_that_stays_silent_is_given_up(driver: Driver) {
    let server = silent();
    let config = Config::new(driver, &server.endpoint()).set("first_byte_timeout", "300ms");
    assert_says(&check(&config.set("retries", "0"), &[]), 1, ": FAILED: S3: no response in time");
    let server = ScriptedUpstream::start(|peer| {
        peer.waits_for_close();
    });
    let endpoint = server.endpoint().replace("http://127.0.0.1", "https://localhost");
    let config = Config::new(driver, &endpoint).set("tls_timeout", "300ms").set("retries", "0");
    assert_says(&check(&config, &[]), 1, ": FAILED: cannot connect to https://localhost:");
}

fn a_server_that_responds_for_hours_is_given_up(driver: Driver) {
    let server = ScriptedUpstream::start(|peer| {
        peer.next_request();
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 100000\r\n\r\n<Error><Code>Access");
        peer.waits_for_close();
    });
    let config = Config::new(driver, &server.endpoint()).set("stall_timeout", "300ms");
    assert_says(&check(&config, &[]), 1, ": FAILED: ");
}

fn many_silent_servers_take_as_long_as_one(driver: Driver) {
    let server = silent();
    let mounts: Vec<String> =
        (0..10).map(|number| format!("/{number}/: {{ bucket: {BUCKET} }}")).collect();
    let config = Config::new(driver, &server.endpoint())
        .without("bucket_name")
        .set("mounts", &format!("{{ {} }}", mounts.join(", ")))
        .set("first_byte_timeout", "2s")
        .set("retries", "0");
    let began = Instant::now();
    let said = check(&config, &[]);
    assert_eq!(said.stdout.matches(": FAILED: ").count(), 10, "{said:?}");
    // In sequence they would take 20 s.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

fn it_says_where_the_keys_come_from(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let config = Config::over(driver, &s3);
    assert_says(&check(&config, &[]), 0, "credentials of the configuration: ok");
    let bare = config.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    for credentials in [None, Some("auto"), Some("environment")] {
        let config = match credentials {
            Some(kind) => bare.clone().set("credentials", kind),
            None => bare.clone(),
        };
        let process = Process::with_config(&config.yaml())
            .environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let said = process.argument("--check").run();
        assert_says(&said, 0, "credentials of the environment: ok");
    }
    let mut process = Process::with_config(&bare.set("credentials", "{ profile: lab }").yaml());
    let profile =
        format!("[lab]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n");
    process.write("credentials", profile);
    let path = process.path_of("credentials");
    let said = process.environment("AWS_SHARED_CREDENTIALS_FILE", &path).argument("--check").run();
    assert_says(&said, 0, "credentials of the profile \"lab\": ok");
}
