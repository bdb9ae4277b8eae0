//! Tests of complete configuration files, whose result is a `Config` or the text of all
//! diagnostics.

mod credentials;
mod hostile;
mod mounts;
mod sources;
mod table;
mod yaml;

use std::time::Duration;

use super::*;
use crate::policy::{cors, route};
use crate::s3::credentials::Credentials;
use crate::s3::retry;
use crate::server::live::ClientLimits;
use crate::sys::socket::ListenAddress;
use crate::upstream;

/// A configuration file of the 2014 application.
const OF_2014: &str = r"AWS_ACCESS_KEY_ID: AKIAEXAMPLE
AWS_SECRET_ACCESS_KEY: hush/hush+hush
bucket_name: my-bucket
rewrite_rules:
  bai:
    from: '\.bam\.bai$'
    to: '.bai'
";

/// The shortest complete file.
const SHORT: &str = "bucket_name: lab\nendpoint: http://minio:9000\ncredentials: anonymous\n";

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn with(text: &str, variables: &[(&str, &str)], flags: &Overrides) -> Result<Config, String> {
    let file = Some(File { name: "config.yaml", text });
    let surroundings = Surroundings { files: FILES, profiles: Profiles::default() };
    resolve_with(file, &environment(variables), flags, &surroundings)
        .map_err(|diagnostics| diagnostics.to_string())
}

/// The files that exist in the tests.
const FILES: Files = Files {
    read: |path, _| match path.to_str() {
        Some("lab.key") => Ok(vec![1; 32]),
        Some("/etc/s3proxy/partner.key") => Ok(vec![2; 32]),
        Some("short.key") => Ok(b"hush".to_vec()),
        _ => Err(ErrorKind::NotFound.into()),
    },
    try_append: |path| match path.to_str() {
        Some("/var/log/s3proxy.log") => Ok(()),
        _ => Err(ErrorKind::PermissionDenied.into()),
    },
};

const EXAMPLE: &str = include_str!("../../../config.example.yaml");

/// The example with all defaults, which directly follow a `#`, uncommented.
fn example_with_defaults() -> String {
    let lines = EXAMPLE.lines().filter(|line| !line.starts_with("# "));
    lines.map(|line| format!("{}\n", line.trim_start_matches('#'))).collect()
}

fn config(text: &str) -> Config {
    with(text, &[], &Overrides::default()).unwrap()
}

fn says(text: &str) -> String {
    with(text, &[], &Overrides::default()).unwrap_err()
}

/// The access keys of a mount.
fn keys(mount: &route::Mount) -> Credentials {
    let source = mount.bucket.credentials.as_ref().unwrap();
    source.load().as_ref().unwrap().credentials.clone()
}

/// [`SHORT`] followed by `more`.
fn short_and(more: &str) -> String {
    format!("{SHORT}{more}\n")
}

#[test]
fn the_file_of_2014_works_unchanged() {
    let config = config(OF_2014);
    assert_eq!(config.settings.listen, ["127.0.0.1:5000".parse().map(ListenAddress::Tcp).unwrap()]);
    let [mount] = config.live.mounts.as_slice() else { panic!("one mount") };
    assert_eq!((mount.path.as_str(), mount.prefix.as_str()), ("/files/", ""));
    assert_eq!(mount.bucket.name, "my-bucket");
    let location = mount.bucket.location();
    assert_eq!(location.region, "us-east-1");
    assert_eq!(location.origin.to_string(), "https://my-bucket.s3.us-east-1.amazonaws.com");
    let credentials = keys(mount);
    assert_eq!(credentials.access_key_id(), "AKIAEXAMPLE");
    assert_eq!(credentials.secret_access_key(), "hush/hush+hush");
    assert_eq!(credentials.session_token(), None);
    let mut key = "a.bam.bai".to_owned();
    config.live.rewrite_rules.apply(&mut key);
    assert_eq!(key, "a.bai");
}

#[test]
fn only_the_bucket_is_active_in_the_example() {
    let active = EXAMPLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(active.collect::<Vec<_>>(), ["bucket_name: my-bucket"]);
    assert!(config(EXAMPLE).live.rewrite_rules.0.is_empty());
}

