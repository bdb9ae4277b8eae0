//! Parses the head of an upstream response. Fields are stored as positions in the parsed bytes, not
//! as slices, so that the buffer can be moved and written to.

use std::mem::MaybeUninit;
use std::ops::Range;

use http::StatusCode;

use crate::http1::framing::{BodyLength, FramingError, FramingFields, list_has_token};
use crate::limits;

/// The response fields that are used; all others are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the field of that name")]
pub enum Field {
    BucketRegion,
    CacheControl,
    ContentDisposition,
    ContentEncoding,
    ContentRange,
    ContentType,
    Date,
    ETag,
    LastModified,
    RequestId,
    RetryAfter,
    VersionId,
}

/// The name of each field as sent to clients, in the order of [`Field`].
const FIELDS: [(&str, Field); 12] = [
    ("x-amz-bucket-region", Field::BucketRegion),
    ("Cache-Control", Field::CacheControl),
    ("Content-Disposition", Field::ContentDisposition),
    ("Content-Encoding", Field::ContentEncoding),
    ("Content-Range", Field::ContentRange),
    ("Content-Type", Field::ContentType),
    ("Date", Field::Date),
    ("ETag", Field::ETag),
    ("Last-Modified", Field::LastModified),
    ("x-amz-request-id", Field::RequestId),
    ("Retry-After", Field::RetryAfter),
    ("x-amz-version-id", Field::VersionId),
];

impl Field {
    /// The field's name, as sent to clients.
    pub fn name(self) -> &'static str {
        FIELDS[self as usize].0
    }
}

/// A response head, without the bytes that it was parsed from.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status code, 200 to 599.
    pub status: StatusCode,
    /// The declared length. A response to HEAD, a 204 and a 304 have no body in any case.
    pub body_length: BodyLength,
    /// Whether the connection can be reused after the body (RFC 9112 §9.3).
    pub keep_alive: bool,
    positions: [Range<u16>; FIELDS.len()],
}

/// Why a response head is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It is not a status line and fields.
    #[error("the response head is malformed: {0}")]
    Malformed(httparse::Error),
    /// The empty line is missing.
    #[error("the response head is incomplete")]
    Incomplete,
    /// The status is not 200 to 599. Interim responses must be skipped before.
    #[error("{0} is not the status of a final response")]
    Status(u16),
    /// The framing fields are invalid.
    #[error("the framing of the response is invalid: {0}")]
    Framing(#[from] FramingError),
}

impl ResponseHead {
    /// Parses a complete head, empty line included.
    ///
    /// # Errors
    /// See [`ResponseError`].
    pub fn parse(head: &[u8]) -> Result<ResponseHead, ResponseError> {
        let mut fields = [const { MaybeUninit::uninit() }; limits::RESPONSE_FIELDS];
        match ResponseHead::parse_with(head, &mut fields) {
            Err(ResponseError::Malformed(httparse::Error::TooManyHeaders)) => {
                // As many as fit into the head: each has a name, a colon and a line end at least.
                let mut fields = vec![MaybeUninit::uninit(); head.len() / b"a:\r\n".len()];
                ResponseHead::parse_with(head, &mut fields)
            }
            parsed => parsed,
        }
    }

