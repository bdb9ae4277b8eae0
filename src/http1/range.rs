//! The `Range` and `Content-Range` fields for bytes (RFC 9110 §14).

use crate::http1::framing::decimal;

/// Positions are clamped to this. It exceeds the size of any object (S3's limit is 50 TB), and fits
/// into a signed 64-bit integer, which many servers use for positions.
const LARGEST_POSITION: u64 = 1 << 60;

/// A requested byte range, before it is resolved against the object's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=first-last`, both inclusive, `first <= last`.
    Closed {
        /// Position of the first byte.
        first: u64,
        /// Position of the last byte; may be past the end of the object.
        last: u64,
    },
    /// `bytes=first-`: from a position to the end.
    From {
        /// Position of the first byte.
        first: u64,
    },
    /// `bytes=-length`: the last bytes.
    Suffix {
        /// Number of bytes; may exceed the object's size, and may be 0.
        length: u64,
    },
}

/// A range that lies inside an object, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Position of the first byte.
    pub first: u64,
    /// Position of the last byte.
    pub last: u64,
}

impl Extent {
    /// Number of bytes; at least one.
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

impl ByteRange {
    /// Parses the value of a `Range` field. `None` means that the field must be ignored (RFC 9110
    /// §14.2): another unit, several ranges, or invalid syntax.
    pub fn parse(value: &[u8]) -> Option<ByteRange> {
        let equals = memchr::memchr(b'=', value)?;
        let (unit, set) = (&value[..equals], value[equals + 1..].trim_ascii());
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let dash = memchr::memchr(b'-', set)?;
        match (&set[..dash], &set[dash + 1..]) {
            (b"", length) => Some(ByteRange::Suffix { length: position(length)? }),
            (first, b"") => Some(ByteRange::From { first: position(first)? }),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(ByteRange::Closed { first, last })
            }
        }
    }

    /// The part of an object of `size` bytes that the range selects; `None` if it is unsatisfiable
    /// and requires a 416 (RFC 9110 §15.5.17).
    pub fn resolve(self, size: u64) -> Option<Extent> {
        let end = size.checked_sub(1)?;
        match self {
            ByteRange::Closed { first, last } => {
                (first <= end).then(|| Extent { first, last: last.min(end) })
            }
            ByteRange::From { first } => (first <= end).then_some(Extent { first, last: end }),
            ByteRange::Suffix { length } => {
                (length > 0).then(|| Extent { first: size.saturating_sub(length), last: end })
            }
        }
    }

    /// The range that selects the same part of an object of `size` bytes, but does not extend past
    /// its end, which some servers reject.
    pub fn clamp(self, size: u64) -> ByteRange {
        let Some(end) = size.checked_sub(1) else { return self };
        match self {
            ByteRange::Closed { first, last } if first <= end && last > end => {
                ByteRange::Closed { first, last: end }
            }
            ByteRange::Suffix { length } if length > size => {
                ByteRange::Closed { first: 0, last: end }
            }
            _ => self,
        }
    }

    /// Appends the range as the value of a `Range` field.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(b"bytes=");
        match self {
            ByteRange::Closed { first, last } => {
                out.extend_from_slice(digits.format(first).as_bytes());
                out.push(b'-');
                out.extend_from_slice(digits.format(last).as_bytes());
            }
            ByteRange::From { first } => {
                out.extend_from_slice(digits.format(first).as_bytes());
                out.push(b'-');
            }
            ByteRange::Suffix { length } => {
                out.push(b'-');
                out.extend_from_slice(digits.format(length).as_bytes());
            }
        }
    }
}

/// Parses a position or a length, clamped to [`LARGEST_POSITION`].
fn position(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(decimal(digits).unwrap_or(LARGEST_POSITION).min(LARGEST_POSITION))
}

/// The value of a `Content-Range` field (RFC 9110 §14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// `bytes first-last/size`, in a 206.
    Part {
        /// The part of the object in the response.
        extent: Extent,
        /// The object's size in bytes.
        size: u64,
    },
    /// `bytes */size`, in a 416.
    Unsatisfied {
        /// The object's size in bytes.
        size: u64,
    },
}

