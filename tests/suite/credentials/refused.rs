//! Credentials that S3 rejects or that have expired, while their provider has newer ones: no client
//! notices.

use super::*;
use crate::support::object::synthetic_bytes;
use crate::support::raw_http::{get_range, head};
use crate::support::s3_server::Keyring;
use crate::support::scripted_upstream::{ScriptedUpstream, ok, s3_error};

both_drivers!(
    credentials_that_s3_rejects_are_replaced_before_the_response,
    all_rejected_requests_share_one_refresh,
    a_body_goes_on_with_newer_credentials,
    check_refreshes_credentials_that_s3_rejects,
    a_refresh_that_brings_the_same_credentials_is_not_repeated_at_once,
    credentials_that_s3_never_accepts_are_not_loaded_again_and_again,
    an_object_that_is_always_rejected_does_not_delay_the_refresh,
    keys_of_the_configuration_are_rejected_at_once,
    a_service_that_recovered_is_used_by_the_next_request,
    an_outage_of_the_service_is_retried_now_and_then,
);

const SIZE: u64 = 4 << 20;

fn credentials_that_s3_rejects_are_replaced_before_the_response(driver: Driver) {
    type Refuse = fn(&Keyring);
    // InvalidAccessKeyId, ExpiredToken, InvalidToken.
    let ways: [Refuse; 3] = [Keyring::revoke_all, Keyring::expire_all, Keyring::spoil_all_tokens];
    for refuse in ways {
        let world = World::new(driver, HOUR, "instance");
        let proxy = Proxy::start(world.config_process(|config| config.set("metadata_ttl", "0s")));
        get(&proxy, TARGET).assert(200, "ACGT");
        refuse(world.s3.server.keyring());
        get(&proxy, TARGET).assert(200, "ACGT");
        refuse(world.s3.server.keyring());
        let response = head(&proxy, TARGET);
        assert_eq!((response.status, response.content_length()), (200, 4));
        refuse(world.s3.server.keyring());
        get_range(&proxy, TARGET, "bytes=1-2").assert(206, "CG");
        // Any number of times, as long as S3 accepts the new credentials.
        for _ in 0..4 {
            refuse(world.s3.server.keyring());
            get(&proxy, TARGET).assert(200, "ACGT");
        }
        assert_eq!(world.s3.server.keyring().issued().len(), 8);
        assert!(warnings(&proxy).is_empty(), "{:#?}", warnings(&proxy));
        world.assert_no_secret_in(&proxy.stderr());
    }
}

fn all_rejected_requests_share_one_refresh(driver: Driver) {
    let world = World::new(driver, HOUR, "instance");
    let proxy = Proxy::start(world.config_process(|config| config.set("workers", "2")));
    let at_once = || {
        std::thread::scope(|scope| {
            for number in 0..40 {
                let (proxy, target) = (&proxy, TARGET);
                scope.spawn(move || match number % 2 {
                    0 => get(proxy, target).assert(200, "ACGT"),
                    _ => get_range(proxy, target, "bytes=0-1").assert(206, "AC"),
                });
            }
        });
    };
    at_once();
    world.s3.server.keyring().expire_all();
    at_once();
    assert_eq!(world.s3.server.keyring().issued().len(), 2);
}

/// The access key that signed a request.
fn access_key(head: &str) -> Option<&str> {
    Some(head.split_once("Credential=")?.1.split_once('/')?.0)
}

fn a_body_goes_on_with_newer_credentials(driver: Driver) {
    let mut world = World::new(driver, HOUR, "instance");
    let keyring = world.s3.server.keyring().clone();
    let refusal = s3_error("400 Bad Request", "ExpiredToken");
    let upstream = {
        let keyring = keyring.clone();
        ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let head = peer.last_head();
                let is_first = access_key(&head) == Some("ASIATEMPORARY0000000");
                if peer.number == 0 {
                    peer.respond_to_last_with_part(SIZE, 1_500_000);
                    return;
                }
                assert!(keyring.issued().len() <= 2, "refreshed more than once");
                match is_first {
                    true => peer.send(&refusal),
                    false => drop(peer.respond_to_last_with_part(SIZE, SIZE as usize)),
                }
            }
        })
    };
    world.config = world.config.set("endpoint", &upstream.endpoint());
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, synthetic_bytes(0, SIZE as usize));
    assert_eq!(keyring.issued().len(), 2);
    assert_eq!(upstream.heads().len(), 3);
}

fn check_refreshes_credentials_that_s3_rejects(driver: Driver) {
    let mut world = World::new(driver, HOUR, "instance");
    let keyring = world.s3.server.keyring().clone();
    let refusal = s3_error("400 Bad Request", "ExpiredToken");
    let upstream = ScriptedUpstream::start(move |peer| {
        while peer.next_request() {
            match access_key(&peer.last_head()) == Some("ASIATEMPORARY0000000") {
                true => peer.send(&refusal),
                false => peer.send(s3_error("404 Not Found", "NoSuchKey")),
            }
        }
    });
    world.config = world.config.set("endpoint", &upstream.endpoint());
    let checked = world.process().argument("--check").run();
    assert_eq!(checked.code, 0, "{checked:?}");
    assert_eq!(keyring.issued().len(), 2);
}