    fn parse_with<'h>(
        head: &'h [u8],
        fields: &mut [MaybeUninit<httparse::Header<'h>>],
    ) -> Result<ResponseHead, ResponseError> {
        let mut parsed = httparse::Response::new(&mut []);
        let parsing = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            head,
            fields,
        );
        if parsing.map_err(ResponseError::Malformed)?.is_partial() {
            return Err(ResponseError::Incomplete);
        }
        let (Some(code), Some(minor_version)) = (parsed.code, parsed.version) else {
            return Err(ResponseError::Incomplete);
        };
        let status = match StatusCode::from_u16(code) {
            Ok(status) if (200..600).contains(&code) => status,
            _ => return Err(ResponseError::Status(code)),
        };
        let mut this = ResponseHead {
            status,
            body_length: BodyLength::UntilClose,
            keep_alive: minor_version == 1,
            positions: [const { 0..0 }; FIELDS.len()],
        };
        this.read_fields(head, parsed.headers)?;
        Ok(this)
    }

    fn read_fields(
        &mut self,
        head: &[u8],
        fields: &[httparse::Header<'_>],
    ) -> Result<(), ResponseError> {
        let mut framing = FramingFields::default();
        for field in fields {
            let (name, value) = (field.name, field.value);
            match name.len() {
                10 if name.eq_ignore_ascii_case("connection") => {
                    self.keep_alive = !list_has_token(value, b"close")
                        && (self.keep_alive || list_has_token(value, b"keep-alive"));
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    framing.content_length(value)?;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    framing.transfer_encoding(value)?;
                }
                _ => {
                    let used = FIELDS.iter().find(|(used, _)| name.eq_ignore_ascii_case(used));
                    if let Some(&(_, field)) = used {
                        self.positions[field as usize] = position(head, value);
                    }
                }
            }
        }
        self.body_length = framing.body_length()?.unwrap_or(BodyLength::UntilClose);
        Ok(())
    }

    /// The value of a field; `None` if it is missing or empty. `head` must be the bytes that were
    /// parsed.
    pub fn field<'a>(&self, head: &'a [u8], field: Field) -> Option<&'a [u8]> {
        let Range { start, end } = self.positions[field as usize];
        head.get(usize::from(start)..usize::from(end)).filter(|value| !value.is_empty())
    }
}

/// The position of `value`, a slice of `head`, in it. A head has at most 16 KiB, so positions fit
/// into 16 bits.
fn position(head: &[u8], value: &[u8]) -> Range<u16> {
    let start = value.as_ptr().addr().saturating_sub(head.as_ptr().addr());
    match (u16::try_from(start), u16::try_from(start + value.len())) {
        (Ok(start), Ok(end)) => start..end,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_names_is_in_the_order_of_the_fields() {
        for (index, (name, field)) in FIELDS.into_iter().enumerate() {
            assert_eq!((field as usize, field.name()), (index, name));
        }
    }

    #[test]
    fn fields_are_found_by_their_positions() {
        let head =
            b"HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\ncontent-range: bytes 0-4/10\r\n\
            Content-Length: 5\r\nContent-Type:\r\n\r\n";
        let parsed = ResponseHead::parse(head).unwrap();
        assert_eq!(parsed.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(parsed.body_length, BodyLength::Known(5));
        assert!(parsed.keep_alive);
        assert_eq!(parsed.field(head, Field::ETag), Some(&b"\"e\""[..]));
        assert_eq!(parsed.field(head, Field::ContentRange), Some(&b"bytes 0-4/10"[..]));
        assert_eq!(parsed.field(head, Field::ContentType), None);
        assert_eq!(parsed.field(head, Field::Date), None);
    }

    #[test]
    fn a_body_without_a_length_lasts_until_the_connection_closes() {
        let parsed = ResponseHead::parse(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(parsed.body_length, BodyLength::UntilClose);
        assert!(!parsed.keep_alive);
    }

    #[test]
    fn the_number_of_fields_is_not_limited() {
        let many = "A:\r\n".repeat(2_000);
        let head = format!("HTTP/1.1 200 OK\r\n{many}ETag: \"e\"\r\nContent-Length: 5\r\n\r\n");
        let parsed = ResponseHead::parse(head.as_bytes()).unwrap();
        assert_eq!(parsed.body_length, BodyLength::Known(5));
        assert_eq!(parsed.field(head.as_bytes(), Field::ETag), Some(&b"\"e\""[..]));
    }

    #[test]
    fn a_malformed_head_is_rejected() {
        assert!(ResponseHead::parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").is_err());
        assert_eq!(
            ResponseHead::parse(b"HTTP/1.1 100 Continue\r\n\r\n").err(),
            Some(ResponseError::Status(100))
        );
        assert_eq!(
            ResponseHead::parse(b"HTTP/1.1 200 OK\r\n").err(),
            Some(ResponseError::Incomplete)
        );
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
        assert!(matches!(ResponseHead::parse(two), Err(ResponseError::Framing(_))));
    }
}
