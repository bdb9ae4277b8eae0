//! Regions, endpoints with paths, and both as the profiles of AWS's tools configure them.

use hyper::header::AUTHORIZATION;
use seccompiler::apply_filter;

use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{get, get_range, head};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};
use crate::support::scripted_upstream::{ScriptedUpstream, ok};
use crate::support::seccomp::{EADDRNOTAVAIL, refuse_argument};

both_drivers!(
    regions_of_other_stores_are_signed_for,
    a_region_of_another_store_is_learned,
    the_path_of_an_endpoint_is_part_of_every_request,
    the_path_of_an_endpoint_comes_before_the_key_where_the_bucket_is_in_the_host,
    the_profile_says_where_s3_is,
    the_profile_of_a_mount_says_where_its_bucket_is,
    file_and_environment_win_over_the_profile,
    an_empty_profile_variable_is_unset,
    a_bucket_that_the_endpoint_names_too_is_noticed,
    a_name_with_addresses_of_both_families_works_where_ipv6_is_off,
);

const TARGET: &str = "/files/reads.bam";

fn regions_of_other_stores_are_signed_for(driver: Driver) {
    for region in ["RegionOne", "GRA", "eu_1.x"] {
        let upstream = ScriptedUpstream::always(ok("ACGT"));
        let config = Config::new(driver, &upstream.endpoint()).set("region", region);
        get(&config.start(), TARGET).assert(200, "ACGT");
        let scope = format!("/{region}/s3/aws4_request");
        assert!(upstream.heads()[0].contains(&scope), "{:?}", upstream.heads());
    }
}

fn a_region_of_another_store_is_learned(driver: Driver) {
    let upstream = ScriptedUpstream::start(|peer| {
        while peer.next_request() {
            if peer.last_head().contains("/RegionOne/s3/") {
                peer.send(ok("ACGT"));
            } else {
                let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>x</Message>\
                            <Region>RegionOne</Region></Error>";
                let length = body.len();
                let head = format!("HTTP/1.1 400 Bad\r\nContent-Length: {length}\r\n\r\n");
                peer.send(head + body);
            }
        }
    });
    let proxy = Config::new(driver, &upstream.endpoint()).start();
    get(&proxy, TARGET).assert(200, "ACGT");
    get(&proxy, TARGET).assert(200, "ACGT");
    assert_eq!(upstream.heads().len(), 3);
}

/// The store checks signatures, so each request is sent as it was signed. For the store, the first
/// segment of the endpoint's path is the bucket and the rest belongs to the key.
fn the_path_of_an_endpoint_is_part_of_every_request(driver: Driver) {
    let s3 = TestS3::with("storage/v 1/inner/a b.bam", "ACGT");
    for end in ["/storage/v%201", "/storage/v%201/", "/storage/v 1"] {
        let endpoint = format!("'{}/{BUCKET}{end}'", s3.server.endpoint());
        let config = Config::new(driver, &endpoint).set("bucket_name", "inner");
        let proxy = config.start();
        get(&proxy, "/files/a%20b.bam").assert(200, "ACGT");
        get_range(&proxy, "/files/a%20b.bam", "bytes=1-2").assert(206, "CG");
        assert_eq!(head(&proxy, "/files/a%20b.bam").content_length(), 4);
        get(&proxy, "/files/no-such.bam").assert_error(404);
        let targets: Vec<String> =
            s3.server.requests().into_iter().map(|seen| seen.target).collect();
        let below = format!("/{BUCKET}/storage/v%201/inner/");
        assert!(targets.iter().all(|target| target.starts_with(&below)), "{targets:?}");
        let check = Process::with_config(&config.yaml()).argument("--check").run();
        assert!(check.code == 0 && check.stdout.contains("/storage/v%201, "), "{check:?}");
    }
}

