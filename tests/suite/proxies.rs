//! S3 behind an HTTP proxy, as in networks without direct access.

use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::credential_services::{CredentialServices, EXTERNAL_ID, ROLE_ARN};
use crate::support::eventually;
use crate::support::http_proxy::{HttpProxy, Mode};
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{get, get_range, head};
use crate::support::s3_server::Seen;

both_drivers!(
    https_goes_through_a_tunnel_to_a_name_that_only_the_proxy_resolves,
    plain_http_is_requested_in_absolute_form,
    connections_through_a_proxy_are_kept,
    a_name_and_a_password_are_sent_to_the_proxy_alone,
    the_key_wins_over_the_variables,
    exempt_hosts_are_reached_directly,
    an_error_of_the_http_proxy_is_reported_clearly,
    a_plain_http_proxy_that_wants_a_password_is_distinguished_from_s3,
    a_proxy_that_is_silent_or_absent_is_given_up,
    the_certificate_behind_the_proxy_is_checked_for_the_origins_name,
    sts_is_reached_through_the_proxy_and_the_metadata_service_directly,
    a_cgi_variable_is_ignored,
);

const TARGET: &str = "/files/reads.bam";
const BASIC: &str = "Basic dXNlcjpwQHNz";

/// S3 over TLS at a name that only the proxy can resolve, and a configuration for it.
fn over_tls(driver: Driver, name: &str) -> (TestS3, Config, Authority) {
    let authority = Authority::new();
    let s3 = TestS3::start_tls(authority.server(name, rustls::ALL_VERSIONS));
    s3.put("reads.bam", Object::synthetic(3_000_000));
    let endpoint = s3.server.endpoint().replace("localhost", "s3.invalid");
    let file = authority.file();
    let config = Config::new(driver, &endpoint);
    let config = config.set("ca_file", file.to_str().expect("a path of ASCII"));
    (s3, config, authority)
}

/// The same without TLS.
fn plain(driver: Driver) -> (TestS3, Config) {
    let s3 = TestS3::with("reads.bam", Object::synthetic(3_000_000));
    let endpoint = s3.server.endpoint().replace("127.0.0.1", "s3.invalid");
    (s3, Config::new(driver, &endpoint))
}

fn start(config: &Config, variables: &[(&str, &str)]) -> Proxy {
    let process = Process::with_config(&config.yaml());
    Proxy::start(
        variables.iter().fold(process, |process, (name, value)| process.environment(name, value)),
    )
}

#[track_caller]
fn assert_serves(proxy: &Proxy) {
    get(proxy, TARGET).assert(200, synthetic_bytes(0, 3_000_000));
    get_range(proxy, TARGET, "bytes=5-9").assert(206, synthetic_bytes(5, 5));
    assert_eq!(head(proxy, TARGET).content_length(), 3_000_000);
    get(proxy, "/files/no-such.bam").assert_error(404);
}

fn https_goes_through_a_tunnel_to_a_name_that_only_the_proxy_resolves(driver: Driver) {
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let (s3, config, _authority) = over_tls(driver, "s3.invalid");
        let way = HttpProxy::start(Mode::Obliging);
        let proxy = start(&config, &[(variable, &way.url())]);
        assert_serves(&proxy);
        let port = s3.server.endpoint().rsplit(':').next().expect("a port").to_owned();
        let first =
            format!("CONNECT s3.invalid:{port} HTTP/1.1\r\nHost: s3.invalid:{port}\r\n\r\n");
        assert!(way.heads().iter().all(|head| *head == first), "{:?}", way.heads());
    }
}

fn plain_http_is_requested_in_absolute_form(driver: Driver) {
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let (s3, config) = plain(driver);
        let way = HttpProxy::start(Mode::Obliging);
        let proxy = start(&config, &[(variable, &way.authority()), ("https_proxy", "")]);
        assert_serves(&proxy);
        assert!(s3.server.requests().iter().all(Seen::is_signed));
        assert!(way.heads().iter().all(|head| head.contains(" http://s3.invalid:")));
        assert!(way.heads().len() >= 3);
    }
}

fn connections_through_a_proxy_are_kept(driver: Driver) {
    let (s3, config, _authority) = over_tls(driver, "s3.invalid");
    let way = HttpProxy::start(Mode::Obliging);
    let proxy = start(&config, &[("https_proxy", &way.url())]);
    for _ in 0..10 {
        get_range(&proxy, TARGET, "bytes=0-4").assert(206, synthetic_bytes(0, 5));
    }
    assert_eq!((way.heads().len(), s3.server.accepted_connections()), (1, 1));
    let (s3, config) = plain(driver);
    let proxy = start(&config, &[("http_proxy", &way.url())]);
    for _ in 0..10 {
        get_range(&proxy, TARGET, "bytes=0-4").assert(206, synthetic_bytes(0, 5));
    }
    assert_eq!(s3.server.accepted_connections(), 1);
}

