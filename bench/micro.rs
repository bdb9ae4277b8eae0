//! The cost of one request without system calls, step by step:
//!
//! ```text
//! cargo bench --bench micro             measures
//! cargo bench --bench micro -- --test   runs each step once
//! ```

#![allow(missing_docs, reason = "criterion's macros make a public function")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningParams,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use criterion::{Criterion, criterion_group, criterion_main};
use s3proxy::internals::{
    Addressing, Bucket, BucketId, ByteRange, Credentials, CredentialsHandle, Current,
    EMPTY_PAYLOAD_SHA256, Endpoint, KEY_BYTES, LatestResponses, Metadata, MetadataCache,
    MetadataSettings, Mount, ObjectId, ObjectRequest, Operation, Origin, Preconditions,
    RequestWriter, ResponseHead, Rule, Rules, Shown, SignedParts, Signer, Timestamp, When,
    find_head_end, fixed_credentials, parse_request, percent_decode,
};

/// As htslib sends it.
const REQUEST: &[u8] = b"GET /files/runs/2024/sample%201.bam HTTP/1.1\r\n\
    Host: 127.0.0.1:5000\r\n\
    Range: bytes=1048576-1114111\r\n\
    User-Agent: htslib/1.16 libcurl/7.88.1\r\n\
    Accept: */*\r\n\r\n";

/// As S3 responds.
const RESPONSE: &[u8] = b"HTTP/1.1 206 Partial Content\r\n\
    x-amz-id-2: eftixk72aD6Ap51TnqcoF8eFidJG9Z/2mkiDFu8yU9AS1ed4OpIszj7UDNEHGran\r\n\
    x-amz-request-id: 318BC8BC148832E5\r\n\
    Date: Thu, 29 Feb 2024 12:30:46 GMT\r\n\
    Last-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\n\
    ETag: \"9b2cf535f27731c974343645a3985328\"\r\n\
    x-amz-server-side-encryption: AES256\r\n\
    Accept-Ranges: bytes\r\n\
    Content-Range: bytes 1048576-1114111/1073741824\r\n\
    Content-Type: application/octet-stream\r\n\
    Server: AmazonS3\r\n\
    Content-Length: 65536\r\n\r\n";

const KEY: &str = "runs/2024/sample 1.bam";
const RANGE: &[u8] = b"bytes=1048576-1114111";
const SHOWN: Shown<'_> =
    Shown { content_encoding: true, version_id: false, default_cache_control: Some("no-cache") };
const OBJECT_BYTES: u64 = 1 << 30;

/// When requests are signed: 2024-02-29T12:30:45Z.
const SIGNED_AT_SECONDS: u64 = 1_709_209_845;
const HOST: &str = "s3.example.org:9000";
const PATH: &str = "/genomics-lab/runs/2024/sample%201.bam";

fn credentials() -> Credentials {
    fixed_credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None)
}

fn bucket() -> Bucket {
    Bucket::new(
        "genomics-lab".to_owned(),
        "us-east-1",
        Endpoint::At(Arc::new(Origin {
            tls: false,
            host: "s3.example.org".to_owned(),
            port: 9000,
        })),
        Addressing::Path,
        Some(Arc::new(CredentialsHandle::fixed(credentials()))),
    )
}

fn metadata() -> Metadata {
    let head = ResponseHead::parse(RESPONSE).expect("a valid head");
    let mut metadata = Metadata::default();
    assert!(metadata.read(&head, RESPONSE, SHOWN), "the head describes an object");
    metadata
}

fn heads(c: &mut Criterion) {
    c.bench_function("request head", |b| {
        b.iter(|| {
            black_box(find_head_end(black_box(REQUEST)));
            parse_request(black_box(REQUEST)).map(|request| request.keep_alive)
        });
    });
    c.bench_function("response head", |b| {
        b.iter(|| {
            black_box(find_head_end(black_box(RESPONSE)));
            ResponseHead::parse(black_box(RESPONSE))
        });
    });
    let head = ResponseHead::parse(RESPONSE).expect("a valid head");
    let mut metadata = Metadata::default();
    c.bench_function("metadata from a head", |b| {
        b.iter(|| metadata.read(&head, black_box(RESPONSE), SHOWN));
    });
}