fn the_path_of_an_endpoint_comes_before_the_key_where_the_bucket_is_in_the_host(driver: Driver) {
    let upstream = ScriptedUpstream::always(ok("ACGT"));
    let endpoint = upstream.endpoint().replace("127.0.0.1", "localhost") + "/storage/v1/s3/";
    let proxy = Config::new(driver, &endpoint).set("addressing", "virtual").start();
    get(&proxy, TARGET).assert(200, "ACGT");
    let head = &upstream.heads()[0];
    assert!(head.starts_with("GET /storage/v1/s3/reads.bam HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("Host: {BUCKET}.localhost:")), "{head}");
}

/// A process without a configured endpoint and with these profiles in the shared files of AWS's
/// tools.
fn with_profiles(driver: Driver, config: &Config, profiles: &str) -> Process {
    let keys = format!("aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    let mut process = Process::with_config(&config.yaml());
    process.write("config", profiles.replace("KEYS", &keys));
    let path = process.path_of("config");
    process.environment("AWS_CONFIG_FILE", &path).environment("S3PROXY_DRIVER", driver.name())
}

/// A configuration with only the bucket.
fn bare(driver: Driver) -> Config {
    let config = Config::new(driver, "x").without("endpoint").without("region");
    config.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY")
}

fn the_profile_says_where_s3_is(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let url = s3.server.endpoint();
    let service = format!(
        "services = ours\nendpoint_url = http://127.0.0.1:1\n[services ours]\ns3 =\n  endpoint_url = {url}\n"
    );
    for (more, profiles) in [
        ("", format!("[default]\nKEYS\nregion = lab-1\nendpoint_url = {url}\n")),
        ("", format!("[default]\nKEYS\nregion = lab-1\n{service}")),
        ("lab", format!("[profile lab]\nKEYS\nregion = lab-1\nendpoint_url = {url}\n")),
        ("lab", format!("[profile lab]\nKEYS\nregion = lab-1\n{service}")),
    ] {
        s3.server.forget();
        for config in [bare(driver), bare(driver).set("credentials", "{ profile: lab }")] {
            let named = config.yaml().contains("profile");
            if named && more.is_empty() {
                continue;
            }
            let process = with_profiles(driver, &config, &profiles);
            let selected = if named { "" } else { more };
            let process = match selected {
                "" => process,
                name => process.environment("AWS_PROFILE", name),
            };
            let proxy = Proxy::start(process);
            get(&proxy, TARGET).assert(200, "ACGT");
            let seen = &s3.server.requests()[0];
            let field = seen.field(AUTHORIZATION).expect("a signature");
            assert!(field.contains("/lab-1/s3/"), "{field}");
        }
    }
}

fn the_profile_of_a_mount_says_where_its_bucket_is(driver: Driver) {
    let (ours, theirs) = (TestS3::with("reads.bam", "ours"), TestS3::with("reads.bam", "theirs"));
    let profiles = format!(
        "[default]\nKEYS\nendpoint_url = {}\n[profile theirs]\nKEYS\nendpoint_url = {}\n",
        ours.server.endpoint(),
        theirs.server.endpoint()
    );
    let mounts = format!(
        "{{ /files/: {{ bucket: {BUCKET} }}, \
         /theirs/: {{ bucket: {BUCKET}, credentials: {{ profile: theirs }} }} }}"
    );
    let config = bare(driver).without("bucket_name").set("mounts", &mounts);
    let proxy = Proxy::start(with_profiles(driver, &config, &profiles));
    get(&proxy, TARGET).assert(200, "ours");
    get(&proxy, "/theirs/reads.bam").assert(200, "theirs");
}

fn file_and_environment_win_over_the_profile(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let url = s3.server.endpoint();
    let profiles = "[default]\nKEYS\nregion = x\nendpoint_url = http://127.0.0.1:1/profile\n";
    let written = bare(driver).set("endpoint", &url);
    let proxy = Proxy::start(with_profiles(driver, &written, profiles));
    get(&proxy, TARGET).assert(200, "ACGT");
    for (variable, other) in
        [("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")]
    {
        let other_value = if variable == "AWS_ENDPOINT_URL" { "" } else { "http://127.0.0.1:1" };
        let process = with_profiles(driver, &bare(driver), profiles)
            .environment(variable, &url)
            .environment(other, other_value);
        get(&Proxy::start(process), TARGET).assert(200, "ACGT");
    }
    let ignoring = with_profiles(driver, &bare(driver), profiles)
        .environment("AWS_ENDPOINT_URL_S3", &url)
        .environment("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
        // So that AWS is not contacted.
        .environment("S3PROXY_ENDPOINT", "http://127.0.0.1:1/own");
    let said = ignoring.argument("--check").run();
    assert!(said.stdout.contains("at http://127.0.0.1:1/own,"), "{said:?}");
}

fn an_empty_profile_variable_is_unset(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let profiles = format!("[default]\nKEYS\nendpoint_url = {}\n", s3.server.endpoint());
    for empty in ["", " "] {
        let process = with_profiles(driver, &bare(driver), &profiles)
            .environment("AWS_PROFILE", empty)
            .environment("AWS_ACCESS_KEY_ID", empty)
            .environment("AWS_SHARED_CREDENTIALS_FILE", empty)
            .environment("AWS_REGION", empty);
        get(&Proxy::start(process), TARGET).assert(200, "ACGT");
    }
}

fn a_bucket_that_the_endpoint_names_too_is_noticed(driver: Driver) {
    let s3 = TestS3::start();
    let endpoint = format!("{}/{BUCKET}", s3.server.endpoint());
    let config = Config::new(driver, &endpoint);
    let said = Process::with_config(&config.yaml()).argument("--check").run();
    assert_eq!(said.code, 1, "{said:?}");
    let right = format!("write 'endpoint: {}'", s3.server.endpoint());
    assert!(said.stdout.contains(": FAILED: ") && said.stdout.contains(&right), "{said:?}");
}

#[test]
fn what_a_profile_says_wrongly_is_a_mistake_of_the_configuration() {
    for (profiles, words) in [
        ("[default]\nendpoint_url = ftp://x\n", "profile default: endpoint_url: 'ftp://x' is not"),
        (
            "[default]\nregion = RegionOne\n",
            "profile default: region: 'RegionOne' is not an AWS region",
        ),
        ("[default\n", "on line 1"),
    ] {
        let finished = with_profiles(Driver::Epoll, &bare(Driver::Epoll), profiles).run();
        assert_eq!(finished.code, 78, "{finished:?}");
        assert!(finished.stderr.contains(words), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
}

#[test]
fn buckets_of_s3_express_are_refused_with_a_reason() {
    let config = bare(Driver::Epoll).set("bucket_name", "lab--use1-az4--x-s3");
    let finished = Process::with_config(&config.yaml()).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("S3 Express One Zone"), "{finished:?}");
}

/// As in a container without IPv6: an address of `localhost` is not available, which is no lack of
/// ports.
fn a_name_with_addresses_of_both_families_works_where_ipv6_is_off(driver: Driver) {
    let upstream = ScriptedUpstream::always(ok("ACGT"));
    let config = Config::new(driver, &format!("http://localhost:{}", upstream.port()))
        .set("upstream_max_idle_connections", "0")
        .set("retries", "0");
    let no_ipv6 = refuse_argument(libc::SYS_socket, libc::AF_INET6 as u64, EADDRNOTAVAIL);
    let process = Process::with_config(&config.yaml()).before_exec(move || {
        apply_filter(&no_ipv6).map_err(|_| std::io::ErrorKind::PermissionDenied.into())
    });
    let proxy = Proxy::start(process);
    for _ in 0..4 {
        get(&proxy, TARGET).assert(200, "ACGT");
    }
    let port = upstream.port();
    drop(upstream);
    get(&proxy, TARGET).assert_error(502);
    let _upstream = ScriptedUpstream::always_at((std::net::Ipv4Addr::LOCALHOST, port), ok("ACGT"));
    get(&proxy, TARGET).assert(200, "ACGT");
}
