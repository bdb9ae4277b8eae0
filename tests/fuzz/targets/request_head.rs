//! A request head: every accepted head is unambiguous.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::internals::{HeadEnd, find_head_end, parse_request};

fuzz_target!(|bytes: &[u8]| {
    let HeadEnd::At(end) = find_head_end(bytes) else { return };
    let head = &bytes[..end];
    assert!(head.ends_with(b"\r\n\r\n") || head == b"\r\n");
    assert_eq!(find_head_end(head), HeadEnd::At(end), "bytes after a head do not move its end");
    let Ok(request) = parse_request(head) else { return };
    assert!(request.minor_version <= 1);
    assert!(!request.target_text.contains(|c: char| c == ' ' || c.is_ascii_control()));
    let conditions = &request.preconditions;
    let values = [request.range, request.if_range, request.user_agent, conditions.if_match];
    for value in values.into_iter().chain([conditions.if_none_match]).flatten() {
// The value is logged or sent to S3: a line break in it would start another field.
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
});