/// Our signer beside AWS's own, up to the value of the `Authorization` field of the same request.
fn signing(c: &mut Criterion) {
    let current = Current::new(credentials());
    let time = Timestamp::new(SIGNED_AT_SECONDS);
    let mut signer = Signer::new("us-east-1", "s3");
    let headers: [(&str, &[u8]); 3] = [
        ("host", HOST.as_bytes()),
        ("x-amz-content-sha256", EMPTY_PAYLOAD_SHA256.as_bytes()),
        ("x-amz-date", time.as_bytes()),
    ];
    let parts = SignedParts {
        method: "GET",
        path: PATH.as_bytes(),
        query: b"",
        headers: &headers,
        payload_hash: EMPTY_PAYLOAD_SHA256,
    };
    let credentials = credentials();
    let mut authorization = Vec::with_capacity(512);
    let mut sign_with_ours = || {
        authorization.clear();
        let signature = signer.sign(&current, time, black_box(&parts));
        signer.write_authorization(&credentials, time, &headers, &signature, &mut authorization);
        signature
    };
    let parameters = parameters_for_aws_sigv4();
    let uri = format!("http://{HOST}{PATH}");
    let sign_with_theirs = || sign_with_aws_sigv4(black_box(&uri), &parameters);
    assert_eq!(sign_with_ours()[..], *sign_with_theirs().as_bytes(), "different signatures");
    c.bench_function("signature", |b| b.iter(&mut sign_with_ours));
    c.bench_function("signature by aws-sigv4", |b| b.iter(sign_with_theirs));
}

/// Parameters that one time of signing needs, made once as an SDK would.
fn parameters_for_aws_sigv4() -> SigningParams<'static> {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    // Borrowed by the parameters, which live until the process ends.
    let identity = Box::leak(Box::new(credentials().into()));
    v4::SigningParams::builder()
        .identity(identity)
        .region("us-east-1")
        .name("s3")
        .time(UNIX_EPOCH + Duration::from_secs(SIGNED_AT_SECONDS))
        .settings(settings)
        .build()
        .expect("complete parameters")
        .into()
}

fn sign_with_aws_sigv4(uri: &str, parameters: &SigningParams<'_>) -> String {
    // Like ours, it gets the hash of the empty body and does not compute it.
    let body = SignableBody::Precomputed(EMPTY_PAYLOAD_SHA256.to_owned());
    let request = SignableRequest::new("GET", uri, std::iter::empty(), body).expect("a request");
    sign(request, parameters).expect("a signature").into_parts().1
}

fn request_heads(c: &mut Criterion) {
    let mut writer = RequestWriter::new(Arc::new(bucket()));
    let request = ObjectRequest {
        operation: Operation::Get,
        key: KEY,
        version_id: None,
        range: ByteRange::parse(RANGE),
        conditions: Preconditions::default(),
        leave_body_in_socket: false,
    };
    let mut out = Vec::with_capacity(2048);
    c.bench_function("signed request head", |b| {
        b.iter(|| {
            out.clear();
            writer.write(black_box(&request), &mut out)
        });
    });
}

fn ranges(c: &mut Criterion) {
    c.bench_function("range", |b| {
        b.iter(|| ByteRange::parse(black_box(RANGE))?.resolve(black_box(OBJECT_BYTES)));
    });
}

fn keys(c: &mut Criterion) {
    let path = "/files/".to_owned();
    let (prefix, bucket) = ("lab/".to_owned(), Arc::new(bucket()));
    let mount = Mount {
        path,
        prefix,
        bucket,
        allow_version_id: false,
        denied_is_missing: false,
        cache_control: None,
    };
    let mut key = String::with_capacity(KEY_BYTES);
    let rule = Rule::new("bai", r"\.bam\.bai$", ".bai", When::Always).expect("a valid expression");
    for (name, rules) in [("key", Rules::default()), ("key, one rule", Rules(vec![rule]))] {
        c.bench_function(name, |b| {
            b.iter(|| {
                key.clear();
                let path = black_box("runs/2024/sample%201.bam");
                percent_decode(path, KEY_BYTES, &mut key)?;
                rules.apply(&mut key);
                mount.prepend_prefix(&mut key)
            });
        });
    }
}

fn in_bucket(bucket: BucketId, key: &str) -> ObjectId<'_> {
    ObjectId { bucket, key, version_id: None }
}

fn metadata_map(c: &mut Criterion) {
    let settings = MetadataSettings::default();
    let mut map =
        MetadataCache::new(settings.clone(), Arc::new(LatestResponses::new(settings.max_entries)));
    let (metadata, now, bucket) = (metadata(), Instant::now(), BucketId::unique());
    for number in 0..settings.max_entries {
        let key = format!("runs/2024/sample {number}.bam");
        map.store_object(in_bucket(bucket, &key), &metadata, now, now);
    }
    map.store_object(in_bucket(bucket, KEY), &metadata, now, now);
    c.bench_function("metadata hit", |b| {
        b.iter(|| {
            map.get(in_bucket(bucket, black_box(KEY)), now, Duration::MAX).expect("it was learned")
        });
    });
    c.bench_function("metadata learned again", |b| {
        b.iter(|| map.store_object(in_bucket(bucket, black_box(KEY)), &metadata, now, now));
    });
}

criterion_group!(micro, heads, signing, request_heads, ranges, keys, metadata_map);
criterion_main!(micro);