fn a_refresh_that_brings_the_same_credentials_is_not_repeated_at_once(driver: Driver) {
    let world = World::new(driver, HOUR, "container");
    let keys = world.s3.server.keyring().issue(HOUR);
    world.services.set(Mode::Responding(200, json(&keys)));
    let token = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    let proxy = Proxy::start(world.in_container().environment(token, CONTAINER_TOKEN));
    get(&proxy, TARGET).assert(200, "ACGT");
    world.s3.server.keyring().expire_all();
    world.s3.server.forget();
    let (asked, began) = (world.services.request_count(), Instant::now());
    for _ in 0..20 {
        get(&proxy, TARGET).assert_error(502);
    }
    assert_eq!(world.s3.server.requests().len(), 20, "the same credentials are not sent twice");
    let loads = world.services.request_count() - asked;
    // One refresh at once, then after 1, 2, 4, … s.
    let most = 2 + began.elapsed().as_secs() as usize / 2;
    assert!((1..=most).contains(&loads), "{loads} loads");
    eventually("S3's reason is logged", || proxy.stderr().contains("ExpiredToken"));
}

fn credentials_that_s3_never_accepts_are_not_loaded_again_and_again(driver: Driver) {
    let mut world = World::new(driver, HOUR, "instance");
    let upstream = ScriptedUpstream::always(s3_error("403 Forbidden", "InvalidAccessKeyId"));
    world.config = world.config.set("endpoint", &upstream.endpoint());
    let proxy = Proxy::start(world.process());
    let began = Instant::now();
    let mut requests = 0;
    while began.elapsed() < Duration::from_secs(6) {
        get(&proxy, TARGET).assert_error(502);
        requests += 1;
    }
    let loads = world.s3.server.keyring().issued().len();
    // The first load, then refreshes after 0, 1, 2, 4, … s.
    assert!((2..=5).contains(&loads), "{loads} loads for {requests} requests");
}

fn an_object_that_is_always_rejected_does_not_delay_the_refresh(driver: Driver) {
    let mut world = World::new(driver, HOUR, "instance");
    let keyring = world.s3.server.keyring().clone();
    let upstream = {
        let keyring = keyring.clone();
        ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                let head = peer.last_head();
                let is_accepted = access_key(&head).is_some_and(|key| keyring.accepts(key));
                match (head.contains("odd"), is_accepted) {
                    (true, _) => peer.send(s3_error("403 Forbidden", "SignatureDoesNotMatch")),
                    (_, true) => peer.send(ok("ACGT")),
                    (_, false) => peer.send(s3_error("400 Bad Request", "ExpiredToken")),
                }
            }
        })
    };
    world.config = world.config.set("endpoint", &upstream.endpoint());
    let proxy = Proxy::start(world.process());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        get(&proxy, "/files/odd").assert_error(502);
    }
    assert!(keyring.issued().len() <= 3, "{} loads", keyring.issued().len());
    keyring.expire_all();
    get(&proxy, TARGET).assert(200, "ACGT");
}

fn keys_of_the_configuration_are_rejected_at_once(driver: Driver) {
    for code in ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"] {
        let upstream = ScriptedUpstream::always(s3_error("400 Bad Request", code));
        let proxy = Config::new(driver, &upstream.endpoint()).start();
        get(&proxy, TARGET).assert_error(502);
        assert_eq!(upstream.heads().len(), 1, "{code}");
    }
}

fn a_service_that_recovered_is_used_by_the_next_request(driver: Driver) {
    let world = World::new(driver, Duration::from_secs(3), "instance");
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.services.set(Mode::Down);
    // So many failures that the next scheduled attempt is at least 8 s away.
    eventually("the service fails for long", || proxy.stderr().contains("attempt 4 failed"));
    get(&proxy, TARGET).assert_error(502);
    world.services.set(Mode::Up);
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(head(&proxy, TARGET).status, 200);
}

fn an_outage_of_the_service_is_retried_now_and_then(driver: Driver) {
    let world = World::new(driver, HOUR, "instance");
    world.services.set(Mode::Down);
    let proxy = Proxy::start(world.process());
    let (asked, began) = (world.services.request_count(), Instant::now());
    while began.elapsed() < Duration::from_secs(5) {
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| get(&proxy, TARGET).assert_error(502));
            }
        });
    }
    // Each attempt is a few requests, including the library's retries.
    let attempts = proxy.stderr().matches("failed: ").count();
    assert!(attempts <= 6, "{attempts} attempts");
    assert!(world.services.request_count() > asked);
    assert_eq!(world.s3.server.accepted_connections(), 0);
    world.services.set(Mode::Up);
    get(&proxy, TARGET).assert(200, "ACGT");
}
