//! Credentials that change and expire, and providers that fail.

use super::*;

both_drivers!(
    credentials_change_under_traffic_and_no_request_fails,
    a_service_that_is_down_at_the_start_is_retried_while_serving,
    valid_credentials_are_used_while_the_service_is_down,
    expired_credentials_are_502_and_logged_once,
    a_malformed_response_is_never_taken_for_credentials,
    nonsense_in_the_environment_is_reported_clearly,
);

/// Failed attempts after a warning with these words; they are logged at debug level only.
fn failed_attempts_after(proxy: &Proxy, words: &str) -> usize {
    let log = proxy.stderr();
    let rest = log.split_once(words).map_or("", |(_, rest)| rest);
    rest.lines().filter(|line| line.contains(" DEBUG ") && line.contains(" failed: ")).count()
}

/// Waits for a warning, which must be the only one.
#[track_caller]
fn credentials_change_under_traffic_and_no_request_fails(driver: Driver) {
    let world = World::new(driver, Duration::from_secs(6), "instance");
    let proxy = Proxy::start(world.process());
    let (end, failed) = (Instant::now() + Duration::from_secs(12), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(&proxy);
                while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                    let response = client.request("GET", TARGET, &[]);
                    if response.status != 200 || response.body != b"ACGT" {
                        failed.store(true, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a request failed");
    let used = world.access_keys_used();
    assert!(used.len() >= 3, "only {used:?} in twice the lifetime of credentials");
    assert!(warnings(&proxy).is_empty(), "{:#?}", warnings(&proxy));
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_service_that_is_down_at_the_start_is_retried_while_serving(driver: Driver) {
    let world = World::new(driver, HOUR, "instance");
    world.services.set(Mode::Down);
    let proxy = Proxy::start(world.process());
    for _ in 0..5 {
        get(&proxy, TARGET).assert_error(502);
    }
    let said = the_warning(&proxy, "requests get a 502 response");
    assert!(said.contains("credentials of the instance metadata service"), "{said}");
    assert_eq!(world.s3.server.accepted_connections(), 0, "there is no connection to S3");
    eventually("more attempts fail", || failed_attempts_after(&proxy, "cannot be loaded") >= 2);
    assert_eq!(warnings(&proxy).len(), 1, "{:#?}", warnings(&proxy));
    world.services.set(Mode::Up);
    eventually("there are credentials", || get(&proxy, TARGET).status == 200);
    assert_eq!(warnings(&proxy).len(), 1);
    world.assert_no_secret_in(&proxy.stderr());
}

fn valid_credentials_are_used_while_the_service_is_down(driver: Driver) {
    let world = World::new(driver, Duration::from_secs(15), "instance");
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.services.set(Mode::Down);
    let said = the_warning(&proxy, "cannot be refreshed");
    assert!(said.contains("The current ones are valid until 2"), "{said}");
    get(&proxy, TARGET).assert(200, "ACGT");
    world.services.set(Mode::Up);
    eventually("they are refreshed", || proxy.stderr().contains("refreshed again"));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(world.access_keys_used().len(), 2);
    assert_eq!(warnings(&proxy).len(), 1);
    world.assert_no_secret_in(&proxy.stderr());
}

fn expired_credentials_are_502_and_logged_once(driver: Driver) {
    let world = World::new(driver, Duration::from_secs(4), "instance");
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.services.set(Mode::Down);
    eventually("the credentials have expired", || get(&proxy, TARGET).status == 502);
    eventually("the log says so", || {
        warnings(&proxy).iter().any(|line| line.contains("have expired"))
    });
    world.s3.server.forget();
    for _ in 0..5 {
        get(&proxy, TARGET).assert_error(502);
    }
    assert_eq!(
        world.s3.server.requests().len(),
        0,
        "no request is signed with expired credentials"
    );
    eventually("another attempt fails", || failed_attempts_after(&proxy, "have expired") >= 1);
    let said = warnings(&proxy);
    let expired: Vec<_> = said.iter().filter(|line| line.contains("have expired")).collect();
    assert_eq!(expired.len(), 1, "{said:#?}");
    assert!(expired[0].contains("check that this instance has a role"), "{expired:?}");
    world.services.set(Mode::Up);
    eventually("there are new credentials", || get(&proxy, TARGET).status == 200);
}

fn a_malformed_response_is_never_taken_for_credentials(driver: Driver) {
    type Body<'a> = &'a (dyn Fn(&World) -> String + Sync);
    let set = |world: &World| json(&world.s3.server.keyring().issue(HOUR));
    let html = |_: &World| "<html><body>Please log in</body></html>".to_owned();
    let failed = |world: &World| set(world).replace("Success", "Failed");
    let split = |world: &World| set(world).replace("/+==", "\\r\\nx-amz-acl: public-read");
    let ended = |world: &World| json(&world.s3.server.keyring().issue(Duration::ZERO));
    let empty = |_: &World| "{}".to_owned();
    let rows: [(&str, u16, Body<'_>); 8] = [
        ("container", 200, &html),
        ("container", 200, &failed),
        ("container", 500, &set),
        ("container", 200, &split),
        ("container", 200, &ended),
        ("container", 200, &empty),
        ("instance", 403, &set),
        ("instance", 200, &html),
    ];
    std::thread::scope(|scope| {
        for (kind, status, body) in rows {
            scope.spawn(move || {
                let world = World::new(driver, HOUR, kind);
                world.services.set(Mode::Responding(status, body(&world)));
                let process = world.in_container();
                let token = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
                let proxy = Proxy::start(process.environment(token, CONTAINER_TOKEN));
                get(&proxy, TARGET).assert_error(502);
                let said = the_warning(&proxy, "requests get a 502 response");
                assert!(said.contains(kind), "{said}");
                // This machine's clock may be wrong, so S3 decides once whether they have expired.
                let most = usize::from(said.contains("the credentials issued were valid until"));
                assert!(world.s3.server.requests().len() <= most, "{said}");
                world.assert_no_secret_in(&proxy.stderr());
            });
        }
    });
}

fn nonsense_in_the_environment_is_reported_clearly(driver: Driver) {
    let rows = [
        ("instance", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "no url"),
        ("instance", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"),
        ("instance", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv5"),
        ("container", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "no url"),
        ("container", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "localhost"),
        ("auto", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "localhost"),
        ("container", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "credentials"),
        ("container", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/"),
        ("container", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere"),
        ("web_identity", "AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere"),
        ("{ profile: lab }", "AWS_CONFIG_FILE", "/dev/null"),
        ("{ profile: lab }", "AWS_CONFIG_FILE", "test.yaml"),
    ];
    std::thread::scope(|scope| {
        for (kind, variable, value) in rows {
            scope.spawn(move || {
                let world = World::new(driver, HOUR, kind);
                let mut process = world.process();
                // A configured endpoint takes precedence over its mode.
                if variable.ends_with("_MODE") {
                    process = process.environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", "");
                }
                let proxy = Proxy::start(process.environment(variable, value));
                get(&proxy, TARGET).assert_error(502);
                let said = the_warning(&proxy, "requests get a 502 response");
                let log = proxy.stderr();
                assert!(!log.contains("panicked"), "{variable}={value}: {log}");
                assert!(said.matches("; ").count() >= 1, "without a remedy: {said}");
            });
        }
    });
}
