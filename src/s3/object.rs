//! An object's metadata: its size, and the header fields sent to clients.

use std::ops::Range;

use http::StatusCode;

use crate::http1::cache_control::CacheControl;
use crate::http1::conditional::{Validators, entity_tag, http_date};
use crate::http1::framing::{BodyLength, list_has_token};
use crate::http1::range::ContentRange;
use crate::http1::response::{Field, ResponseHead};

/// An object's metadata, from an S3 response.
///
/// The header fields are stored in the form in which they are sent, so that a response from the
/// cache needs copies and no formatting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The object's size in bytes.
    pub size: u64,
    last_modified: Option<u64>,
    etag: Range<usize>,
    fields: Vec<u8>,
    /// End of the fields that a 304 has too (RFC 9110 §15.4.5); they come first in `fields`.
    validators_end: usize,
    /// The value of `Cache-Control`, empty without one.
    cache_control: Range<usize>,
    /// End of the fields of a 206; only `Content-Encoding` follows.
    part_end: usize,
}

/// Which optional fields are sent to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// `Content-Encoding`.
    pub content_encoding: bool,
    /// `x-amz-version-id`.
    pub version_id: bool,
    /// `Cache-Control` for objects that are stored without it.
    pub default_cache_control: Option<&'a str>,
}

impl Shown<'_> {
    fn allows(self, field: Field) -> bool {
        match field {
            Field::ContentEncoding => self.content_encoding,
            Field::VersionId => self.version_id,
            _ => true,
        }
    }
}

/// The fields of a 304 besides `ETag` and `Cache-Control`. The version is among them because it
/// changes when the same content is stored again, while the entity tag does not.
const CACHE_FIELDS: [Field; 2] = [Field::LastModified, Field::VersionId];

/// The fields that only a 200 or a 206 has.
const CONTENT_FIELDS: [Field; 2] = [Field::ContentType, Field::ContentDisposition];

/// The coding that AWS's SDKs declare for a chunked upload. Some S3 servers store it as the
/// object's `Content-Encoding`, although they serve the object without it.
const UPLOAD_FRAMING: &[u8] = b"aws-chunked";

impl Metadata {
    /// Reads the metadata from a response to GET or HEAD, reusing this value's memory. `false` if
    /// the response does not state the object's size; the value must then not be used.
    pub fn read(&mut self, head: &ResponseHead, bytes: &[u8], shown: Shown) -> bool {
        self.fields.clear();
        (self.etag, self.cache_control) = (0..0, 0..0);
        if let Some(tag) = head.field(bytes, Field::ETag).and_then(entity_tag) {
            self.etag = self.push(Field::ETag, &tag);
        }
        for field in CACHE_FIELDS {
            if let Some(value) = head.field(bytes, field)
                && shown.allows(field)
            {
                self.push(field, value);
            }
        }
        let default = shown.default_cache_control.map(str::as_bytes);
        if let Some(value) = head.field(bytes, Field::CacheControl).or(default) {
            self.cache_control = self.push(Field::CacheControl, value);
        }
        self.validators_end = self.fields.len();
        for field in CONTENT_FIELDS {
            if let Some(value) = head.field(bytes, field)
                && shown.allows(field)
            {
                self.push(field, value);
            }
        }
        self.part_end = self.fields.len();
        if let Some(value) = head.field(bytes, Field::ContentEncoding)
            && shown.allows(Field::ContentEncoding)
        {
            self.push_content_encoding(value);
        }
        self.last_modified = head.field(bytes, Field::LastModified).and_then(http_date);
        let size = match head.field(bytes, Field::ContentRange).map(ContentRange::parse) {
            // Even in a 200, Content-Range means a part: its length is not the object's size.
            Some(Some(ContentRange::Part { size, .. })) => Some(size),
            Some(Some(ContentRange::Unsatisfied { size }))
                if size == 0
                    || matches!(head.body_length, BodyLength::Known(0) | BodyLength::Chunked) =>
            {
                Some(size)
            }
            Some(_) => None,
            None => match (head.status, head.body_length) {
                (StatusCode::PARTIAL_CONTENT, _) => None,
                (_, BodyLength::Known(size)) => Some(size),
                (_, BodyLength::Chunked | BodyLength::UntilClose) => None,
            },
        };
        self.size = size.unwrap_or(0);
        size.is_some()
    }

