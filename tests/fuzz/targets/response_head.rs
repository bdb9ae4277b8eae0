//! An upstream's response head, and the metadata that is cached from it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::internals::{Field, Metadata, ResponseHead, Shown, content_range, entity_tag};

fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = ResponseHead::parse(bytes) else { return };
    assert!((200..600).contains(&head.status.as_u16()));
    #[rustfmt::skip]
    let fields = [
        Field::CacheControl, Field::ContentDisposition, Field::ContentEncoding, Field::ContentRange,
        Field::ContentType, Field::Date, Field::ETag, Field::LastModified, Field::RequestId,
        Field::VersionId,
    ];
    for value in fields.into_iter().filter_map(|field| head.field(bytes, field)) {
        assert!(!value.is_empty() && !value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    let mut metadata = Metadata::default();
    let shown = Shown {
        content_encoding: true,
        version_id: true,
        default_cache_control: Some("no-cache"),
    };
    metadata.read(&head, bytes, shown);
    assert_eq!(metadata.etag(), head.field(bytes, Field::ETag).and_then(entity_tag).as_deref());
    assert!(metadata.fields().starts_with(metadata.not_modified_fields()));
    assert!(metadata.fields().is_empty() || metadata.fields().ends_with(b"\r\n"));
    let lines = metadata.fields().iter().filter(|&&byte| byte == b'\n').count();
    assert!(lines <= 7, "one line per field that is passed on");

// A value that is reused keeps nothing of the earlier head.
    let kept = metadata.clone();
    metadata.read(&head, bytes, shown);
    assert_eq!(metadata, kept);
    content_range(&head, bytes);
});