fn a_name_and_a_password_are_sent_to_the_proxy_alone(driver: Driver) {
    let way = HttpProxy::start(Mode::Wanting(BASIC));
    let url = format!("http://user:p%40ss@{}/", way.authority());
    let (_s3, config, _authority) = over_tls(driver, "s3.invalid");
    let config = config.set("log_level", "trace");
    let tunnelled = start(&config, &[("HTTPS_PROXY", &url)]);
    assert_serves(&tunnelled);
    let (s3, config) = plain(driver);
    let forwarded = start(&config.set("log_level", "trace"), &[("HTTP_PROXY", &url)]);
    assert_serves(&forwarded);
    let name = hyper::header::PROXY_AUTHORIZATION;
    assert!(s3.server.requests().iter().all(|seen| seen.field(name.clone()).is_none()));
    for log in [tunnelled.stderr(), forwarded.stderr()] {
        assert!(!log.contains("p%40ss") && !log.contains("p@ss") && !log.contains(BASIC), "{log}");
    }
}

fn the_key_wins_over_the_variables(driver: Driver) {
    let (_s3, config, _authority) = over_tls(driver, "s3.invalid");
    let way = HttpProxy::start(Mode::Obliging);
    let nowhere = [("HTTPS_PROXY", "http://127.0.0.1:1"), ("ALL_PROXY", "socks5://127.0.0.1:1")];
    assert_serves(&start(&config.set("proxy", &way.url()), &nowhere));
    let s3 = TestS3::with("reads.bam", Object::synthetic(3_000_000));
    let off = Config::over(driver, &s3).set("proxy", "off");
    assert_serves(&start(&off, &[("HTTP_PROXY", "http://127.0.0.1:1")]));
    let from_environment = [("HTTP_PROXY", "http://127.0.0.1:1"), ("S3PROXY_PROXY", "off")];
    assert_serves(&start(&Config::over(driver, &s3), &from_environment));
}

fn exempt_hosts_are_reached_directly(driver: Driver) {
    let s3 = TestS3::with("reads.bam", Object::synthetic(3_000_000));
    for list in ["127.0.0.1", "127.0.0.0/8", "*", "x, 127.0.0.1"] {
        for name in ["NO_PROXY", "no_proxy"] {
            let variables = [("HTTP_PROXY", "http://127.0.0.1:1"), (name, list)];
            get_range(&start(&Config::over(driver, &s3), &variables), TARGET, "bytes=0-4")
                .assert(206, synthetic_bytes(0, 5));
        }
    }
}

fn an_error_of_the_http_proxy_is_reported_clearly(driver: Driver) {
    for (response, status, words) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", 502, "refuses to connect to s3.invalid:"),
        ("HTTP/1.1 407 x\r\n\r\n", 502, "requires a user name and a password (407)"),
        (
            "HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\n<b>no</b>",
            502,
            "cannot connect to s3.invalid:",
        ),
        ("HTTP/1.1 504 x\r\n\r\n", 504, "gets no response from s3.invalid:"),
        ("HTTP/1.1 200 x\r\n\r\nsurprise", 502, "is malformed; is it an HTTP proxy?"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", 502, "is malformed; is it an HTTP proxy?"),
    ] {
        let way = HttpProxy::start(Mode::Responding(response.to_owned()));
        let (_s3, config, _authority) = over_tls(driver, "s3.invalid");
        let config = config.set("retries", "0");
        let proxy = start(&config, &[("HTTPS_PROXY", &way.url())]);
        get(&proxy, TARGET).assert_error(status);
        let place = format!("through the proxy {}: ", way.url());
        eventually(words, || {
            let log = proxy.stderr();
            log.lines().any(|line| line.contains(&place) && line.contains(words))
        });
        let check = Process::with_config(&config.yaml()).environment("HTTPS_PROXY", &way.url());
        let said = check.argument("--check").run();
        assert!(said.code == 1 && said.stdout.contains("through the proxy"), "{said:?}");
    }
}

fn a_plain_http_proxy_that_wants_a_password_is_distinguished_from_s3(driver: Driver) {
    let way = HttpProxy::start(Mode::Wanting(BASIC));
    let (_s3, config) = plain(driver);
    let proxy = start(&config, &[("HTTP_PROXY", &way.url())]);
    get(&proxy, TARGET).assert_error(502);
    assert_eq!(head(&proxy, TARGET).status, 502);
    let words = "the HTTP proxy requires a valid user name and password (407)";
    eventually(words, || proxy.stderr().contains(words));
}