    /// Appends a field and returns the position of its value.
    fn push(&mut self, field: Field, value: &[u8]) -> Range<usize> {
        self.fields.extend_from_slice(field.name().as_bytes());
        self.fields.extend_from_slice(b": ");
        let start = self.fields.len();
        self.fields.extend_from_slice(value);
        self.fields.extend_from_slice(b"\r\n");
        start..start + value.len()
    }

    /// Appends `Content-Encoding` without [`UPLOAD_FRAMING`].
    fn push_content_encoding(&mut self, value: &[u8]) {
        if !list_has_token(value, UPLOAD_FRAMING) {
            self.push(Field::ContentEncoding, value);
            return;
        }
        let is_coding =
            |coding: &&[u8]| !coding.is_empty() && !coding.eq_ignore_ascii_case(UPLOAD_FRAMING);
        let codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(is_coding);
        for (index, coding) in codings.enumerate() {
            let before: &[u8] = if index == 0 { b"Content-Encoding: " } else { b", " };
            self.fields.extend_from_slice(before);
            self.fields.extend_from_slice(coding);
        }
        if self.fields.len() > self.part_end {
            self.fields.extend_from_slice(b"\r\n");
        }
    }

    /// The header fields of a 200, each with its CRLF.
    pub fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// The header fields of a 206, without `Content-Encoding`: a part of an encoded object cannot
    /// be decoded by itself.
    pub fn part_fields(&self) -> &[u8] {
        &self.fields[..self.part_end]
    }

    /// The header fields of a 304.
    pub fn not_modified_fields(&self) -> &[u8] {
        &self.fields[..self.validators_end]
    }

    /// Whether each use needs validation by S3: `no-cache` (RFC 9111 §5.2.2.4) or `max-age=0`.
    pub fn is_always_validated(&self) -> bool {
        let mut control = CacheControl::default();
        control.cache_control(&self.fields[self.cache_control.clone()]);
        control.max_age_s() == Some(0)
    }

    /// The entity tag with its quotes.
    pub fn etag(&self) -> Option<&[u8]> {
        Some(&self.fields[self.etag.clone()]).filter(|etag| !etag.is_empty())
    }

    /// The validators that conditions are evaluated against.
    pub fn validators(&self) -> Validators<'_> {
        Validators { etag: self.etag(), last_modified: self.last_modified }
    }
}

