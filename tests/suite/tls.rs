//! S3 over HTTPS: trusted certificates, and connections that are cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::support::certificates::{Authority, SelfSigned};
use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::object::{Object, synthetic_bytes};
use crate::support::proxy::{Config, Driver, Process};
use crate::support::raw_http::{Client, get, get_range, head, request_head};
use crate::support::s3_server::Seen;
use crate::support::scripted_upstream::{ScriptedUpstream, ok_head};

both_drivers!(
    objects_come_byte_for_byte_with_tls_1_2_only,
    objects_come_byte_for_byte_with_tls_1_3_only,
    connections_are_kept_and_new_ones_resume_the_session,
    many_clients_at_once_get_their_own_bytes,
    a_certificate_of_an_unknown_authority_is_rejected,
    a_certificate_for_another_name_is_rejected,
    an_expired_certificate_is_rejected,
    a_certificate_that_is_not_valid_yet_is_rejected,
    a_certificate_named_in_ca_file_is_trusted,
    a_certificate_of_an_unknown_authority_named_in_ca_file_is_trusted,
    a_certificate_that_is_named_itself_is_for_its_time_and_name_only,
    an_authority_outside_ca_file_cannot_be_a_server,
    a_server_that_ends_the_handshake_is_described,
    a_server_without_tls_is_recognized,
    a_handshake_that_does_not_end_is_given_up,
    a_body_that_is_cut_without_close_notify_is_not_complete,
    a_body_without_a_length_is_never_taken_for_an_object,
    a_broken_body_goes_on_over_a_new_connection,
    a_tls_record_that_arrives_in_two_parts_is_completed,
);

const MIB: usize = 1 << 20;

fn over(driver: Driver, endpoint: &str, authority: &Authority) -> Config {
    let file = authority.file();
    Config::new(driver, endpoint).set("ca_file", file.to_str().expect("a path of ASCII"))
}

fn objects_come_byte_for_byte(driver: Driver, version: &'static SupportedProtocolVersion) {
    let authority = Authority::new();
    let s3 = TestS3::start_tls(authority.server("localhost", &[version]));
    s3.put("big.bam", Object::synthetic(64 << 20));
    s3.put("empty.bai", "");
    let proxy = over(driver, &s3.server.endpoint(), &authority).start();
    get(&proxy, "/files/big.bam").assert(200, synthetic_bytes(0, 64 * MIB));
    assert_eq!(head(&proxy, "/files/big.bam").content_length(), 64 << 20);
    for (first, length) in [(0, 1), (1, 4096), (65_535, 65_537), (5_000_001, 3 * MIB), (7, 16_384)]
    {
        let range = format!("bytes={first}-{}", first + length - 1);
        let response = get_range(&proxy, "/files/big.bam", &range);
        response.assert(206, synthetic_bytes(first as u64, length));
    }
    get_range(&proxy, "/files/big.bam", "bytes=-100000")
        .assert(206, synthetic_bytes((64 << 20) - 100_000, 100_000));
    get(&proxy, "/files/empty.bai").assert(200, "");
    get(&proxy, "/files/no-such").assert_error(404);
    assert!(s3.server.requests().iter().all(Seen::is_signed));
}

fn objects_come_byte_for_byte_with_tls_1_2_only(driver: Driver) {
    objects_come_byte_for_byte(driver, &TLS12);
}

fn objects_come_byte_for_byte_with_tls_1_3_only(driver: Driver) {
    objects_come_byte_for_byte(driver, &TLS13);
}

fn connections_are_kept_and_new_ones_resume_the_session(driver: Driver) {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let s3 = TestS3::start_tls(authority.server("localhost", &[version]));
        s3.put("a.bam", "bytes");
        let config = over(driver, &s3.server.endpoint(), &authority);
        let proxy = config.start();
        for _ in 0..20 {
            get_range(&proxy, "/files/a.bam", "bytes=0-4").assert(206, "bytes");
        }
        assert_eq!(s3.server.accepted_connections(), 1, "{version:?}");
        drop(proxy);

        let proxy = config.set("upstream_max_idle_connections", "0").start();
        for _ in 0..3 {
            get_range(&proxy, "/files/a.bam", "bytes=0-4").assert(206, "bytes");
        }
        assert_eq!(s3.server.accepted_connections(), 4, "{version:?}");
        assert_eq!(s3.server.resumed_sessions(), 2, "{version:?}");
    }
}

fn many_clients_at_once_get_their_own_bytes(driver: Driver) {
    let authority = Authority::new();
    let s3 = TestS3::start_tls(authority.server("localhost", rustls::ALL_VERSIONS));
    s3.put("big.bam", Object::synthetic(1 << 30));
    let proxy = over(driver, &s3.server.endpoint(), &authority).start();
    std::thread::scope(|scope| {
        for number in 0..16_u64 {
            let proxy = &proxy;
            scope.spawn(move || {
                for turn in 0..4 {
                    let first = number * 50_000_017 + turn * 1_000_003;
                    let length = 400_000 + 1000 * turn as usize;
                    let range = format!("bytes={first}-{}", first + length as u64 - 1);
                    get_range(proxy, "/files/big.bam", &range)
                        .assert(206, synthetic_bytes(first, length));
                }
            });
        }
    });
}