#[test]
fn files_that_cannot_be_used_are_mistakes_with_their_line() {
    let said = says(&short_and("ca_file: no.pem\nlog_file: /srv/x.log"));
    let expected = "\
config.yaml:4: ca_file: 'no.pem' cannot be read: entity not found; name a PEM file with the certificates of your authority
config.yaml:5: log_file: '/srv/x.log' cannot be written to: permission denied; name a file in a directory that exists";
    assert_eq!(said, expected);
    let said = with(SHORT, &[("AWS_CA_BUNDLE", "lab.key")], &Overrides::default()).unwrap_err();
    assert!(said.starts_with("environment: AWS_CA_BUNDLE: 'lab.key' holds no certificate;"));
    let flags = Overrides { log_file: Some("a\nb".to_owned()), ..Overrides::default() };
    let said = with(SHORT, &[], &flags).unwrap_err();
    assert!(said.starts_with(r"--log-file: 'a\nb' cannot be written to"), "{said}");
    assert!(config(&short_and("log_file: /var/log/s3proxy.log")).settings.log_file.is_some());
}

#[test]
fn the_long_form_of_the_example_parses_too() {
    let commented = EXAMPLE.lines().skip_while(|line| *line != "# mounts:");
    let mounts: String = commented
        .map_while(|line| line.strip_prefix("# "))
        .map(|line| format!("{line}\n"))
        .collect();
    let top = OF_2014.replace("bucket_name: my-bucket\n", "endpoint: http://minio:9000\n");
    let config = config(&format!("{top}{mounts}"));
    let paths: Vec<&str> = config.live.mounts.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(paths, ["/sequencer/", "/archive/", "/cluster/", "/partner/", "/1000g/", "/files/"]);
    assert!(config.live.mounts[4].bucket.credentials.is_none());
    assert_eq!(config.live.mounts[5].prefix, "runs/");
    let partner = &config.live.mounts[3];
    assert!(partner.allow_version_id && partner.bucket.requester_pays);
    assert!(partner.bucket.customer_key.is_some());
}

#[test]
fn all_mistakes_are_reported_at_once_in_reading_order() {
    let text = "bucket_name: lab\n\
                workers: many\n\
                endpoint: http://minio:9000/?lab\n\
                credentials: anonymous\n\
                metadata_ttl: 300\n\
                listen: [5000, '127.0.0.1:1']\n\
                metadata_tll: 5m\n\
                rewrite_rules: {bai: {from: '(', too: x}}\n";
    let variables = [("S3PROXY_DRIVER", "kqueue"), ("S3PROXY_LISTNE", "x")];
    let flags = Overrides { log_level: Some("loud".to_owned()), ..Overrides::default() };
    let said = with(text, &variables, &flags).unwrap_err();
    let expected = "\
config.yaml:2: workers: 'many' is not a number; write 'auto' or a number from 1 to 1024
config.yaml:3: endpoint: contains a query; write a host and a port, and a path if S3 is not at the root of the server
config.yaml:5: metadata_ttl: 300 has no unit; write '300s' for seconds
config.yaml:6: listen: '5000' has no address; write '127.0.0.1:5000' for this machine only, '0.0.0.0:5000' for all networks
config.yaml:7: metadata_tll: unknown key; did you mean 'metadata_ttl'?
config.yaml:8: rewrite_rules.bai.too: unknown key; did you mean 'to'?
config.yaml:8: rewrite_rules.bai: has no 'to'; write '' if it is to be empty
environment: S3PROXY_LISTNE: unknown variable; did you mean S3PROXY_LISTEN?
environment: S3PROXY_DRIVER: 'kqueue' is not a choice; write one of auto, io_uring, epoll
--log-level: 'loud' is not a choice; write one of off, error, warn, info, debug, trace";
    assert_eq!(said, expected);
}

