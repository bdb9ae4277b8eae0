//! Precedence of file, environment and flags, and how the file is found.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::policy::cors;
use crate::sys::event_loop;

#[test]
fn flags_override_the_environment_and_the_environment_overrides_the_file() {
    let text = short_and("workers: 1\nlog_level: error\nmetadata_ttl: 1m");
    let variables =
        [("S3PROXY_WORKERS", "2"), ("S3PROXY_LOG_LEVEL", "warn"), ("S3PROXY_DRIVER", "")];
    let flags = Overrides { workers: Some("3".to_owned()), ..Overrides::default() };
    let config = with(&text, &variables, &flags).unwrap();
    assert_eq!(config.settings.workers, Some(3));
    assert_eq!(config.settings.log_level, log::LevelFilter::Warn);
    assert_eq!(config.settings.metadata.ttl.as_secs(), 60);
    assert_eq!(config.settings.driver, event_loop::Choice::Auto);
}

#[test]
fn a_mistake_is_reported_even_if_another_source_overrides_it() {
    let flags = Overrides { workers: Some("3".to_owned()), ..Overrides::default() };
    assert!(with(&short_and("workers: x"), &[], &flags).unwrap_err().contains("config.yaml:4:"));
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let variables = [("S3PROXY_LISTEN", "127.0.0.1:1, [::1]:2"), ("S3PROXY_CORS", "off")];
    let config = with(SHORT, &variables, &Overrides::default()).unwrap();
    assert_eq!(config.settings.listen.len(), 2);
    assert_eq!(config.live.cors, cors::Policy::Off);
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_named_s3proxy_are_ignored() {
    let variables = [
        ("S3PROXY_SERVICE_HOST", "10.0.0.1"),
        ("S3PROXY_PORT", "tcp://10.0.0.1:5000"),
        ("S3PROXY_PORT_5000_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(with(SHORT, &variables, &Overrides::default()).is_ok());
}

#[test]
fn region_and_endpoint_come_from_the_most_specific_variable() {
    let mut variables = vec![
        ("AWS_DEFAULT_REGION", "c"),
        ("AWS_ENDPOINT_URL", "http://c"),
        ("AWS_REGION", ""),
        ("AWS_ENDPOINT_URL_S3", "http://b"),
    ];
    let bucket = |variables: &[(&str, &str)]| {
        let config = with(SHORT, variables, &Overrides::default()).unwrap();
        let bucket = Arc::clone(&config.live.mounts[0].bucket);
        (bucket.location().region.clone(), bucket.location().origin.host.clone())
    };
    assert_eq!(bucket(&variables), ("c".to_owned(), "b".to_owned()));
    variables[2].1 = "b";
    variables.extend([("S3PROXY_REGION", "a"), ("S3PROXY_ENDPOINT", "http://a")]);
    assert_eq!(bucket(&variables), ("a".to_owned(), "a".to_owned()));
}

/// A directory of its own for one test.
fn scratch(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("s3proxy-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn load_says(path: &Path) -> String {
    load(Some(path), &environment(&[]), &Overrides::default()).unwrap_err().to_string()
}

#[test]
fn a_configuration_file_must_exist_be_small_and_be_text() {
    let directory = scratch("files");
    let path = directory.join("config.yaml");
    let shown = path.display();
    assert_eq!(
        load_says(&path),
        format!(
            "{shown}: there is no such file; write one or name it with -c FILE; see config.example.yaml"
        )
    );
    std::fs::write(&path, SHORT).unwrap();
    assert!(load(Some(&path), &environment(&[]), &Overrides::default()).is_ok());
    std::fs::write(&path, b"bucket_name: lab\nregion: \xff\n").unwrap();
    assert!(load_says(&path).starts_with(&format!("{shown}:2: is not UTF-8 text")));
    std::fs::write(&path, "#".repeat(FILE_BYTES + 1)).unwrap();
    assert!(load_says(&path).contains("is larger than 1048576 bytes"));
    assert!(load_says(&directory).contains("cannot be read"));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The working directory of a test is the crate's root, where there is no `config.yaml`.
#[test]
fn without_a_file_the_environment_may_set_everything() {
    let variables = [
        ("S3PROXY_BUCKET_NAME", "lab"),
        ("S3PROXY_ENDPOINT", "http://minio"),
        ("S3PROXY_CREDENTIALS", "anonymous"),
    ];
    let config = load(None, &environment(&variables), &Overrides::default()).unwrap();
    assert_eq!(config.live.mounts[0].bucket.name, "lab");
    let aws = load(None, &environment(&variables[..1]), &Overrides::default()).unwrap();
    assert!(aws.live.mounts[0].bucket.location().origin.host.ends_with(".amazonaws.com"));
    let said = load(None, &environment(&variables[1..]), &Overrides::default()).unwrap_err();
    assert!(said.to_string().starts_with("config.yaml: there is no such file"), "{said}");
    let named = load(Some(Path::new("no.yaml")), &environment(&variables), &Overrides::default());
    assert!(named.is_err());
}
