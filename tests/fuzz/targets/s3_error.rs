//! An error response of S3, chunked or not: it is classified, and it is one short line in the log.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::http1::chunked::{self, Progress};
use s3proxy::s3::error::ServiceError;

fuzz_target!(|input: (u16, Option<&[u8]>, &[u8])| {
    let (status, request_id, encoded) = input;
    let Ok(status) = status.try_into() else { return };
    let mut body = Vec::new();
    let progress = chunked::decode(encoded, &mut body);
    assert!(body.len() <= encoded.len());
    if let Ok(Progress::Complete(end)) = progress {
        assert!(body.len() < end && end <= encoded.len());
        let mut again = Vec::new();
        assert_eq!(chunked::decode(&encoded[..end], &mut again), Ok(Progress::Complete(end)));
        assert_eq!(again, body, "what follows a body does not change it");
        assert_eq!(chunked::decode(&encoded[..end - 1], &mut again), Ok(Progress::Incomplete));
    }
    for body in [&body, encoded] {
        let error = ServiceError::parse(status, body, request_id);
        error.kind();
        let line = error.to_string();
        assert!(!line.contains(char::is_control) && line.chars().count() < 1_000, "{line:?}");
    }
});
