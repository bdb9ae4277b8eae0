//! The configuration: file, environment, flags, and mistakes in them.

use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver, Process, Proxy, proxy_over};
use crate::support::raw_http::{get, head};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};

const TARGET: &str = "/files/reads.bam";

both_drivers!(
    the_file_of_2014_works_unchanged,
    the_environment_overrides_the_file_and_flags_override_both,
    check_says_what_works,
    the_log_goes_where_the_configuration_says,
    the_example_with_a_bucket_filled_in_serves_every_key_as_it_is,
);

fn the_file_of_2014_works_unchanged(driver: Driver) {
    let s3 = TestS3::with("reads.bai", "index");
    let yaml = format!(
        "AWS_ACCESS_KEY_ID: {ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY: {SECRET_KEY}\n\
         bucket_name: {}\nrewrite_rules:\n  bai:\n    from: '\\.bam\\.bai$'\n    to: '.bai'\n",
        crate::support::memory_store::BUCKET
    );
    // The file has neither endpoint nor port, so the environment gives them.
    let mut process = Process::new(&["--listen", "127.0.0.1:0"])
        .environment("AWS_ENDPOINT_URL", &s3.server.endpoint())
        .environment("S3PROXY_DRIVER", driver.name());
    process.write("config.yaml", &yaml);
    let proxy = Proxy::start(process);
    get(&proxy, "/files/reads.bam.bai").assert(200, "index");
}

fn the_environment_overrides_the_file_and_flags_override_both(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let yaml = Config::over(driver, &s3)
        .set("listen", "127.0.0.1:1")
        .set("AWS_SECRET_ACCESS_KEY", "of-the-file")
        .yaml();
    let process = Process::with_config(&yaml)
        .environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .environment("S3PROXY_LISTEN", "127.0.0.1:2")
        .argument("--listen")
        .argument("127.0.0.1:0");
    let proxy = Proxy::start(process);
    get(&proxy, TARGET).assert(200, "ACGT");
    assert!(proxy.directory().join("test.yaml").exists());
}

fn check_says_what_works(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let check = |config: Config| Process::with_config(&config.yaml()).argument("--check").run();

    let good = check(Config::over(driver, &s3));
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.stdout.contains(crate::support::memory_store::BUCKET), "{good:?}");
    assert!(!s3.server.requests().is_empty(), "it sends requests to the bucket");

    let bad = check(Config::over(driver, &s3).set("AWS_SECRET_ACCESS_KEY", "wrong/secret"));
    assert_eq!(bad.code, 1, "{bad:?}");
    let said = format!("{}{}", bad.stdout, bad.stderr);
    assert!(said.contains("SignatureDoesNotMatch"), "{bad:?}");
    assert!(!said.contains("wrong/secret"), "{bad:?}");

    let none = check(Config::over(driver, &s3).set("bucket_name", "no-such-bucket"));
    assert_eq!(none.code, 1, "{none:?}");
    assert!(format!("{}{}", none.stdout, none.stderr).contains("no-such-bucket"), "{none:?}");
}

fn the_log_goes_where_the_configuration_says(driver: Driver) {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let line = "\"GET /files/reads.bam HTTP/1.1\" 200 4";
    let to_stderr = proxy_over(driver, &s3);
    get(&to_stderr, TARGET).assert(200, "ACGT");
    eventually("the request is logged", || to_stderr.stderr().contains(line));

    let to_file = Config::over(driver, &s3).set("log_file", "proxy.log").start();
    get(&to_file, TARGET).assert(200, "ACGT");
    let path = to_file.directory().join("proxy.log");
    let logged = || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(line));
    eventually("the request is logged to the file", logged);
    assert_eq!(to_file.stderr(), "");

    let silent = Config::over(driver, &s3).set("access_log", "false").start();
    get(&silent, TARGET).assert(200, "ACGT");
    get(&silent, TARGET).assert(200, "ACGT");
    assert!(!silent.stderr().contains("GET /files"), "{}", silent.stderr());
}

/// `config.example.yaml`, copied as its first lines tell.
fn copied_example(driver: Driver, s3: &TestS3) -> Process {
    let bucket = crate::support::memory_store::BUCKET;
    let example = include_str!("../../config.example.yaml");
    let yaml = example.replace("bucket_name: my-bucket", &format!("bucket_name: {bucket}"));
    Process::with_config(&yaml)
        .environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .environment("AWS_ENDPOINT_URL", &s3.server.endpoint())
        .environment("S3PROXY_LISTEN", "127.0.0.1:0")
        .environment("S3PROXY_DRIVER", driver.name())
}