/// Fails unless such a server is refused with 502, at once, and with these words in the log.
#[track_caller]
fn assert_rejected(config: &Config, words: &str) {
    let proxy = config.start();
    let asked = Instant::now();
    get(&proxy, "/files/a.bam").assert_error(502);
    assert!(asked.elapsed() < Duration::from_secs(4), "was tried again, which cannot help");
    eventually("the log says why", || proxy.stderr().contains(words));
}

fn a_certificate_of_an_unknown_authority_is_rejected(driver: Driver) {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let s3 = TestS3::start_tls(theirs.server("localhost", rustls::ALL_VERSIONS));
    s3.put("a.bam", "bytes");
    assert_rejected(&over(driver, &s3.server.endpoint(), &ours), "'ca_file'");
    assert!(s3.server.requests().is_empty());
}

fn a_certificate_for_another_name_is_rejected(driver: Driver) {
    let authority = Authority::new();
    let s3 = TestS3::start_tls(authority.server("minio.example.org", rustls::ALL_VERSIONS));
    s3.put("a.bam", "bytes");
    let config = over(driver, &s3.server.endpoint(), &authority);
    assert_rejected(&config, "its certificate is for another name");
    assert!(s3.server.requests().is_empty());
}

fn an_expired_certificate_is_rejected(driver: Driver) {
    let authority = Authority::new();
    let s3 = TestS3::start_tls(authority.expired_server("localhost"));
    s3.put("a.bam", "bytes");
    let config = over(driver, &s3.server.endpoint(), &authority);
    assert_rejected(&config, "its certificate has expired");
    assert!(s3.server.requests().is_empty());
}

fn a_certificate_that_is_not_valid_yet_is_rejected(driver: Driver) {
    let authority = Authority::new();
    let s3 = TestS3::start_tls(authority.future_server("localhost"));
    let config = over(driver, &s3.server.endpoint(), &authority);
    assert_rejected(&config, "its certificate is not valid yet");
}

/// A server that shows this certificate, and a configuration that names it.
fn naming(driver: Driver, certificate: &SelfSigned) -> (TestS3, Config, TempDir) {
    naming_that_of(driver, certificate.server(rustls::ALL_VERSIONS))
}

fn naming_that_of(
    driver: Driver,
    (tls, pem): (Arc<ServerConfig>, String),
) -> (TestS3, Config, TempDir) {
    let s3 = TestS3::start_tls(tls);
    s3.put("a.bam", "bytes");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("server.pem");
    std::fs::write(&path, pem).expect("a new file");
    let config = Config::new(driver, &s3.server.endpoint());
    let config = config.set("ca_file", path.to_str().expect("a path of ASCII"));
    (s3, config, directory)
}

fn a_certificate_named_in_ca_file_is_trusted(driver: Driver) {
    for is_authority in [true, false] {
        let (_s3, config, _directory) = naming(driver, &SelfSigned::new("localhost", is_authority));
        let proxy = config.start();
        get(&proxy, "/files/a.bam").assert(200, "bytes");
        get_range(&proxy, "/files/a.bam", "bytes=1-2").assert(206, "yt");
        assert_eq!(proxy.stderr().matches(" WARN ").count(), 0, "{}", proxy.stderr());
    }
}

fn a_certificate_of_an_unknown_authority_named_in_ca_file_is_trusted(driver: Driver) {
    let authority = Authority::new();
    let server = authority.server_and_certificate("localhost");
    let (_s3, config, _directory) = naming_that_of(driver, server);
    get(&config.start(), "/files/a.bam").assert(200, "bytes");
    let server = authority.server_and_certificate("minio.example.org");
    let (_s3, config, _directory) = naming_that_of(driver, server);
    assert_rejected(&config, "its certificate is for another name: minio.example.org");
    // Another certificate of the same authority is not in `ca_file`.
    let (_s3, config, _directory) =
        naming_that_of(driver, authority.server_and_certificate("localhost"));
    let other = TestS3::start_tls(authority.server("localhost", rustls::ALL_VERSIONS));
    let config = config.set("endpoint", &other.server.endpoint());
    assert_rejected(&config, "its certificate is not from a trusted authority");
}

fn a_certificate_that_is_named_itself_is_for_its_time_and_name_only(driver: Driver) {
    for is_authority in [true, false] {
        let other = SelfSigned::new("minio.example.org", is_authority);
        let (s3, config, _directory) = naming(driver, &other);
        assert_rejected(&config, "its certificate is for another name: minio.example.org");
        assert!(s3.server.requests().is_empty());
        let old = SelfSigned::new("localhost", is_authority).expired();
        let (s3, config, _directory) = naming(driver, &old);
        assert_rejected(&config, "its certificate has expired");
        assert!(s3.server.requests().is_empty());
    }
}

