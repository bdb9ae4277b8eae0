//! Clocks that disagree: this machine's, and that of an S3 that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use s3proxy::internals::{Iso8601, unix_seconds};

use crate::support::credential_services::{CONTAINER_TOKEN, CredentialServices};
use crate::support::eventually;
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{get, head};
use crate::support::s3_server::Keyring;
use crate::support::scripted_upstream::{ScriptedUpstream, error_xml, ok};

both_drivers!(
    a_wrong_clock_is_corrected_from_any_time_that_s3_sends,
    a_head_finds_the_time_too,
    a_clock_that_is_corrected_later_is_noticed,
    without_s3s_time_this_machines_clock_is_tried_again,
    a_skew_without_s3s_time_is_502_and_logged,
    check_says_which_clock_is_off_and_which_way,
    credentials_expire_by_s3s_clock,
    credentials_that_have_expired_only_by_this_machines_clock_are_used,
);

const TARGET: &str = "/files/reads.bam";
const HOURS: i64 = 3600;

/// How S3 tells its time in an error response.
#[derive(Clone, Copy, Debug)]
enum Tells {
    Date,
    ServerTime,
    /// An invalid `Date`, and `<ServerTime>`.
    NonsenseAndServerTime,
    /// An invalid `<ServerTime>`, and `Date`.
    DateAndNonsense,
    /// A `Date` by another clock, such as a gateway's, and `<ServerTime>`.
    AnotherDateAndServerTime,
    Nothing,
}

/// An S3 whose clock is this many seconds ahead of the machine's.
struct World {
    ahead: Arc<AtomicI64>,
    upstream: ScriptedUpstream,
}

fn http_date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `20250101T000000Z`, or with hyphens and colons.
fn iso(seconds: u64, [hyphen, colon]: [&str; 2]) -> String {
    Iso8601(seconds).to_string().replace('-', hyphen).replace(':', colon)
}

/// Whether a request was signed within a few seconds of a time.
fn is_signed_at(head: &str, time: u64) -> bool {
    let times = time - 10..time + 10;
    times.map(|time| iso(time, ["", ""])).any(|time| head.contains(&format!("x-amz-date: {time}")))
}

impl World {
    fn new(ahead: i64, tells: Tells) -> World {
        let ahead = Arc::new(AtomicI64::new(ahead));
        let shared = Arc::clone(&ahead);
        let upstream = ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let now = unix_seconds().saturating_add_signed(shared.load(Ordering::SeqCst));
                let head = peer.last_head();
                if is_signed_at(&head, now) {
                    let part = head.contains("Range: bytes=0-0\r\n");
                    match part {
                        true => peer.send(
                            "HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\nContent-Length: 1\r\n\
                             Content-Range: bytes 0-0/4\r\n\r\nA",
                        ),
                        false if head.starts_with("HEAD ") => {
                            peer.send(
                                "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 4\r\n\r\n",
                            );
                        }
                        false => peer.send(ok("ACGT")),
                    }
                    continue;
                }
                peer.send(refusal(now, tells, head.starts_with("HEAD ")));
            }
        });
        World { ahead, upstream }
    }

    fn config(&self, driver: Driver) -> Config {
        Config::new(driver, &self.upstream.endpoint()).set("metadata_ttl", "0s")
    }

    /// Number of requests to S3 since the last call.
    fn requests_since(&self, seen: &mut usize) -> usize {
        let now = self.upstream.heads().len();
        now - std::mem::replace(seen, now)
    }
}

fn refusal(now: u64, tells: Tells, is_head: bool) -> String {
    let nonsense = || "Some, 99 Day 2024".to_owned();
    let (date, time) = match tells {
        Tells::Date => (Some(http_date(now)), None),
        Tells::ServerTime => (None, Some(iso(now, ["-", ":"]))),
        Tells::NonsenseAndServerTime => (Some(nonsense()), Some(iso(now, ["-", ":"]))),
        Tells::DateAndNonsense => (Some(http_date(now)), Some(nonsense())),
        Tells::AnotherDateAndServerTime => {
            (Some(http_date(now + 86_400)), Some(iso(now, ["-", ":"])))
        }
        Tells::Nothing => (None, None),
    };
    let date = date.map(|date| format!("Date: {date}\r\n")).unwrap_or_default();
    let time = time.map(|time| format!("<ServerTime>{time}</ServerTime>")).unwrap_or_default();
    let xml = error_xml("RequestTimeTooSkewed").replace("</Error>", &format!("{time}</Error>"));
    let body = if is_head { "" } else { &xml };
    format!("HTTP/1.1 403 Forbidden\r\n{date}Content-Length: {}\r\n\r\n{body}", xml.len())
}

fn a_wrong_clock_is_corrected_from_any_time_that_s3_sends(driver: Driver) {
    for tells in [
        Tells::Date,
        Tells::ServerTime,
        Tells::NonsenseAndServerTime,
        Tells::DateAndNonsense,
        Tells::AnotherDateAndServerTime,
    ] {
        for (ahead, words) in
            [(2 * HOURS, "s behind that of S3 at"), (-2 * HOURS, "s ahead of that of S3 at")]
        {
            let world = World::new(ahead, tells);
            let proxy = world.config(driver).start();
            get(&proxy, TARGET).assert(200, "ACGT");
            get(&proxy, TARGET).assert(200, "ACGT");
            assert_eq!(world.upstream.heads().len(), 3, "learned once: {tells:?}");
            // Another thread collects the log.
            eventually("the log says so", || proxy.stderr().contains("this machine's clock is "));
            let log = proxy.stderr();
            assert_eq!(log.matches("this machine's clock is ").count(), 1, "{log}");
            assert!(log.contains(words) && log.contains("(NTP)"), "{tells:?}: {log}");
            assert!(log.contains(&world.upstream.endpoint()), "{log}");
        }
    }
}