/// The `Content-Range` of a response.
pub fn content_range(head: &ResponseHead, bytes: &[u8]) -> Option<ContentRange> {
    ContentRange::parse(head.field(bytes, Field::ContentRange)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Shown =
        Shown { content_encoding: true, version_id: true, default_cache_control: None };

    fn read(head: &str, shown: Shown<'_>) -> (bool, Metadata) {
        let parsed = ResponseHead::parse(head.as_bytes()).unwrap();
        let mut metadata = Metadata::default();
        (metadata.read(&parsed, head.as_bytes(), shown), metadata)
    }

    const HEAD: &str = "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\
        Content-Range: bytes 0-4/10\r\nContent-Encoding: gzip\r\nContent-Type: a/b\r\n\
        x-amz-meta-secret: s\r\nx-amz-version-id: v1\r\nETag: \"e\"\r\n\
        Last-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n";

    #[test]
    fn fields_are_kept_as_they_are_sent_with_the_validators_first() {
        let (complete, metadata) = read(HEAD, ALL);
        assert!(complete);
        assert_eq!(metadata.size, 10);
        assert_eq!(metadata.etag(), Some(&b"\"e\""[..]));
        let validators = "ETag: \"e\"\r\nLast-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
            x-amz-version-id: v1\r\n";
        assert_eq!(metadata.not_modified_fields(), validators.as_bytes());
        let all = format!("{validators}Content-Type: a/b\r\nContent-Encoding: gzip\r\n");
        assert_eq!(metadata.fields(), all.as_bytes());
        let part = format!("{validators}Content-Type: a/b\r\n");
        assert_eq!(metadata.part_fields(), part.as_bytes());
        assert_eq!(metadata.validators().last_modified, Some(1_795_521_600));
    }

    #[test]
    fn a_stored_content_encoding_and_the_version_can_be_withheld() {
        let holds = |shown: Shown<'_>, text: &str| {
            let (_, metadata) = read(HEAD, shown);
            memchr::memmem::find(metadata.fields(), text.as_bytes()).is_some()
        };
        let (encoding, version) = ("Content-Encoding: gzip", "x-amz-version-id: v1");
        let none = Shown { content_encoding: false, version_id: false, ..ALL };
        assert!(!holds(none, encoding) && !holds(none, version));
        let one = Shown { version_id: true, ..none };
        assert!(!holds(one, encoding) && holds(one, version));
    }

    #[test]
    fn the_framing_of_an_upload_is_not_a_content_encoding() {
        let shown = |value: &str| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: {value}\r\n\r\n"
            );
            let fields = read(&head, ALL).1.fields().to_vec();
            String::from_utf8(fields).unwrap()
        };
        for value in ["aws-chunked", "AWS-Chunked", " aws-chunked ,", "aws-chunked,aws-chunked"] {
            assert_eq!(shown(value), "", "{value}");
        }
        for value in ["gzip,aws-chunked", "aws-chunked, gzip", "aws-chunked,,\tgzip ,AWS-CHUNKED"] {
            assert_eq!(shown(value), "Content-Encoding: gzip\r\n", "{value}");
        }
        assert_eq!(shown("br, aws-chunked,gzip"), "Content-Encoding: br, gzip\r\n");
        assert_eq!(shown("gzip ,br"), "Content-Encoding: gzip ,br\r\n");
        assert_eq!(shown("aws-chunked-not"), "Content-Encoding: aws-chunked-not\r\n");
    }

    #[test]
    fn an_object_without_cache_control_gets_the_default_and_others_keep_theirs() {
        let shown = Shown { default_cache_control: Some("no-cache"), ..ALL };
        let (_, metadata) = read(HEAD, shown);
        let has = |fields: &[u8], text: &[u8]| memchr::memmem::find(fields, text).is_some();
        for fields in [metadata.fields(), metadata.part_fields(), metadata.not_modified_fields()] {
            assert!(has(fields, b"Cache-Control: no-cache\r\n"));
        }
        let stored = HEAD.replace("x-amz-meta-secret: s", "Cache-Control: max-age=9");
        let (_, metadata) = read(&stored, shown);
        assert!(has(metadata.fields(), b"Cache-Control: max-age=9\r\n"));
        assert!(!has(metadata.fields(), b"no-cache"));
    }

    #[test]
    fn no_cache_and_max_age_0_require_validation_of_every_use() {
        for (stored, default, expected) in [
            (None, Some("no-cache"), true),
            (None, None, false),
            (None, Some("max-age=60"), false),
            (Some("max-age=60"), Some("no-cache"), false),
            (Some("private, No-Cache"), None, true),
            (Some("max-age=0, must-revalidate"), None, true),
        ] {
            let field = stored.map(|value| format!("Cache-Control: {value}\r\n"));
            let field = field.unwrap_or_default();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{field}\r\n");
            let (_, metadata) = read(&head, Shown { default_cache_control: default, ..ALL });
            assert_eq!(metadata.is_always_validated(), expected, "{stored:?} {default:?}");
        }
    }

    #[test]
    fn an_empty_part_of_size_0_means_an_empty_object() {
        let head = "HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\nETag: \"e\"\r\n\
            Content-Range: bytes 0-18446744073709551615/0\r\n\r\n";
        let (complete, metadata) = read(head, ALL);
        assert!(complete);
        assert_eq!((metadata.size, metadata.etag()), (0, Some(&b"\"e\""[..])));
    }

    #[test]
    fn a_response_without_the_size_is_not_used() {
        assert!(!read("HTTP/1.1 200 OK\r\n\r\n", ALL).0);
        assert!(!read("HTTP/1.1 206 OK\r\nContent-Length: 5\r\n\r\n", ALL).0);
        assert!(!read("HTTP/1.1 206 OK\r\nContent-Range: bytes */5\r\n\r\n", ALL).0);
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ALL).0);
    }
}
