//! Tests of the stand-ins in `tests/support`, on which all other tests depend.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::header::HeaderName;

use crate::support::eventually;
use crate::support::fault_relay::{Done, FaultRelay, Faults};
use crate::support::genomics::{CHROMOSOMES, write_bam, write_vcf};
use crate::support::memory_store::{BUCKET, TestS3};
use crate::support::object::{LAST_MODIFIED, Object, synthetic_bytes};
use crate::support::s3_server::{ACCESS_KEY, PUBLIC_BUCKET, S3Server, SECRET_KEY};
use crate::support::scripted_upstream::{ScriptedUpstream, ok};
use crate::support::tools;

/// Sends a request to an S3 server with curl, whose signer is independent of ours. The output
/// starts with the response head (`-i`).
fn signed_curl(server: &S3Server, secret: &str, target: &str, more: &[&str]) -> String {
    let url = format!("{}{target}", server.endpoint());
    let user = format!("{ACCESS_KEY}:{secret}");
    let mut arguments = vec!["-s", "-i", "--path-as-is", "--aws-sigv4", "aws:amz:us-east-1:s3"];
    arguments.extend(["--user", &user, "-H", EMPTY_BODY]);
    arguments.extend(more);
    arguments.push(&url);
    String::from_utf8_lossy(&tools::run(Path::new("/"), "curl", &arguments)).into_owned()
}

/// SHA-256 of the empty body.
const EMPTY_BODY: &str = "x-amz-content-sha256: \
     e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn the_s3_server_accepts_the_right_secret() {
    let s3 = TestS3::with("a/reads.bam", "ACGT");
    let response = signed_curl(&s3.server, SECRET_KEY, &format!("/{BUCKET}/a/reads.bam"), &[]);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nACGT"), "{response}");
    assert!(response.contains(&format!("last-modified: {LAST_MODIFIED}\r\n")), "{response}");
    assert_eq!(s3.count("GET", "a/reads.bam"), 1);
    assert!(s3.server.requests()[0].is_signed());
}

#[test]
fn the_s3_server_refuses_a_wrong_secret() {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let response = signed_curl(&s3.server, "wrong", &format!("/{BUCKET}/reads.bam"), &[]);
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    assert!(response.contains("<Code>SignatureDoesNotMatch</Code>"), "{response}");
    assert!(!response.contains("ACGT"), "{response}");
}

#[test]
fn the_s3_server_wants_a_signature_except_for_the_public_bucket() {
    let s3 = TestS3::with("reads.bam", "private");
    s3.put_in(PUBLIC_BUCKET, "reads.bam", "public");
    let unsigned = |bucket: &str| {
        let url = format!("{}/{bucket}/reads.bam", s3.server.endpoint());
        String::from_utf8_lossy(&tools::run(Path::new("/"), "curl", &["-s", &url])).into_owned()
    };
    assert!(unsigned(BUCKET).contains("<Code>AccessDenied</Code>"));
    assert_eq!(unsigned(PUBLIC_BUCKET), "public");
}

