//! `Range` and `Content-Range`: a resolved range is inside the object, and parsing and writing a
//! range again does not change it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::internals::{ByteRange, ContentRange};

fuzz_target!(|input: (u64, &[u8])| {
    let (size, value) = input;
    if let Some(range) = ByteRange::parse(value) {
        let mut written = Vec::new();
        range.write(&mut written);
        assert_eq!(ByteRange::parse(&written), Some(range));
        for size in [0, 1, size, u64::MAX] {
            let Some(extent) = range.resolve(size) else { continue };
            assert!(extent.first <= extent.last && extent.last < size);
            assert!((1..=size).contains(&extent.length()));
        }
    }
    if let Some(ContentRange::Part { extent, size }) = ContentRange::parse(value) {
        assert!(extent.first <= extent.last && extent.last < size);
        assert!((1..=size).contains(&extent.length()));
    }
});
