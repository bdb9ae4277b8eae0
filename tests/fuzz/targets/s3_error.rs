//! An error response of S3, chunked or not: it is classified and logged as one short line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::internals::{Decoder, ServiceError};

/// Decodes `encoded` in pieces of `size` bytes; `None` if it is invalid, else the body and whether
/// it has ended.
fn decode(encoded: &[u8], size: usize) -> Option<(Vec<u8>, bool)> {
    let (mut decoder, mut body) = (Decoder::default(), Vec::new());
    for piece in encoded.chunks(size) {
        let mut piece = piece.to_vec();
        let length = decoder.decode(&mut piece).ok()?;
        body.extend_from_slice(&piece[..length]);
    }
    Some((body, decoder.is_done()))
}

fuzz_target!(|input: (u16, Option<&[u8]>, &[u8])| {
    let (status, request_id, encoded) = input;
    let Ok(status) = status.try_into() else { return };
    let decoded = decode(encoded, usize::MAX);
    for size in [1, 2, 7] {
        assert_eq!(decode(encoded, size), decoded, "the pieces do not matter");
    }
    let (body, is_done) = decoded.unwrap_or_default();
    assert!(body.len() <= encoded.len());
    if is_done {
        let shorter = decode(&encoded[..encoded.len() - 1], usize::MAX);
        assert_eq!(shorter, Some((body.clone(), false)), "the last byte ends the body");
    }
    for body in [&body[..], encoded] {
        let error = ServiceError::parse(status, body, request_id);
        error.kind();
        let line = error.to_string();
        assert!(!line.contains(char::is_control) && line.chars().count() < 1_000, "{line:?}");
    }
});
