//! Counts heap allocations in the parts that every request passes through: there must be none.

#![allow(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use s3proxy::internals::{
    Addressing, Bucket, BucketId, ByteRange, Credentials, CredentialsHandle, Current, CustomerKey,
    EMPTY_PAYLOAD_SHA256, Endpoint, LatestResponses, Metadata, MetadataCache, MetadataSettings,
    ObjectId, ObjectName, ObjectRequest, Operation, Origin, Preconditions, RequestWriter,
    ResponseHead, Shown, SignedParts, Signer, Timestamp, fixed_credentials, parse_request,
    percent_decode,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged; counting touches only a
// thread-local whose initialization does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller upholds the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `action` makes on this thread.
fn allocations(mut action: impl FnMut()) -> u64 {
    let before = ALLOCATIONS.get();
    action();
    ALLOCATIONS.get() - before
}

/// Does `action` once to warm up, then asserts that doing it again allocates nothing.
#[track_caller]
fn assert_steady(mut action: impl FnMut()) {
    action();
    assert_eq!(allocations(|| (0..100).for_each(|_| action())), 0);
}

const RESPONSE: &[u8] = b"HTTP/1.1 206 Partial Content\r\nx-amz-request-id: 1\r\nx-amz-version-id: 2\r\nETag: \"e\"\r\n\
    Last-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Type: application/octet-stream\r\n\
    Content-Range: bytes 0-4095/20000000\r\nContent-Length: 4096\r\n\r\n";

const SHOWN: Shown<'_> =
    Shown { content_encoding: true, version_id: true, default_cache_control: Some("no-cache") };

fn credentials() -> Credentials {
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    fixed_credentials("AKIDEXAMPLE", secret, Some("token".repeat(100)))
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn a_signature_of_the_same_day_allocates_nothing() {
    let (current, mut out) = (Current::new(credentials()), Vec::with_capacity(1024));
    let mut signer = Signer::new("us-east-1", "s3");
    let mut seconds = 1_440_938_160;
    assert_steady(|| {
        seconds += 1;
        let time = Timestamp::new(seconds);
        let parts = SignedParts {
            method: "GET",
            path: b"/bucket/runs/a.bam",
            query: b"",
            headers: &[("host", b"s3.example.org"), ("x-amz-date", time.as_bytes())],
            payload_hash: EMPTY_PAYLOAD_SHA256,
        };
        out.clear();
        let signature = signer.sign(&current, time, &parts);
        let credentials = &current.credentials;
        signer.write_authorization(credentials, time, parts.headers, &signature, &mut out);
    });
    assert!(out.starts_with(b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/"));
}

#[test]
fn a_whole_signed_request_allocates_nothing() {
    let mut bucket = Bucket::new(
        "bucket".to_owned(),
        "us-east-1",
        Endpoint::At(Arc::new(Origin {
            tls: false,
            host: "s3.example.org".to_owned(),
            port: 9000,
        })),
        Addressing::Path,
        Some(Arc::new(CredentialsHandle::fixed(credentials()))),
    );
    bucket.requester_pays = true;
    bucket.customer_key = Some(Arc::new(CustomerKey::new(&[7; 32])));
    let (mut writer, mut out) = (RequestWriter::new(Arc::new(bucket)), Vec::with_capacity(4096));
    let range = Some(ByteRange::Closed { first: 0, last: 4095 });
    let conditions = Preconditions { if_none_match: Some(b"\"e\""), ..Preconditions::default() };
    assert_steady(|| {
        out.clear();
        let key = "runs/é a.bam";
        let (operation, version_id) = (Operation::Get, Some("3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"));
        let leave_body_in_socket = false;
        let request =
            ObjectRequest { operation, key, version_id, range, conditions, leave_body_in_socket };
        writer.write(&request, &mut out).expect("keys that never change");
    });
    assert!(out.starts_with(b"GET /bucket/runs/%C3%A9%20a.bam?versionId=3HL4kqtJlcpXroDTDmJ%2Brm"));
}

#[test]
fn reading_a_request_head_and_its_key_allocates_nothing() {
    let head = b"GET /files/runs/a%20b.bam HTTP/1.1\r\nHost: localhost:5000\r\n\
        User-Agent: htslib/1.21\r\nAccept: */*\r\nRange: bytes=0-4095\r\n\r\n";
    let mut key = String::with_capacity(64);
    assert_steady(|| {
        let request = parse_request(head).expect("a good head");
        key.clear();
        percent_decode(&request.target_text["/files/".len()..], 1024, &mut key).expect("a key");
        assert!(request.range.and_then(ByteRange::parse).is_some());
    });
    assert_eq!(key, "runs/a b.bam");
}

#[test]
fn naming_a_version_allocates_nothing() {
    let mut object = ObjectName::default();
    assert_steady(|| {
        object.start().push_str("runs/a.bam");
        object.read_version_id("acl&versionId=3HL4%2B").expect("a version");
    });
    assert_eq!((object.key(), object.version_id()), ("runs/a.bam", Some("3HL4+")));
}

#[test]
fn reading_a_response_head_and_its_metadata_allocates_nothing() {
    let mut metadata = Metadata::default();
    assert_steady(|| {
        let head = ResponseHead::parse(RESPONSE).expect("a good head");
        assert!(metadata.read(&head, RESPONSE, SHOWN));
    });
    assert_eq!(metadata.size, 20_000_000);
}

#[test]
fn storing_metadata_and_looking_it_up_allocates_nothing() {
    let mut metadata = Metadata::default();
    let head = ResponseHead::parse(RESPONSE).expect("a good head");
    assert!(metadata.read(&head, RESPONSE, SHOWN));
    let id = ObjectId { bucket: BucketId::unique(), key: "runs/a.bam", version_id: Some("v1") };
    let mut map =
        MetadataCache::new(MetadataSettings::default(), Arc::new(LatestResponses::new(1000)));
    assert_steady(|| {
        let now = Instant::now();
        map.store_object(id, &metadata, now, now);
        assert!(map.get(id, now, Duration::MAX).is_some());
    });
}
