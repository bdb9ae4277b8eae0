//! Credentials that are found and renewed: instance, container, STS, profiles and programs, in
//! good days and bad ones.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::header::AUTHORIZATION;

use crate::support::credential_services::{
    CONTAINER_TOKEN, CredentialServices, EXTERNAL_ID, IDENTITY_TOKEN, Mode, ROLE_ARN, json,
    process_json,
};
use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{Client, get};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};

both_drivers!(
    sets_change_in_mid_traffic_and_no_request_fails,
    a_service_that_is_down_at_the_start_is_waited_for_while_serving,
    the_last_good_set_is_used_while_the_service_is_down,
    a_set_that_ended_without_another_is_502_and_said_once,
    what_is_no_set_is_never_taken_for_one,
    nonsense_in_the_environment_is_told_in_words,
    keys_revoked_before_their_time_are_replaced,
    a_container_is_given_credentials_for_its_token,
    the_token_file_of_a_pod_may_change,
    a_role_is_assumed_with_its_external_id,
    a_role_that_may_not_be_assumed_is_named_with_the_reason,
    a_web_identity_is_exchanged_for_a_role,
    profiles_hold_keys_and_roles_and_programs,
    a_profile_that_is_edited_is_read_again_when_s3_refuses_it,
    the_chain_finds_what_there_is,
    check_says_which_credentials_and_why_there_are_none,
    keys_that_are_written_down_ask_nobody,
);

const TARGET: &str = "/files/reads.bam";
const HOUR: Duration = Duration::from_secs(3600);

/// S3, the services beside it, and a configuration without keys.
struct World {
    s3: TestS3,
    services: CredentialServices,
    config: Config,
}

impl World {
    fn new(driver: Driver, lifetime: Duration, credentials: &str) -> World {
        let s3 = TestS3::with("reads.bam", "ACGT");
        let services = CredentialServices::start(s3.server.keyring(), lifetime);
        let config = Config::over(driver, &s3)
            .without("AWS_ACCESS_KEY_ID")
            .without("AWS_SECRET_ACCESS_KEY")
            .set("log_level", "debug")
            .set("credentials", credentials);
        World { s3, services, config }
    }

    /// The program, which finds every service on the loopback device and nothing anywhere else.
    fn process(&self) -> Process {
        Process::with_config(&self.config.yaml())
            .environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", &self.services.url())
            .environment("AWS_ENDPOINT_URL_STS", &self.services.url())
    }

    fn in_container(&self) -> Process {
        let process = self.process();
        process.environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &self.services.container_url())
    }

    /// The access keys that requests were signed with, each once.
    fn access_keys_used(&self) -> BTreeSet<String> {
        let requests = self.s3.server.requests();
        let fields = requests.iter().filter_map(|seen| seen.field(AUTHORIZATION));
        let key =
            |field: &str| Some(field.split_once("Credential=")?.1.split_once('/')?.0.to_owned());
        fields.filter_map(key).collect()
    }

    /// Fails if anything secret is in the log.
    #[track_caller]
    fn assert_no_secret_in(&self, log: &str) {
        let issued = self.s3.server.keyring().issued();
        let secrets = issued.iter().flat_map(|keys| [Some(&keys.secret_key), keys.token.as_ref()]);
        let secrets = secrets.flatten().map(String::as_str);
        for secret in secrets.chain([CONTAINER_TOKEN, IDENTITY_TOKEN, "metadata-session-token"]) {
            assert!(!log.contains(secret), "a secret is in the log:\n{log}");
        }
    }
}

/// Lines of the log that warn of credentials.
fn warnings(proxy: &Proxy) -> Vec<String> {
    let log = proxy.stderr();
    let is_one = |line: &&str| {
        line.contains(" credentials of ") && (line.contains(" WARN ") || line.contains(" ERROR "))
    };
    log.lines().filter(is_one).map(str::to_owned).collect()
}

/// Attempts that failed since something was said of credentials, and were not said again.
fn failed_attempts_after(proxy: &Proxy, words: &str) -> usize {
    let log = proxy.stderr();
    let rest = log.split_once(words).map_or("", |(_, rest)| rest);
    rest.lines().filter(|line| line.contains(" DEBUG ") && line.contains(" failed: ")).count()
}

/// Waits for a warning, which must be the only one.
#[track_caller]
fn the_warning(proxy: &Proxy, words: &str) -> String {
    eventually(words, || warnings(proxy).iter().any(|line| line.contains(words)));
    let warnings = warnings(proxy);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    warnings[0].clone()
}

