//! Our signatures compared with AWS's: the test vectors in the aws-sigv4 crate, and that crate
//! itself as the reference for random requests.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use proptest::prelude::*;
use s3proxy::internals::{
    Addressing, Bucket, ByteRange, Credentials, CredentialsHandle, Current, CustomerKey,
    EMPTY_PAYLOAD_SHA256, Endpoint, ObjectRequest, Operation, Origin, Preconditions, RequestWriter,
    SignedParts, Signer, Timestamp, fixed_credentials, write_encoded_path,
};

#[path = "support/cargo_metadata.rs"]
mod cargo_metadata;

/// The directory of the SigV4 vectors inside the aws-sigv4 package, wherever cargo keeps it.
fn vectors() -> PathBuf {
    let metadata = cargo_metadata::cargo_metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == "aws-sigv4");
    let manifest = package.expect("aws-sigv4 is a dependency")["manifest_path"].as_str();
    PathBuf::from(manifest.expect("a path")).with_file_name("aws-signing-test-suite").join("v4")
}

#[test]
fn every_vector_of_aws_gets_the_published_signature() {
    let mut count = 0;
    for entry in fs::read_dir(vectors()).expect("the package ships its vectors") {
        let directory = entry.expect("an entry").path();
        if !directory.join("header-signature.txt").exists() {
            // One vector shows only how a path is encoded and has no signature.
            continue;
        }
        let read = |name: &str| {
            let text = fs::read_to_string(directory.join(name));
            text.unwrap_or_else(|error| panic!("{}/{name}: {error}", directory.display()))
        };
        let context: serde_json::Value = serde_json::from_str(&read("context.json")).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let keys = &context["credentials"];
        let credentials =
            fixed_credentials(text(&keys["access_key_id"]), text(&keys["secret_access_key"]), None);
        let canonical = read("header-canonical-request.txt");
        let signature = sign_canonical(&credentials, &text(&context["region"]), &canonical);
        assert_eq!(signature, read("header-signature.txt").trim(), "{}", directory.display());
        count += 1;
    }
    assert!(count >= 30, "only {count} vectors were found");
}

/// Signs a request given in its canonical form.
fn sign_canonical(credentials: &Credentials, region: &str, canonical: &str) -> String {
    let mut lines = canonical.splitn(4, '\n');
    let mut next = || lines.next().expect("method, path, query and the rest");
    let (method, path, query, rest) = (next(), next(), next(), next());
    let (fields, end) = rest.split_once("\n\n").expect("an empty line after the header fields");
    let headers: Vec<(&str, &[u8])> = fields
        .split('\n')
        .map(|line| line.split_once(':').expect("a header"))
        .map(|(name, value)| (name, value.as_bytes()))
        .collect();
    let (names, payload_hash) = end.split_once('\n').expect("the hash of the payload");
    assert_eq!(headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";"), names);
    let parts = SignedParts {
        method,
        path: path.as_bytes(),
        query: query.as_bytes(),
        headers: &headers,
        payload_hash,
    };
    // All vectors are of 2015-08-30T12:36:00Z.
    let time = Timestamp::new(1_440_938_160);
    let current = Current::new(credentials.clone());
    let signature = Signer::new(region, "service").sign(&current, time, &parts);
    String::from_utf8(signature.to_vec()).expect("hexadecimal")
}

/// The `Authorization` value that aws-sigv4 gives a GET of this path for S3.
fn reference(
    credentials: &Credentials,
    region: &str,
    time: SystemTime,
    uri: &str,
    headers: &[(&str, &str)],
) -> String {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.excluded_headers =
        Some(["range", "if-match"].into_iter().map(std::borrow::Cow::Borrowed).collect());
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(time)
        .settings(settings)
        .build()
        .expect("complete parameters")
        .into();
    let request =
        SignableRequest::new("GET", uri, headers.iter().copied(), SignableBody::Bytes(b""))
            .expect("a request");
    let (instructions, _) = sign(request, &parameters).expect("a signature").into_parts();
    let mut added = instructions.headers();
    let (_, value) =
        added.find(|(name, _)| name.eq_ignore_ascii_case("authorization")).expect("it signs");
    value.to_owned()
}

fn credentials() -> impl Strategy<Value = Credentials> {
    let token = prop::option::of("[A-Za-z0-9+/=]{1,60}");
    ("[A-Z0-9]{4,20}", "[A-Za-z0-9+/]{8,60}", token).prop_map(
        |(access_key_id, secret_access_key, session_token)| {
            fixed_credentials(access_key_id, secret_access_key, session_token)
        },
    )
}

/// Keys as they occur and as they should not; a control character would be no valid URI for the
/// reference, which is given the encoded form, so all are allowed.
fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9/._-]{1,40}", "[ +%#?&='()@:;,~!*/.]{1,20}", "\\PC{1,30}", ".{1,30}"]
        .prop_filter("not empty", |key| !key.is_empty())
}