fn the_example_with_a_bucket_filled_in_serves_every_key_as_it_is(driver: Driver) {
    let s3 = TestS3::with("a.bam", "reads");
    s3.put("a.bam.bai", "index");
    let proxy = Proxy::start(copied_example(driver, &s3));
    get(&proxy, "/files/a.bam").assert(200, "reads");
    get(&proxy, "/files/a.bam.bai").assert(200, "index");
    get(&proxy, "/files/a.bai").assert_error(404);
    assert_eq!(head(&proxy, "/files/a.bam.bai").content_length(), 5);
    let checked = copied_example(driver, &s3).argument("--check").run();
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[test]
fn files_that_cannot_be_used_are_mistakes_of_the_configuration() {
    let yaml = Config::new(Driver::Epoll, "http://127.0.0.1:1").yaml();
    let lines = yaml.lines().count();
    for (setting, words) in [
        ("log_file: /no/such/directory/x.log", "cannot be written to: No such file or directory"),
        ("log_file: .", "cannot be written to: Is a directory"),
        ("log_file: 'a/\u{1b}[31m.log'", r"'a/\u{1b}[31m.log' cannot be written to"),
        ("ca_file: /no/such.pem", "cannot be read: No such file or directory"),
        ("ca_file: test.yaml", "'test.yaml' holds no certificate"),
        ("sse_customer_key_file: /no/such.key", "the file cannot be read"),
    ] {
        let setting = setting.replace('\u{1b}', "\\e").replace('\'', "\"");
        for check in [false, true] {
            let mut process = Process::with_config(&format!("{yaml}{setting}\n"));
            process = if check { process.argument("--check") } else { process };
            let finished = process.run();
            assert_eq!(finished.code, 78, "{setting}: {finished:?}");
            let place = format!("test.yaml:{}: ", lines + 1);
            assert!(finished.stderr.starts_with(&place), "{setting}: {finished:?}");
            assert!(finished.stderr.contains(words), "{setting}: {finished:?}");
            assert_eq!(finished.stderr.lines().count(), 1, "{setting}: {finished:?}");
        }
    }
    let finished = Process::new(&["--log-file", "/no/such/x.log"])
        .environment("S3PROXY_BUCKET_NAME", "lab")
        .run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.starts_with("--log-file: "), "{finished:?}");
}

#[test]
fn a_file_of_another_kind_is_not_quoted_line_by_line_nor_its_secrets() {
    let secrets: Vec<String> = (0..1000).map(|n| format!("s3cr3ts3cr3t{n:04}")).collect();
    let yaml: String = secrets.iter().map(|secret| format!("{secret}: x\n")).collect();
    let mut process = Process::new(&["-c", "a\n\u{1b}[31mb.yaml"]);
    process.write("a\n\u{1b}[31mb.yaml", yaml);
    let finished = process.run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 21, "{}", finished.stderr);
    assert!(finished.stderr.ends_with("\nand 980 more mistakes\n"), "{}", finished.stderr);
    assert!(finished.stderr.starts_with(r"a\n\u{1b}[31mb.yaml:1: "), "{}", finished.stderr);
    assert!(!finished.stderr.contains("s3cr3t") && !finished.stderr.contains('\u{1b}'));
}

#[test]
fn all_mistakes_of_a_configuration_are_reported_at_once() {
    let yaml = "listen: 127.0.0.1:99999\nbucket_nam: lab\nworkers: many\nmetadata_ttl: 5 parsecs\n";
    let finished = Process::with_config(yaml).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert_eq!(finished.stdout, "");
    for (line, word) in [(1, "listen"), (2, "bucket_name"), (3, "workers"), (4, "metadata_ttl")] {
        let place = format!("test.yaml:{line}");
        let said = finished.stderr.lines().find(|said| said.contains(&place));
        let said = said.unwrap_or_else(|| panic!("nothing about {place}: {}", finished.stderr));
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_missing_configuration_is_78_and_names_the_file() {
    let finished = Process::new(&["-c", "nowhere.yaml"]).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("nowhere.yaml"), "{finished:?}");
    let finished = Process::new(&[]).run();
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("config.yaml"), "{finished:?}");
}

#[test]
fn an_unknown_flag_is_2_and_help_and_version_are_0() {
    let finished = Process::new(&["--colour"]).run();
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("--colour"), "{finished:?}");
    let help = Process::new(&["--help"]).run();
    assert_eq!(help.code, 0);
    for flag in
        ["--config", "--listen", "--workers", "--log-level", "--log-file", "--debug", "--check"]
    {
        assert!(help.stdout.contains(flag), "{flag}: {}", help.stdout);
    }
    let version = Process::new(&["--version"]).run();
    assert_eq!(version.stdout, concat!("s3proxy ", env!("CARGO_PKG_VERSION"), "\n"));
}