fn sets_change_in_mid_traffic_and_no_request_fails(driver: Driver) {
    let world = World::new(driver, Duration::from_secs(6), "instance");
    let proxy = Proxy::start(world.process());
    let (end, failed) = (Instant::now() + Duration::from_secs(12), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(&proxy);
                while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                    let answer = client.request("GET", TARGET, &[]);
                    if answer.status != 200 || answer.body != b"ACGT" {
                        failed.store(true, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a request failed");
    let used = world.access_keys_used();
    assert!(used.len() >= 3, "only {used:?} in twice the lifetime of a set");
    assert!(warnings(&proxy).is_empty(), "{:#?}", warnings(&proxy));
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_service_that_is_down_at_the_start_is_waited_for_while_serving(driver: Driver) {
    let world = World::new(driver, HOUR, "instance");
    world.services.set(Mode::Down);
    let proxy = Proxy::start(world.process());
    for _ in 0..5 {
        get(&proxy, TARGET).assert_error(502);
    }
    let said = the_warning(&proxy, "requests are answered 502");
    assert!(said.contains("credentials of the instance metadata service"), "{said}");
    assert_eq!(world.s3.server.accepted_connections(), 0, "S3 is not even connected to");
    eventually("more attempts fail", || failed_attempts_after(&proxy, "cannot be had") >= 2);
    assert_eq!(warnings(&proxy).len(), 1, "{:#?}", warnings(&proxy));
    world.services.set(Mode::Up);
    eventually("there are credentials", || get(&proxy, TARGET).status == 200);
    assert_eq!(warnings(&proxy).len(), 1);
    world.assert_no_secret_in(&proxy.stderr());
}

fn the_last_good_set_is_used_while_the_service_is_down(driver: Driver) {
    let world = World::new(driver, Duration::from_secs(15), "instance");
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.services.set(Mode::Down);
    let said = the_warning(&proxy, "cannot be renewed");
    assert!(said.contains("Those in use are valid until 2"), "{said}");
    get(&proxy, TARGET).assert(200, "ACGT");
    world.services.set(Mode::Up);
    eventually("they are renewed", || proxy.stderr().contains("renewed again"));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(world.access_keys_used().len(), 2);
    assert_eq!(warnings(&proxy).len(), 1);
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_set_that_ended_without_another_is_502_and_said_once(driver: Driver) {
    let world = World::new(driver, Duration::from_secs(4), "instance");
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.services.set(Mode::Down);
    eventually("the set has ended", || get(&proxy, TARGET).status == 502);
    eventually("it is said", || warnings(&proxy).iter().any(|line| line.contains("have expired")));
    world.s3.server.forget();
    for _ in 0..5 {
        get(&proxy, TARGET).assert_error(502);
    }
    assert_eq!(world.s3.server.requests().len(), 0, "nothing is sent with what has ended");
    eventually("another attempt fails", || failed_attempts_after(&proxy, "have expired") >= 1);
    let said = warnings(&proxy);
    let expired: Vec<_> = said.iter().filter(|line| line.contains("have expired")).collect();
    assert_eq!(expired.len(), 1, "{said:#?}");
    assert!(expired[0].contains("check that this instance has a role"), "{expired:?}");
    world.services.set(Mode::Up);
    eventually("there are others", || get(&proxy, TARGET).status == 200);
}

fn what_is_no_set_is_never_taken_for_one(driver: Driver) {
    let set = |world: &World| json(&world.s3.server.keyring().issue(HOUR));
    let html = |_: &World| "<html><body>Please log in</body></html>".to_owned();
    let failed = |world: &World| set(world).replace("Success", "Failed");
    let split = |world: &World| set(world).replace("/+==", "\\r\\nx-amz-acl: public-read");
    let ended = |world: &World| json(&world.s3.server.keyring().issue(Duration::ZERO));
    let empty = |_: &World| "{}".to_owned();
    type Body<'a> = &'a (dyn Fn(&World) -> String + Sync);
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
                world.services.set(Mode::Answering(status, body(&world)));
                let process = world.in_container();
                let token = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
                let proxy = Proxy::start(process.environment(token, CONTAINER_TOKEN));
                get(&proxy, TARGET).assert_error(502);
                let said = the_warning(&proxy, "requests are answered 502");
                assert!(said.contains(kind), "{said}");
                assert_eq!(world.s3.server.requests().len(), 0, "{said}");
                world.assert_no_secret_in(&proxy.stderr());
            });
        }
    });
}