fn a_proxy_that_is_silent_or_absent_is_given_up(driver: Driver) {
    let way = HttpProxy::start(Mode::Silent);
    let (_s3, config, _authority) = over_tls(driver, "s3.invalid");
    let config = config.set("retries", "0").set("connect_timeout", "300ms");
    let proxy = start(&config, &[("HTTPS_PROXY", &way.url())]);
    get(&proxy, TARGET).assert_error(504);
    eventually("the log says why", || proxy.stderr().contains("does not respond in time"));
    let proxy = start(&config, &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    get(&proxy, TARGET).assert_error(502);
    let (_s3, config) = plain(driver);
    let config = config.set("retries", "0").set("first_byte_timeout", "300ms");
    let proxy = start(&config, &[("HTTP_PROXY", &way.url())]);
    get(&proxy, TARGET).assert_error(504);
}

fn the_certificate_behind_the_proxy_is_checked_for_the_origins_name(driver: Driver) {
    let (s3, config, _authority) = over_tls(driver, "other.invalid");
    let way = HttpProxy::start(Mode::Obliging);
    let proxy = start(&config, &[("HTTPS_PROXY", &way.url())]);
    get(&proxy, TARGET).assert_error(502);
    eventually("the log says why", || {
        proxy.stderr().contains("its certificate is for another name: other.invalid")
    });
    assert!(s3.server.requests().is_empty());
}

fn sts_is_reached_through_the_proxy_and_the_metadata_service_directly(driver: Driver) {
    let s3 = TestS3::with("reads.bam", Object::synthetic(3_000_000));
    let services = CredentialServices::start(s3.server.keyring(), Duration::from_secs(3600));
    let way = HttpProxy::start(Mode::Obliging);
    let sts = services.url().replace("127.0.0.1", "sts.invalid");
    let bare = Config::over(driver, &s3);
    let bare = bare.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let metadata = services.url();
    let variables = |no_proxy: &'static str| {
        [
            ("HTTP_PROXY", way.url()),
            ("HTTPS_PROXY", way.url()),
            ("NO_PROXY", no_proxy.to_owned()),
            ("AWS_ENDPOINT_URL_STS", sts.clone()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.clone()),
        ]
    };
    let run = |credentials: &str| {
        let config = bare.clone().set("credentials", credentials);
        let variables = variables("x.example.org");
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let proxy = start(&config, &variables);
        assert_serves(&proxy);
    };
    run("instance");
    let to_services = |heads: &[String]| {
        heads
            .iter()
            .filter(|head| head.contains("/latest/") || head.contains("sts.invalid"))
            .count()
    };
    assert_eq!(to_services(&way.heads()), 0, "{:?}", way.heads());
    let keys = s3.server.keyring().issue(Duration::from_secs(3600));
    run(&format!(
        "{{ role_arn: '{ROLE_ARN}', external_id: '{EXTERNAL_ID}', access_key_id: {}, \
         secret_access_key: '{}', session_token: '{}' }}",
        keys.access_key,
        keys.secret_key,
        keys.token.as_deref().unwrap_or_default()
    ));
    assert!(to_services(&way.heads()) > 0, "{:?}", way.heads());
}

fn a_cgi_variable_is_ignored(driver: Driver) {
    let s3 = TestS3::with("reads.bam", Object::synthetic(3_000_000));
    let variables = [("HTTP_PROXY", "http://127.0.0.1:1"), ("REQUEST_METHOD", "GET")];
    assert_serves(&start(&Config::over(driver, &s3), &variables));
}

#[test]
fn proxies_of_other_kinds_are_rejected_with_an_explanation_if_they_would_be_used() {
    let run = |endpoint: &str, variables: &[(&str, &str)]| {
        let yaml = Config::new(Driver::Epoll, endpoint).yaml();
        let process = Process::with_config(&yaml).argument("--check");
        let process = variables
            .iter()
            .fold(process, |process, (name, value)| process.environment(name, value));
        process.run()
    };
    for (name, value, words) in [
        ("ALL_PROXY", "socks5://u:hush@p:1080", "ALL_PROXY: names a SOCKS proxy, which is not"),
        ("https_proxy", "socks4a://p:1080", "https_proxy: names a SOCKS proxy"),
        ("HTTPS_PROXY", "https://u:hush@p", "over TLS, which is not supported"),
        ("HTTPS_PROXY", "http://u:hush@p/path", "is not the URL of an HTTP proxy"),
    ] {
        let finished = run("https://127.0.0.1:1", &[(name, value)]);
        assert_eq!(finished.code, 78, "{finished:?}");
        assert!(
            finished.stderr.contains(words) && !finished.stderr.contains("hush"),
            "{finished:?}"
        );
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
        let exempt = run("https://127.0.0.1:1", &[(name, value), ("NO_PROXY", "127.0.0.1")]);
        assert_eq!(exempt.code, 1, "nobody is asked through it: {exempt:?}");
    }
    let finished = run("http://127.0.0.1:1", &[("HTTPS_PROXY", "socks5://p")]);
    assert_eq!(finished.code, 1, "no https origin is asked: {finished:?}");
    let finished = run("http://127.0.0.1:1", &[("S3PROXY_PROXY", "socks5://p")]);
    assert_eq!(finished.code, 78, "{finished:?}");
}
