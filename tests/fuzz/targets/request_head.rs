//! A request head: what is accepted has one meaning.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::internals::{HeadEnd, find_head_end, parse_request};

fuzz_target!(|bytes: &[u8]| {
    let HeadEnd::At(end) = find_head_end(bytes) else { return };
    let head = &bytes[..end];
    assert!(head.ends_with(b"\r\n\r\n") || head == b"\r\n");
    assert_eq!(find_head_end(head), HeadEnd::At(end), "what follows a head does not move its end");
    let Ok(request) = parse_request(head) else { return };
    assert!(request.minor_version <= 1);
    assert!(!request.target_text.contains(|c: char| c == ' ' || c.is_ascii_control()));
    let conditions = &request.preconditions;
    let values = [request.range, request.if_range, request.user_agent, conditions.if_match];
    for value in values.into_iter().chain([conditions.if_none_match]).flatten() {
        // It is logged, or sent on to S3: a line end in it would be another field.
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
});