#[test]
fn a_key_or_a_mount_written_twice_is_a_mistake() {
    let said = says(&short_and("listen: 127.0.0.1:1\nbucket_name: other"));
    assert!(said.starts_with("config.yaml:5: bucket_name is written twice"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = says("mounts:\n  /a/: {bucket: aaa}\n  /a/: {bucket: bbb}\n");
    assert!(said.starts_with("config.yaml:3: /a/ is written twice"), "{said}");
    let said = says(&short_and("listen: ['127.0.0.1:1', '127.0.0.1:1']"));
    assert!(said.contains("names http://127.0.0.1:1 twice"), "{said}");
}

#[test]
fn a_key_written_twice_hides_no_other_mistake() {
    let said = says(&short_and(
        "workers: many\nmetadata_ttl: 300\nmetadata_tll: 5m\nmetadata_ttl: soon\nworkers: 2",
    ));
    let expected = "\
config.yaml:4: workers: 'many' is not a number; write 'auto' or a number from 1 to 1024
config.yaml:5: metadata_ttl: 300 has no unit; write '300s' for seconds
config.yaml:6: metadata_tll: unknown key; did you mean 'metadata_ttl'?
config.yaml:7: metadata_ttl is written twice; keep one of the two
config.yaml:7: metadata_ttl: 'soon' is not a duration; write a whole number and its unit, such as 500ms, 30s, 5m or 2h
config.yaml:8: workers is written twice; keep one of the two";
    assert_eq!(said, expected);
}

#[test]
fn names_that_look_like_numbers_are_names() {
    let config = config(
        "bucket_name: 12345\nAWS_ACCESS_KEY_ID: 0123\nAWS_SECRET_ACCESS_KEY: 1e3\nregion: 1\n\
         endpoint: http://minio\n",
    );
    let bucket = &config.live.mounts[0].bucket;
    assert_eq!((bucket.name.as_str(), bucket.location().region.as_str()), ("12345", "1"));
    let credentials = keys(&config.live.mounts[0]);
    assert_eq!(credentials.access_key_id(), "0123");
    assert_eq!(credentials.secret_access_key(), "1e3");
}

#[test]
fn a_key_without_a_value_is_a_mistake() {
    for value in ["", "~", "null"] {
        let said = says(&short_and(&format!("workers: {value}")));
        assert_eq!(said, "config.yaml:4: workers: has no value; write one, or remove the key");
    }
    assert!(config(&short_and("rewrite_rules:")).live.rewrite_rules.0.is_empty());
}

#[test]
fn cors_is_a_star_or_off_or_a_list_of_origins() {
    let cors = |value: &str| config(&short_and(&format!("cors: {value}"))).live.cors;
    assert_eq!(cors("'*'"), cors::Policy::Any);
    for off in ["off", "false", "'off'"] {
        assert_eq!(cors(off), cors::Policy::Off);
    }
    let only = vec!["https://igv.org".to_owned(), "http://localhost:8080".to_owned()];
    assert_eq!(cors("[https://igv.org, 'http://localhost:8080']"), cors::Policy::Only(only));
    let long = format!("https://{}", "a".repeat(4096));
    for wrong in
        ["igv.org", "https://igv.org/", "https://IGV.org", "['*', 'http://a']", "http://", &long]
    {
        assert!(says(&short_and(&format!("cors: {wrong}"))).contains(":4: cors: "), "{wrong}");
    }
}

#[test]
fn a_missing_key_is_not_cached_longer_than_an_object() {
    assert_eq!(
        config(&short_and("metadata_ttl: 1s")).settings.metadata.negative_ttl,
        Duration::from_secs(1)
    );
    let said = says(&short_and("metadata_ttl: 1s\nmetadata_negative_ttl: 2s"));
    assert!(said.contains(":5: metadata_negative_ttl: is longer than metadata_ttl"), "{said}");
}

#[test]
fn connection_settings_reach_the_layers_that_use_them() {
    let config = config(&short_and(
        "max_client_connections: 1\nhead_timeout: 2s\nkeep_alive_timeout: 3s\n\
         client_stall_timeout: 4s\nclient_pause_timeout: 3s\ndrain_timeout: 0s\nupstream_max_connections: 6\n\
         upstream_max_idle_connections: 7\nupstream_idle_timeout: 8s\nconnect_timeout: 9s\n\
         first_byte_timeout: 10s\nstall_timeout: 11s\nupstream_max_waiting: 12\n\
         upstream_wait_timeout: 13s\ntls_timeout: 14s\nread_ahead: 64KiB\nretries: 15\n\
         retry_timeout: 16s\nretry_budget: 17",
    ));
    let expected = ClientLimits {
        max_connections: 1,
        head_timeout: Duration::from_secs(2),
        keep_alive_timeout: Duration::from_secs(3),
        stall_timeout: Duration::from_secs(4),
        pause_timeout: Duration::from_secs(3),
        drain_timeout: Duration::from_millis(0),
    };
    assert_eq!(config.live.clients, expected);
    let expected = upstream::Settings {
        max_connections: 6,
        max_waiting: 12,
        wait_timeout: Duration::from_secs(13),
        tls_timeout: Duration::from_secs(14),
        read_ahead: 65_536,
        max_idle_connections: 6,
        idle_timeout: Duration::from_secs(8),
        connect_timeout: Duration::from_secs(9),
        first_byte_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(11),
    };
    assert_eq!(config.settings.upstream, expected);
    let timeout = Duration::from_secs(16);
    assert_eq!(config.live.retries, retry::Settings { retries: 15, timeout, budget: 17 });
}