fn an_authority_outside_ca_file_cannot_be_a_server(driver: Driver) {
    let authority = Authority::new();
    let (tls, _) = SelfSigned::new("localhost", true).server(rustls::ALL_VERSIONS);
    let s3 = TestS3::start_tls(tls);
    let config = over(driver, &s3.server.endpoint(), &authority);
    assert_rejected(&config, "basicConstraints=critical,CA:FALSE");
    assert!(s3.server.requests().is_empty());
}

fn a_server_that_ends_the_handshake_is_described(driver: Driver) {
    let authority = Authority::new();
    for (alert, words) in [
        (40, "it ends the handshake: it and this program have no cipher suite in common"),
        (70, "it does not speak TLS 1.2 or 1.3"),
        (112, "it does not know the host name of the request"),
        (80, "it ends the connection with TLS alert 80"),
    ] {
        let upstream = ScriptedUpstream::start(move |peer| {
            peer.send([21, 3, 3, 0, 2, 2, alert]);
            peer.waits_for_close();
        });
        let endpoint = upstream.endpoint().replace("http://127.0.0.1", "https://localhost");
        assert_rejected(&over(driver, &endpoint, &authority), words);
    }
}

fn a_server_without_tls_is_recognized(driver: Driver) {
    let authority = Authority::new();
    let s3 = TestS3::with("a.bam", "bytes");
    let endpoint = s3.server.endpoint().replace("http://127.0.0.1", "https://localhost");
    assert_rejected(&over(driver, &endpoint, &authority), "it does not speak TLS there");
}

fn a_handshake_that_does_not_end_is_given_up(driver: Driver) {
    let authority = Authority::new();
    let upstream = ScriptedUpstream::start(|peer| {
        peer.waits_for_close();
        std::thread::sleep(Duration::from_secs(2));
    });
    let endpoint = upstream.endpoint().replace("http://127.0.0.1", "https://localhost");
    let config = over(driver, &endpoint, &authority).set("tls_timeout", "200ms");
    let proxy = config.set("retries", "1").start();
    get(&proxy, "/files/a.bam").assert_error(504);
    assert_eq!(upstream.connections(), 2);
}

fn a_body_that_is_cut_without_close_notify_is_not_complete(driver: Driver) {
    let authority = Authority::new();
    let tls = authority.server("localhost", rustls::ALL_VERSIONS);
    let upstream = ScriptedUpstream::start_tls(tls, |peer| {
        peer.respond_with_part(4 << 20, 3 << 20);
    });
    let config = over(driver, &upstream.endpoint(), &authority).set("retries", "0");
    let proxy = config.start();
    let mut client = Client::connect(&proxy);
    client.send(request_head("GET", "/files/a.bam", &[]));
    assert_eq!(client.head().content_length(), 4 << 20);
    assert_eq!(client.rest(), synthetic_bytes(0, 3 * MIB));
}

fn a_body_without_a_length_is_never_taken_for_an_object(driver: Driver) {
    let authority = Authority::new();
    let tls = authority.server("localhost", rustls::ALL_VERSIONS);
    let upstream = ScriptedUpstream::start_tls(tls, |peer| {
        if peer.next_request() {
            peer.send(ok_head(7).replace("Content-Length: 7\r\n", ""));
            peer.send("looks w");
        }
    });
    let proxy = over(driver, &upstream.endpoint(), &authority).start();
    get(&proxy, "/files/a.bam").assert_error(502);
}

fn a_broken_body_goes_on_over_a_new_connection(driver: Driver) {
    let authority = Authority::new();
    let tls = authority.server("localhost", rustls::ALL_VERSIONS);
    let upstream = ScriptedUpstream::start_tls(tls, |peer| {
        peer.respond_with_part(4 << 20, 1_500_000);
    });
    let proxy = over(driver, &upstream.endpoint(), &authority).start();
    get(&proxy, "/files/a.bam").assert(200, synthetic_bytes(0, 4 * MIB));
    assert_eq!(upstream.connections(), 3);
}

fn a_tls_record_that_arrives_in_two_parts_is_completed(driver: Driver) {
    let authority = Authority::new();
    let tls = authority.server("localhost", rustls::ALL_VERSIONS);
    let body = synthetic_bytes(0, 300_000);
    let sent = body.clone();
    let upstream = ScriptedUpstream::start_tls(tls, move |peer| {
        while peer.next_request() {
            peer.send(ok_head(sent.len()));
            peer.send_with_a_late_end(&sent, 10, Duration::from_millis(300));
        }
    });
    // The ten bytes are fewer than the receive low-water mark that was set before.
    let config = over(driver, &upstream.endpoint(), &authority);
    let proxy = config.set("stall_timeout", "2s").set("retries", "0").start();
    for _ in 0..3 {
        get(&proxy, "/files/a.bam").assert(200, &body);
    }
}

#[test]
fn a_file_of_authorities_that_cannot_be_read_is_named() {
    let config = Config::new(Driver::Epoll, "https://localhost:1").set("ca_file", "no-such.pem");
    let finished = Process::with_config(&config.yaml()).run();
    assert_eq!(finished.code, 78);
    let said = "ca_file: 'no-such.pem' cannot be read: No such file or directory";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    assert!(finished.stderr.starts_with("test.yaml:"), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
}
