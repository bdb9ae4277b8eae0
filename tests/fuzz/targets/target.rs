//! A request target, decoded once into a key, and the version in its query.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::internals::{KEY_BYTES, ObjectName, Target, VERSION_ID_BYTES, percent_decode, write_encoded_path, write_encoded_query_value};

fuzz_target!(|target: &str| {
    let Some(Target::Resource { path, query }) = Target::parse(target) else { return };
    assert!(path.starts_with('/') && !path.contains(['?', '#']) && !query.contains('#'));
    check_version_id(query);
    let mut key = String::from("prefix/");
    if percent_decode(path, KEY_BYTES, &mut key).is_err() {
        return;
    }
    let decoded = key.strip_prefix("prefix/").expect("decoding appends");
    assert!(decoded.len() <= KEY_BYTES && decoded.len() <= path.len());
// `%00` is rejected; the parser of heads rejects a raw NUL.
    assert!(path.contains('\0') || !decoded.contains('\0'));
    assert!(path.contains('%') || decoded == path);

// S3 decodes the encoded path to the same key.
    let (mut encoded, mut again) = (Vec::new(), String::new());
    write_encoded_path(decoded.as_bytes(), &mut encoded);
    let encoded = std::str::from_utf8(&encoded).expect("the encoding is ASCII");
    assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#'));
    if !decoded.contains('\0') {
        assert_eq!(percent_decode(encoded, KEY_BYTES, &mut again), Ok(()));
        assert_eq!(again, decoded);
    }
});

/// The version of a query and the one in the query that is sent to S3 are the same.
fn check_version_id(query: &str) {
    let mut object = ObjectName::default();
    object.start().push_str("key");
    if object.read_version_id(query).is_err() {
        return;
    }
    assert_eq!(object.key(), "key");
    let Some(version_id) = object.version_id() else { return };
    assert!((1..=VERSION_ID_BYTES).contains(&version_id.len()));
    let mut sent = b"versionId=".to_vec();
    write_encoded_query_value(version_id.as_bytes(), &mut sent);
    let sent = std::str::from_utf8(&sent).expect("the encoding is ASCII");
    let mut again = ObjectName::default();
    again.start().push_str("key");
    assert_eq!(again.read_version_id(sent), Ok(()));
    assert!(again == object);
}