fn nonsense_in_the_environment_is_told_in_words(driver: Driver) {
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
                // An endpoint that is named outright makes its mode irrelevant.
                if variable.ends_with("_MODE") {
                    process = process.environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", "");
                }
                let proxy = Proxy::start(process.environment(variable, value));
                get(&proxy, TARGET).assert_error(502);
                let said = the_warning(&proxy, "requests are answered 502");
                let log = proxy.stderr();
                assert!(!log.contains("panicked"), "{variable}={value}: {log}");
                assert!(said.matches("; ").count() >= 1, "without a remedy: {said}");
            });
        }
    });
}

fn keys_revoked_before_their_time_are_replaced(driver: Driver) {
    let world = World::new(driver, HOUR, "instance");
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.s3.server.keyring().revoke_all();
    get(&proxy, TARGET).assert_error(502);
    eventually("there is another set", || get(&proxy, TARGET).status == 200);
    assert_eq!(world.access_keys_used().len(), 2);
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_container_is_given_credentials_for_its_token(driver: Driver) {
    let world = World::new(driver, HOUR, "container");
    let process = world.in_container();
    let proxy =
        Proxy::start(process.environment("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert!(warnings(&proxy).is_empty());
    world.assert_no_secret_in(&proxy.stderr());
}

fn the_token_file_of_a_pod_may_change(driver: Driver) {
    let world = World::new(driver, HOUR, "container");
    let mut process = world.in_container();
    // A line break, as an editor leaves it, cannot be sent; the token is not shown because of it.
    process.write("token", format!("{CONTAINER_TOKEN}\n"));
    let path = process.path_of("token");
    let process = process.environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &path);
    let proxy = Proxy::start(process);
    let said = the_warning(&proxy, "requests are answered 502");
    assert!(said.contains("line break"), "{said}");
    std::fs::write(proxy.directory().join("token"), CONTAINER_TOKEN).expect("our own directory");
    eventually("the file is read again", || get(&proxy, TARGET).status == 200);
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_role_is_assumed_with_its_external_id(driver: Driver) {
    let role =
        format!("{{ role_arn: '{ROLE_ARN}', external_id: '{EXTERNAL_ID}', session_name: lab }}");
    let world = World::new(driver, Duration::from_secs(6), &role);
    // The instance's credentials assume it, found by the chain.
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert(200, "ACGT");
    let form = world.services.forms()[0].form.clone();
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!((form["RoleArn"].as_str(), form["RoleSessionName"].as_str()), (ROLE_ARN, "lab"));
    eventually("the role is assumed again", || {
        get(&proxy, TARGET).assert(200, "ACGT");
        world.access_keys_used().len() >= 2
    });
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_role_that_may_not_be_assumed_is_named_with_the_reason(driver: Driver) {
    let role = format!("{{ role_arn: '{ROLE_ARN}', external_id: another }}");
    let world = World::new(driver, HOUR, &role);
    let proxy = Proxy::start(world.process());
    get(&proxy, TARGET).assert_error(502);
    let said = the_warning(&proxy, "requests are answered 502");
    for part in [ROLE_ARN, "AccessDenied: not authorized to assume the role", "external_id"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_web_identity_is_exchanged_for_a_role(driver: Driver) {
    let world = World::new(driver, HOUR, "web_identity");
    let mut process = world.process().environment("AWS_ROLE_ARN", ROLE_ARN);
    process.write("identity", IDENTITY_TOKEN);
    let path = process.path_of("identity");
    let proxy = Proxy::start(process.environment("AWS_WEB_IDENTITY_TOKEN_FILE", &path));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(world.services.forms()[0].form["Action"], "AssumeRoleWithWebIdentity");
    world.assert_no_secret_in(&proxy.stderr());

    let named = format!("{{ role_arn: '{ROLE_ARN}', web_identity_token_file: identity }}");
    let world = World::new(driver, HOUR, &named);
    let mut process = world.process();
    process.write("identity", IDENTITY_TOKEN);
    get(&Proxy::start(process), TARGET).assert(200, "ACGT");
    assert_eq!(world.services.forms()[0].form["RoleSessionName"], "s3proxy");
}

/// The shared files of AWS's tools.
fn with_files(world: &World, config: &str, credentials: &str) -> Process {
    let mut process = world.process();
    process.write("aws-config", config);
    process.write("aws-credentials", credentials);
    let (config, credentials) = (process.path_of("aws-config"), process.path_of("aws-credentials"));
    process
        .environment("AWS_CONFIG_FILE", &config)
        .environment("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        // The program that a profile names is run by a shell.
        .environment("PATH", "/usr/bin:/bin")
}

/// A set as a section of the credentials file.
fn section(name: &str, world: &World) -> String {
    let keys = world.s3.server.keyring().issue(HOUR);
    format!(
        "[{name}]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
        keys.access_key,
        keys.secret_key,
        keys.token.expect("a temporary set")
    )
}

fn profiles_hold_keys_and_roles_and_programs(driver: Driver) {
    let world = World::new(driver, HOUR, "{ profile: lab }");
    let keys = Proxy::start(with_files(&world, "", &section("lab", &world)));
    get(&keys, TARGET).assert(200, "ACGT");
    world.assert_no_secret_in(&keys.stderr());

    let role = format!(
        "[profile lab]\nrole_arn = {ROLE_ARN}\nexternal_id = {EXTERNAL_ID}\nsource_profile = base\n"
    );
    let proxy = Proxy::start(with_files(&world, &role, &section("base", &world)));
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(world.services.forms().len(), 1);
    world.assert_no_secret_in(&proxy.stderr());

    let set = process_json(&world.s3.server.keyring().issue(HOUR));
    let mut process = with_files(&world, "[profile lab]\ncredential_process = cat set.json\n", "");
    process.write("set.json", &set);
    let proxy = Proxy::start(process);
    get(&proxy, TARGET).assert(200, "ACGT");
    world.assert_no_secret_in(&proxy.stderr());

    let failing = "[profile lab]\ncredential_process = sh -c \"cat set.json >&2; exit 3\"\n";
    let mut process = with_files(&world, failing, "");
    process.write("set.json", &set);
    let proxy = Proxy::start(process);
    get(&proxy, TARGET).assert_error(502);
    let said = the_warning(&proxy, "the profile \"lab\"");
    assert!(said.contains("exit status: 3") && said.contains("run by hand"), "{said}");
    world.assert_no_secret_in(&proxy.stderr());
}

fn a_profile_that_is_edited_is_read_again_when_s3_refuses_it(driver: Driver) {
    let world = World::new(driver, HOUR, "{ profile: lab }");
    let proxy = Proxy::start(with_files(&world, "", &section("lab", &world)));
    get(&proxy, TARGET).assert(200, "ACGT");
    world.s3.server.keyring().revoke_all();
    let file = proxy.directory().join("aws-credentials");
    std::fs::write(file, section("lab", &world)).expect("our own directory");
    eventually("the file is read again", || get(&proxy, TARGET).status == 200);
    world.assert_no_secret_in(&proxy.stderr());
}

fn the_chain_finds_what_there_is(driver: Driver) {
    // Nothing is said of credentials at all, as in most configurations on EC2 and in EKS.
    let mut world = World::new(driver, HOUR, "auto");
    world.config = world.config.without("credentials");
    get(&Proxy::start(world.process()), TARGET).assert(200, "ACGT");
    let files = with_files(&world, "", &section("default", &world));
    get(&Proxy::start(files), TARGET).assert(200, "ACGT");
    let token = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
    get(&Proxy::start(world.in_container().environment(token, CONTAINER_TOKEN)), TARGET)
        .assert(200, "ACGT");
    assert_eq!(world.access_keys_used().len(), 3);

    let nothing = world.process().environment("AWS_EC2_METADATA_DISABLED", "true");
    let proxy = Proxy::start(nothing);
    get(&proxy, TARGET).assert_error(502);
    let said = the_warning(&proxy, "requests are answered 502");
    assert!(said.contains("the AWS credential chain") && said.contains("anonymous"), "{said}");
}

fn check_says_which_credentials_and_why_there_are_none(driver: Driver) {
    let world = World::new(driver, HOUR, "instance");
    let good = world.process().argument("--check").run();
    assert_eq!(good.code, 0, "{good:?}");
    assert!(
        good.stdout.contains(", credentials of the instance metadata service: ok: "),
        "{good:?}"
    );
    world.services.set(Mode::Answering(404, "no".to_owned()));
    let bad = world.process().argument("--check").run();
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.stdout.contains("FAILED: there are no credentials: "), "{bad:?}");
    assert!(
        bad.stdout.contains("it answered 404;") && bad.stdout.contains("has a role"),
        "{bad:?}"
    );
    for finished in [good, bad] {
        world.assert_no_secret_in(&format!("{}{}", finished.stdout, finished.stderr));
    }
}

fn keys_that_are_written_down_ask_nobody(driver: Driver) {
    let mut world = World::new(driver, HOUR, "auto");
    let written = Config::over(driver, &world.s3);
    world.config = written.clone();
    let proxy = Proxy::start(world.in_container());
    get(&proxy, TARGET).assert(200, "ACGT");
    world.config = written.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let of_environment = world
        .in_container()
        .environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    get(&Proxy::start(of_environment), TARGET).assert(200, "ACGT");
    assert_eq!(world.services.request_count(), 0);
}