impl ContentRange {
    /// Parses the value of a `Content-Range` field; `None` if it has neither form or is
    /// inconsistent. An unknown size (`/*`) is not accepted, since S3 always sends the size.
    pub fn parse(value: &[u8]) -> Option<ContentRange> {
        let value = value.strip_prefix(b"bytes ")?;
        let slash = memchr::memchr(b'/', value)?;
        let size = decimal(&value[slash + 1..])?;
        // An empty object has no parts. Garage 2.5 sends `bytes 0-18446744073709551615/0` for a
        // suffix range of one.
        if &value[..slash] == b"*" || size == 0 {
            return Some(ContentRange::Unsatisfied { size });
        }
        let dash = memchr::memchr(b'-', &value[..slash])?;
        let (first, last) = (decimal(&value[..dash])?, decimal(&value[dash + 1..slash])?);
        // For a range that starts at or past the end, some servers send an empty part that ends
        // with the object's last byte.
        if first >= size && last == size - 1 {
            return Some(ContentRange::Unsatisfied { size });
        }
        (first <= last && last < size)
            .then_some(ContentRange::Part { extent: Extent { first, last }, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(value: &str, size: u64) -> Option<(u64, u64)> {
        let extent = ByteRange::parse(value.as_bytes()).expect("a range").resolve(size)?;
        Some((extent.first, extent.last))
    }

    #[test]
    fn the_three_forms_resolve_against_the_size() {
        assert_eq!(resolve("bytes=0-0", 10), Some((0, 0)));
        assert_eq!(resolve("bytes=2-5", 10), Some((2, 5)));
        assert_eq!(resolve("bytes=9-", 10), Some((9, 9)));
        assert_eq!(resolve("bytes=-3", 10), Some((7, 9)));
    }

    #[test]
    fn ends_past_the_object_are_clamped() {
        assert_eq!(resolve("bytes=5-99999999999999999999999", 10), Some((5, 9)));
        assert_eq!(resolve("bytes=-99999999999999999999999", 10), Some((0, 9)));
    }

    #[test]
    fn a_clamped_range_selects_the_same_part() {
        let clamp = |value: &str, size| ByteRange::parse(value.as_bytes()).unwrap().clamp(size);
        assert_eq!(clamp("bytes=5-99", 10), ByteRange::Closed { first: 5, last: 9 });
        assert_eq!(clamp("bytes=-99", 10), ByteRange::Closed { first: 0, last: 9 });
        for (value, size) in [("bytes=0-9", 10), ("bytes=10-12", 10), ("bytes=-10", 10)] {
            assert_eq!(Some(clamp(value, size)), ByteRange::parse(value.as_bytes()), "{value}");
        }
        for value in ["bytes=0-9", "bytes=3-", "bytes=-1"] {
            assert_eq!(Some(clamp(value, 0)), ByteRange::parse(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn a_start_past_the_end_or_an_empty_object_is_unsatisfiable() {
        assert_eq!(resolve("bytes=10-", 10), None);
        assert_eq!(resolve("bytes=10-12", 10), None);
        assert_eq!(resolve("bytes=-0", 10), None);
        assert_eq!(resolve("bytes=0-", 0), None);
        assert_eq!(resolve("bytes=-5", 0), None);
    }

    #[test]
    fn anything_but_a_single_valid_range_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "items=0-5",
            "bytes 0-5",
            "bytes=0x1-2",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0 -5",
        ] {
            assert_eq!(ByteRange::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn the_unit_is_case_insensitive() {
        let expected = Some(ByteRange::Closed { first: 0, last: 5 });
        assert_eq!(ByteRange::parse(b"Bytes=0-5"), expected);
        assert_eq!(ByteRange::parse(b"bytes= 0-5 "), expected);
    }

    #[test]
    fn a_written_range_parses_to_itself() {
        for value in ["bytes=0-5", "bytes=7-", "bytes=-3"] {
            let range = ByteRange::parse(value.as_bytes()).unwrap();
            let mut written = Vec::new();
            range.write(&mut written);
            assert_eq!(written, value.as_bytes());
        }
    }

    #[test]
    fn content_range_must_be_consistent() {
        assert_eq!(
            ContentRange::parse(b"bytes 0-4/10"),
            Some(ContentRange::Part { extent: Extent { first: 0, last: 4 }, size: 10 })
        );
        assert_eq!(
            ContentRange::parse(b"bytes */10"),
            Some(ContentRange::Unsatisfied { size: 10 })
        );
        for none in ["bytes 10-9/10", "bytes 15-9/10"] {
            let parsed = ContentRange::parse(none.as_bytes());
            assert_eq!(parsed, Some(ContentRange::Unsatisfied { size: 10 }), "{none}");
        }
        for bad in [
            "bytes 10-18446744073709551615/10",
            "bytes 10-8/10",
            "bytes 4-0/10",
            "bytes 0-10/10",
            "bytes 0-4/*",
            "bytes=0-4/10",
            "0-4/10",
            "",
        ] {
            assert_eq!(ContentRange::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