#[test]
fn the_s3_server_is_truthful_about_ranges_and_conditions() {
    let object = Object::new("0123456789");
    let e_tag = object.quoted_e_tag();
    let s3 = TestS3::with("digits", object);
    let ask = |field: String| {
        let target = format!("/{BUCKET}/digits");
        signed_curl(&s3.server, SECRET_KEY, &target, &["-H", &field])
    };
    let part = ask("Range: bytes=2-4".to_owned());
    assert!(part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\n234"), "{part}");
    assert!(part.contains("content-range: bytes 2-4/10\r\n"), "{part}");
    let beyond = ask("Range: bytes=10-".to_owned());
    assert!(beyond.starts_with("HTTP/1.1 416 "), "{beyond}");
    assert!(beyond.contains("<ActualObjectSize>10</ActualObjectSize>"), "{beyond}");
    let same = ask(format!("If-None-Match: {e_tag}"));
    assert!(same.starts_with("HTTP/1.1 304 ") && same.contains(&e_tag), "{same}");
    let other = ask("If-Match: \"other\"".to_owned());
    assert!(other.starts_with("HTTP/1.1 412 "), "{other}");
    assert!(other.contains("<Code>PreconditionFailed</Code>"), "{other}");
}

#[test]
fn the_s3_server_names_the_missing_key_or_bucket() {
    let s3 = TestS3::start();
    s3.deny("secret");
    let code = |target: &str| signed_curl(&s3.server, SECRET_KEY, target, &[]);
    assert!(code(&format!("/{BUCKET}/none")).contains("<Code>NoSuchKey</Code>"));
    assert!(code("/another-bucket/none").contains("<Code>NoSuchBucket</Code>"));
    assert!(code(&format!("/{BUCKET}/secret")).contains("<Code>AccessDenied</Code>"));
    s3.set_outage(Some(s3s::S3ErrorCode::ExpiredToken));
    assert!(code(&format!("/{BUCKET}/none")).contains("<Code>ExpiredToken</Code>"));
}

#[test]
fn the_s3_server_keeps_keys_apart_that_look_alike() {
    let s3 = TestS3::start();
    for key in ["a//b", "a/b", "a/./b", "a/../b", "a/b/"] {
        s3.put(key, key);
    }
    for key in ["a//b", "a/b", "a/./b", "a/../b", "a/b/"] {
        let response = signed_curl(&s3.server, SECRET_KEY, &format!("/{BUCKET}/{key}"), &[]);
        assert!(response.ends_with(&format!("\r\n\r\n{key}")), "{key}: {response}");
    }
}

#[test]
fn the_s3_server_wants_every_amz_field_signed() {
    let s3 = TestS3::with("reads.bam", "ACGT");
    let signed = signed_curl(&s3.server, SECRET_KEY, &format!("/{BUCKET}/reads.bam"), &[]);
    assert!(signed.starts_with("HTTP/1.1 200 OK\r\n"), "{signed}");
    let fields = s3.server.requests().remove(0);
    let mut head = format!("GET /{BUCKET}/reads.bam HTTP/1.1\r\nConnection: close\r\n");
    for name in ["host", "authorization", "x-amz-date", "x-amz-content-sha256"] {
        let value = fields.field(HeaderName::from_static(name)).expect("curl sends it");
        head += &format!("{name}: {value}\r\n");
    }
    // The same request again, once unchanged and once with an additional unsigned field.
    let send = |head: String| {
        let address = s3.server.endpoint().replace("http://", "");
        let mut stream = TcpStream::connect(address).expect("a listening server");
        stream.write_all(head.as_bytes()).expect("an open connection");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a response, then the end");
        text
    };
    let again = send(format!("{head}\r\n"));
    assert!(again.starts_with("HTTP/1.1 200 OK\r\n"), "{again}");
    let slipped_in = send(format!("{head}x-amz-request-payer: requester\r\n\r\n"));
    assert!(slipped_in.starts_with("HTTP/1.1 403 "), "{slipped_in}");
    assert!(slipped_in.contains("which were not signed"), "{slipped_in}");
}

#[test]
fn the_s3_server_knows_versions_and_delete_markers() {
    let s3 = TestS3::start();
    s3.put_version("reads.bam", "v1", "first");
    s3.put_version("reads.bam", "v2", "second");
    s3.put_delete_marker("reads.bam", "gone");
    let ask = |query: &str| {
        let target = format!("/{BUCKET}/reads.bam{query}");
        signed_curl(&s3.server, SECRET_KEY, &target, &[])
    };
    let first = ask("?versionId=v1");
    assert!(first.ends_with("\r\n\r\nfirst"), "{first}");
    assert!(first.contains("x-amz-version-id: v1\r\n"), "{first}");
    for (query, status, code, marked) in [
        ("", "404", "NoSuchKey", true),
        ("?versionId=gone", "405", "MethodNotAllowed", true),
        ("?versionId=v3", "404", "NoSuchVersion", false),
        ("?versionId=v%2A", "400", "InvalidArgument", false),
    ] {
        let said = ask(query);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{query}: {said}");
        assert!(said.contains(&format!("<Code>{code}</Code>")), "{query}: {said}");
        assert_eq!(said.contains("x-amz-delete-marker: true\r\n"), marked, "{query}: {said}");
    }
}

#[test]
fn a_synthetic_object_has_the_same_bytes_from_every_offset() {
    let whole = synthetic_bytes(0, 3_000_000);
    assert_eq!(synthetic_bytes(2_097_150, 1000), whole[2_097_150..2_098_150]);
    assert_ne!(whole[..1000], whole[1_048_576..1_049_576], "a shift by a MiB would go unnoticed");
    let shifted = Object::synthetic_from(5, 3_000_000);
    assert_eq!(shifted.piece(10, 1000), synthetic_bytes(15, 1000));
    assert_ne!(shifted.e_tag, Object::synthetic(3_000_000).e_tag);
    let s3 = TestS3::with("big", Object::synthetic(3_000_000));
    let range = ["-H", "Range: bytes=2097150-2098149", "-o", "/dev/stdout"];
    let target = format!("/{BUCKET}/big");
    let url = format!("{}{target}", s3.server.endpoint());
    let user = format!("{ACCESS_KEY}:{SECRET_KEY}");
    let mut arguments = vec!["-s", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user];
    arguments.extend(["-H", EMPTY_BODY]);
    arguments.extend(range);
    arguments.push(&url);
    let body = tools::run(Path::new("/"), "curl", &arguments);
    assert!(body == whole[2_097_150..2_098_150], "{} other bytes", body.len());
    assert!(s3.pulled_bytes() >= 1000);
}

#[test]
fn the_scripted_upstream_follows_its_script_and_keeps_the_heads() {
    let upstream = ScriptedUpstream::start(|peer| {
        peer.next_request();
        match peer.number {
            0 => peer.send_in_tiny_pieces(ok("slow")),
            _ => {
                peer.send("HTTP/1.1 200 OK\r\n");
                std::thread::sleep(Duration::from_millis(20));
                peer.reset();
            }
        }
    });
    let ask = || {
        let mut stream = TcpStream::connect(upstream.endpoint().trim_start_matches("http://"))?;
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    let first = ask().expect("a response, then the end");
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("\r\n\r\nslow"), "{first}");
    let second = ask().expect_err("a reset");
    assert_eq!(second.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(upstream.heads(), ["GET /x HTTP/1.1\r\nHost: h\r\n\r\n"; 2]);
    assert_eq!(upstream.connections(), 2);
}

/// Requests an object through a relay with these faults. Returns the bytes before the end of the
/// connection, whether that was a reset, and the relay's counts.
fn through_a_relay(s3: &TestS3, faults: Faults, idle: Duration) -> (Vec<u8>, bool, Done) {
    let relay = FaultRelay::start(&s3.server.endpoint(), 1);
    relay.set(faults);
    let address = relay.endpoint().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a listening relay");
    let request =
        format!("GET /{PUBLIC_BUCKET}/big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    // The relay may have reset the connection already. The kernel reports a reset once, to the
    // first call.
    let could_send = stream.write_all(request.as_bytes()).is_ok();
    std::thread::sleep(idle);
    let mut came = Vec::new();
    let was_reset = stream.read_to_end(&mut came).is_err() || !could_send;
    drop(stream);
    eventually("no connection is left", || relay.open_connections() == 0);
    (came, was_reset, relay.done())
}

#[test]
fn the_fault_relay_changes_nothing_by_default() {
    const SIZE: usize = 16 << 20;
    let s3 = TestS3::start();
    s3.put_in(PUBLIC_BUCKET, "big", Object::synthetic(SIZE as u64));
    let (came, was_reset, done) = through_a_relay(&s3, Faults::NONE, Duration::ZERO);
    assert!(!was_reset && came.ends_with(&synthetic_bytes(0, SIZE)));
    assert_eq!((done.accepted, done.bytes), (1, came.len() as u64));
    for faults in [
        Faults { stalled: 1.0, stall: Duration::from_millis(300), ..Faults::NONE },
        Faults { trickled: 1.0, ..Faults::NONE },
    ] {
        let asked = Instant::now();
        let (slowly, _, done) = through_a_relay(&s3, faults, Duration::ZERO);
        let same = slowly.len() == came.len() && slowly.ends_with(&synthetic_bytes(0, SIZE));
        assert!(same, "late, and nothing else: {done}");
        assert_eq!(done.stalled + done.trickled, 1);
        assert!(asked.elapsed() >= faults.stall);
    }
}

#[test]
fn the_fault_relay_injects_the_configured_faults() {
    let s3 = TestS3::start();
    s3.put_in(PUBLIC_BUCKET, "big", Object::synthetic(64 << 20));
    let broken = |faults| through_a_relay(&s3, faults, Duration::from_millis(300));

    let (came, was_reset, done) = broken(Faults { refused: 1.0, ..Faults::NONE });
    assert!(came.is_empty() && was_reset && done.refused == 1, "{done}");
    let (came, was_reset, done) = broken(Faults { cut_in_head: 1.0, ..Faults::NONE });
    assert!(came.len() < 200 && !was_reset && done.closed == 1, "{done}");
    let (came, was_reset, done) = broken(Faults { closed: 1.0, ..Faults::NONE });
    assert!(came.len() <= 8 << 20 && !was_reset && done.closed == 1, "{done}");
    assert_eq!(came.len() as u64, done.bytes);
    let (came, was_reset, done) = broken(Faults { reset: 1.0, ..Faults::NONE });
    assert!(came.len() <= 8 << 20 && was_reset && done.reset == 1, "{done}");
    let patience = Some(Duration::from_millis(50));
    let (came, was_reset, done) = broken(Faults { patience, ..Faults::NONE });
    assert!(came.len() < 64 << 20 && was_reset && done.given_up == 1, "{done}");
}

#[test]
fn samtools_reads_the_bam_and_its_index() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bam = directory.path().join("reads.bam");
    write_bam(&bam, 5_000).expect("a BAM");
    let again = directory.path().join("again.bam");
    write_bam(&again, 5_000).expect("a BAM");
    assert!(std::fs::read(&bam).expect("it") == std::fs::read(&again).expect("it"));
    tools::run(directory.path(), "samtools", &["quickcheck", "reads.bam"]);
    let counted = tools::run(directory.path(), "samtools", &["idxstats", "reads.bam"]);
    let counted = String::from_utf8(counted).expect("text");
    for (name, length) in CHROMOSOMES {
        assert!(counted.contains(&format!("{name}\t{length}\t")), "{counted}");
    }
    let region = ["view", "-c", "reads.bam", "chr2:1000000-2000000"];
    let through_index = tools::run(directory.path(), "samtools", &region);
    std::fs::remove_file(directory.path().join("reads.bam.bai")).expect("an index");
    tools::run(directory.path(), "samtools", &["index", "reads.bam"]);
    assert_eq!(through_index, tools::run(directory.path(), "samtools", &region));
    assert_ne!(through_index, b"0\n");
}

#[test]
fn bcftools_reads_the_vcf_and_its_index() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let vcf = directory.path().join("calls.vcf.gz");
    write_vcf(&vcf, 1_000).expect("a VCF");
    let region = ["view", "-H", "-r", "chr3:1000000-1100000", "calls.vcf.gz"];
    let ours = tools::run(directory.path(), "bcftools", &region);
    assert!(!ours.is_empty());
    tools::run(directory.path(), "tabix", &["-f", "-p", "vcf", "calls.vcf.gz"]);
    assert_eq!(ours, tools::run(directory.path(), "bcftools", &region));
}