fn a_head_finds_the_time_too(driver: Driver) {
    for tells in [Tells::Date, Tells::ServerTime] {
        let world = World::new(2 * HOURS, tells);
        let proxy = world.config(driver).start();
        let response = head(&proxy, TARGET);
        assert_eq!((response.status, response.content_length()), (200, 4), "{tells:?}");
        let mut seen = world.upstream.heads().len();
        assert_eq!(head(&proxy, TARGET).status, 200);
        assert_eq!(world.requests_since(&mut seen), 1, "{tells:?}");
    }
}

fn a_clock_that_is_corrected_later_is_noticed(driver: Driver) {
    for tells in [Tells::Date, Tells::ServerTime, Tells::AnotherDateAndServerTime] {
        let world = World::new(3 * HOURS, tells);
        let proxy = world.config(driver).start();
        get(&proxy, TARGET).assert(200, "ACGT");
        for ahead in [0, -1000 * HOURS, 0] {
            world.ahead.store(ahead, Ordering::SeqCst);
            get(&proxy, TARGET).assert(200, "ACGT");
            let mut seen = world.upstream.heads().len();
            get(&proxy, TARGET).assert(200, "ACGT");
            assert_eq!(head(&proxy, TARGET).status, 200);
            assert_eq!(world.requests_since(&mut seen), 2, "{tells:?}, {ahead}");
        }
    }
}

fn without_s3s_time_this_machines_clock_is_tried_again(driver: Driver) {
    // S3 sends its time at first, and later only that the time is wrong, as if this machine's clock
    // was wrong and has been corrected.
    let requests = AtomicI64::new(0);
    let upstream = ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            let now = unix_seconds();
            match requests.fetch_add(1, Ordering::SeqCst) {
                0 => peer.send(refusal(now + 7_200, Tells::Date, false)),
                1 => peer.send(ok("ACGT")),
                _ if is_signed_at(&peer.last_head(), now) => peer.send(ok("ACGT")),
                _ => peer.send(refusal(now, Tells::Nothing, false)),
            }
        }
    });
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    for requests in [2, 4, 5] {
        get(&proxy, TARGET).assert(200, "ACGT");
        assert_eq!(upstream.heads().len(), requests);
    }
}

fn a_skew_without_s3s_time_is_502_and_logged(driver: Driver) {
    let world = World::new(2 * HOURS, Tells::Nothing);
    let proxy = world.config(driver).start();
    get(&proxy, TARGET).assert_error(502);
    assert_eq!(head(&proxy, TARGET).status, 502);
    // An error response to HEAD has no reason; a GET finds it out.
    assert_eq!(world.upstream.heads().len(), 3);
    let words = "this machine's clock and that of S3 differ";
    eventually(words, || proxy.stderr().matches(words).count() == 2);
}

fn check_says_which_clock_is_off_and_which_way(driver: Driver) {
    let world = World::new(-2 * HOURS, Tells::ServerTime);
    let process = Process::with_config(&world.config(driver).yaml());
    let checked = process.argument("--check").run();
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stdout.contains("this machine's clock is 7"), "{checked:?}");
    assert!(checked.stdout.contains("s ahead of that of S3: set it (NTP)"), "{checked:?}");
    let world = World::new(2 * HOURS, Tells::Nothing);
    let checked = Process::with_config(&world.config(driver).yaml()).argument("--check").run();
    assert_eq!(checked.code, 1, "{checked:?}");
    assert!(checked.stdout.contains("that of S3 differ: set whichever is wrong"), "{checked:?}");
}

/// The proxy with a container's credentials.
fn with_credentials(world: &World, driver: Driver, services: &CredentialServices) -> Proxy {
    let config = world
        .config(driver)
        .without("AWS_ACCESS_KEY_ID")
        .without("AWS_SECRET_ACCESS_KEY")
        .set("log_level", "debug")
        .set("credentials", "container");
    let process = Process::with_config(&config.yaml());
    Proxy::start(
        process
            .environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &services.container_url())
            .environment("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN),
    )
}

fn credentials_expire_by_s3s_clock(driver: Driver) {
    // By this machine's clock they are valid for an hour, by S3's they expired an hour ago.
    let keyring = Keyring::default();
    let services = CredentialServices::start(&keyring, Duration::from_secs(3600));
    let world = World::new(2 * HOURS, Tells::Date);
    let proxy = with_credentials(&world, driver, &services);
    get(&proxy, TARGET).assert_error(502);
    let mut seen = world.upstream.heads().len();
    assert_eq!(seen, 1, "only the request that learned the time");
    get(&proxy, TARGET).assert_error(502);
    assert_eq!(world.requests_since(&mut seen), 0);
    // Credentials that are valid by both clocks.
    let services = CredentialServices::start(&keyring, Duration::from_secs(3 * 3600));
    let proxy = with_credentials(&world, driver, &services);
    get(&proxy, TARGET).assert(200, "ACGT");
}

fn credentials_that_have_expired_only_by_this_machines_clock_are_used(driver: Driver) {
    let keyring = Keyring::default();
    for tells in [Tells::Date, Tells::ServerTime] {
        // They expire when they are issued, and are valid for two hours by S3's clock.
        let services = CredentialServices::start(&keyring, Duration::ZERO);
        let world = World::new(-2 * HOURS, tells);
        let proxy = with_credentials(&world, driver, &services);
        get(&proxy, TARGET).assert(200, "ACGT");
        assert_eq!(head(&proxy, TARGET).status, 200);
        get(&proxy, TARGET).assert(200, "ACGT");
    }
}