proptest! {
    #[test]
    fn a_random_request_is_signed_as_the_reference_signs_it(
        credentials in credentials(),
        region in "[a-z]{2}-[a-z]{4,9}-[1-9]",
        seconds in 0u64..4_000_000_000,
        key in key(),
    ) {
        let time = Timestamp::new(seconds);
        let mut path = b"/".to_vec();
        write_encoded_path(key.as_bytes(), &mut path);
        let token = credentials.session_token().unwrap_or_default();
        let all: [(&str, &[u8]); 4] = [
            ("host", b"bucket.s3.example.org:9000"),
            ("x-amz-content-sha256", EMPTY_PAYLOAD_SHA256.as_bytes()),
            ("x-amz-date", time.as_bytes()),
            ("x-amz-security-token", token.as_bytes()),
        ];
        let headers = if token.is_empty() { &all[..3] } else { &all };
        let payload_hash = EMPTY_PAYLOAD_SHA256;
        let parts = SignedParts { method: "GET", path: &path, query: b"", headers, payload_hash };
        let mut signer = Signer::new(&region, "s3");
        let mut ours = Vec::new();
        let current = Current::new(credentials.clone());
        for _ in 0..2 {
// The second time with the cached key of the day.
            ours.clear();
            let signature = signer.sign(&current, time, &parts);
            signer.write_authorization(&credentials, time, headers, &signature, &mut ours);
        }
        let uri = format!("http://bucket.s3.example.org:9000{}", std::str::from_utf8(&path).unwrap());
        let theirs =
            reference(&credentials, &region, UNIX_EPOCH + Duration::from_secs(seconds), &uri, &[]);
        prop_assert_eq!(String::from_utf8(ours).unwrap(), theirs);
    }

    #[test]
    fn a_whole_request_carries_the_signature_of_its_fields(
        credentials in credentials(),
        key in key(),
        virtual_host in any::<bool>(),
        port in prop_oneof![Just(80u16), 1024..65535u16],
        version_id in prop::option::of("[!-~]{1,40}"),
        requester_pays in any::<bool>(),
        customer_key in prop::option::of(any::<[u8; 32]>()),
    ) {
        let addressing = if virtual_host { Addressing::Virtual } else { Addressing::Path };
        let mut bucket = Bucket::new(
            "lab-bucket".to_owned(),
            "eu-central-1",
            Endpoint::At(Arc::new(Origin {
                tls: false,
                host: "s3.example.org".to_owned(),
                port,
            })),
            addressing,
            Some(Arc::new(CredentialsHandle::fixed(credentials.clone()))),
        );
        bucket.requester_pays = requester_pays;
        bucket.customer_key = customer_key.map(|bytes| Arc::new(CustomerKey::new(&bytes)));
        let mut out = Vec::new();
        let conditions = Preconditions { if_match: Some(b"\"e\""), ..Preconditions::default() };
        let range = Some(ByteRange::From { first: 7 });
        RequestWriter::new(Arc::new(bucket)).write(
            &ObjectRequest {
                operation: Operation::Get,
                key: &key,
                version_id: version_id.as_deref(),
                range,
                conditions,
                leave_body_in_socket: false,
            },
            &mut out,
        ).unwrap();
        let text = String::from_utf8(out).unwrap();
        let field = |name: &str| {
            let prefix = format!("{name}: ");
            text.split("\r\n").find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        let path = text.split(' ').nth(1).unwrap();
        let uri = format!("http://{}{path}", field("Host").unwrap());
        let time = aws_time(&field("x-amz-date").unwrap());
        // Those that the reference adds itself are left out, and so is what it is told not to sign.
        let own = ["x-amz-content-sha256", "x-amz-date", "x-amz-security-token"];
        let mut sent = vec![("range", "bytes=7-"), ("if-match", "\"e\"")];
        sent.extend(
            text.split("\r\n")
                .filter_map(|line| line.split_once(": "))
                .filter(|(name, _)| name.starts_with("x-amz-") && !own.contains(name)),
        );
        let extra = usize::from(requester_pays) + 3 * usize::from(customer_key.is_some());
        prop_assert_eq!(sent.len(), 2 + extra);
        prop_assert_eq!(path.contains("?versionId="), version_id.is_some());
        let theirs = reference(&credentials, "eu-central-1", time, &uri, &sent);
        prop_assert_eq!(field("Authorization").unwrap(), theirs);
        let token = credentials.session_token().map(str::to_owned);
        prop_assert_eq!(field("x-amz-security-token"), token);
        prop_assert_eq!(field("Range").unwrap(), "bytes=7-");
    }
}

/// `20150830T123600Z` as a time.
fn aws_time(text: &str) -> SystemTime {
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().expect("digits");
    let http_date = format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        number(0..4),
        number(4..6),
        number(6..8),
        number(9..11),
        number(11..13),
        number(13..15),
    );
    let date = aws_smithy_types::DateTime::from_str(
        &http_date,
        aws_smithy_types::date_time::Format::DateTime,
    );
    date.expect("a date").try_into().expect("a time after 1970")
}
