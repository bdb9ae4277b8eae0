//! Reads and parses an error response of S3: its header fields and its XML document.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::StatusCode;

use crate::clock;
use crate::http1::conditional::http_date;
use crate::http1::framing::decimal;
use crate::http1::range::ContentRange;
use crate::http1::response::Field;
use crate::limits;
use crate::logging::is_unprintable;
use crate::s3::error::ServiceError;
use crate::s3::object::content_range;
use crate::s3::response::Response;

impl Response {
    /// Reads an error response, with as much of its body as can be received, up to
    /// [`limits::ERROR_BODY_BYTES`].
    pub(crate) async fn into_error(mut self) -> ServiceError {
        // The status is useful even if the body is truncated.
        let (_, body) = self.read_all(limits::ERROR_BODY_BYTES).await;
        let head = self.head();
        let mut error = ServiceError::parse(head.status, &body, self.field(Field::RequestId));
        if let Some(region) = self.field(Field::BucketRegion) {
            error.region = Some(String::from_utf8_lossy(region).into_owned());
        }
        error.date = self.field(Field::Date).and_then(http_date);
        error.retry_after =
            self.field(Field::RetryAfter).and_then(|value| retry_after(value, error.date));
        if let Some(ContentRange::Unsatisfied { size }) = content_range(head, self.head_bytes()) {
            error.actual_object_size = Some(size);
        }
        self.recycle();
        error
    }
}

/// The seconds of a `Retry-After`, whose value may also be a date (RFC 9110 §10.2.3) by S3's clock.
fn retry_after(value: &[u8], s3_now: Option<u64>) -> Option<u64> {
    let until = |end: u64| end.saturating_sub(s3_now.unwrap_or_else(clock::unix_seconds));
    decimal(value).or_else(|| http_date(value).map(until))
}

impl ServiceError {
    /// Parses an error response; `body` may be empty, truncated, or not XML.
    pub fn parse(status: StatusCode, body: &[u8], request_id: Option<&[u8]>) -> ServiceError {
        let text = |name| element(body, name).map(unescape).unwrap_or_default();
        ServiceError {
            status,
            code: text("Code"),
            message: text("Message"),
            actual_object_size: element(body, "ActualObjectSize")
                .and_then(|digits| decimal(digits.trim_ascii())),
            request_id: match request_id {
                Some(id) => printable(&String::from_utf8_lossy(id)),
                None => text("RequestId"),
            },
            region: Some(text("Region")).filter(|region| !region.is_empty()),
            date: None,
            retry_after: None,
            server_time: element(body, "ServerTime").and_then(timestamp),
        }
    }
}

/// Longest text kept from an error response, in characters.
const TEXT_CHARACTERS: usize = 300;

/// The content of the first `<name>…</name>`. S3's error documents are flat and their element
/// names have no prefix, so searching for the tags is enough.
fn element<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let open = format!("<{name}>");
    let start = memchr::memmem::find(body, open.as_bytes())? + open.len();
    let length = memchr::memmem::find(&body[start..], format!("</{name}>").as_bytes())?;
    Some(&body[start..start + length])
}

/// Parses a time in ISO 8601 or in the format of a `Date` field; in seconds since 1970.
fn timestamp(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    let iso = || {
        let text = std::str::from_utf8(text).ok()?;
        let time = DateTime::from_str(text, Format::DateTimeWithOffset).ok()?;
        u64::try_from(time.secs()).ok()
    };
    iso().or_else(|| http_date(text))
}

/// Replaces the five entities of XML, then [`printable`].
fn unescape(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text)
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&");
    printable(&text)
}

/// One short line without control characters, for the log.
fn printable(text: &str) -> String {
    let clean = |c: char| if is_unprintable(c) { ' ' } else { c };
    text.trim().chars().map(clean).take(TEXT_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::error::Kind;

    const NO_SUCH_KEY: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\
        <Code>NoSuchKey</Code><Message>The &lt;key&gt;\ndoes &amp; not exist</Message>\
        <Resource>/a</Resource><RequestId>4442587FB7D0A2F9</RequestId></Error>";

    fn parse(status: u16, body: &[u8], request_id: Option<&[u8]>) -> ServiceError {
        ServiceError::parse(StatusCode::from_u16(status).unwrap(), body, request_id)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(b"120", None), Some(120));
        let noon = b"Tue, 24 Nov 2026 12:00:00 GMT";
        let now = http_date(noon).map(|noon| noon - 7);
        assert_eq!(retry_after(noon, now), Some(7));
        assert_eq!(retry_after(noon, now.map(|now| now + 60)), Some(0), "it has passed");
        assert_eq!(retry_after(b"Tue, 24 Nov 2015 12:00:00 GMT", None), Some(0));
        for nonsense in [&b""[..], b"-1", b"soon", b"1.5"] {
            assert_eq!(retry_after(nonsense, now), None);
        }
    }

    #[test]
    fn the_documented_error_is_read() {
        let error = parse(404, NO_SUCH_KEY, None);
        assert_eq!(error.code, "NoSuchKey");
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(
            error.to_string(),
            "S3 said 404 NoSuchKey: The <key> does & not exist (request id 4442587FB7D0A2F9)"
        );
    }

    #[test]
    fn control_characters_from_s3_do_not_reach_the_terminal() {
        let body = "<Error><Message>a\u{1b}[31m\u{202e}b</Message></Error>".as_bytes();
        let error = parse(403, body, Some("\u{9b}ID".as_bytes()));
        assert_eq!(error.to_string(), "S3 said 403: a [31m b (request id  ID)");
    }

    #[test]
    fn a_range_error_carries_the_objects_size() {
        let body = b"<Error><Code>InvalidRange</Code><RangeRequested>bytes=99-</RangeRequested>\
            <ActualObjectSize>10</ActualObjectSize></Error>";
        let error = parse(416, body, Some(b"ID"));
        assert_eq!(error.actual_object_size, Some(10));
        assert_eq!(error.kind(), Kind::RangeNotSatisfiable);
        assert_eq!(error.request_id, "ID");
    }

    #[test]
    fn s3s_time_is_read_from_the_error() {
        let time = |text: &str| {
            let body = format!(
                "<Error><Code>RequestTimeTooSkewed</Code><RequestTime>x</RequestTime>\
                 <ServerTime>{text}</ServerTime></Error>"
            );
            parse(403, body.as_bytes(), None).server_time
        };
        for same in [
            "2031-01-01T00:00:00Z",
            " 2031-01-01T00:00:00.250Z\n",
            "2031-01-01T01:00:00+01:00",
            "Wed, 01 Jan 2031 00:00:00 GMT",
        ] {
            assert_eq!(time(same), Some(1_924_992_000), "{same}");
        }
        for nonsense in ["", "soon", "20310101", "1900-01-01T00:00:00Z", "2031-13-01T00:00:00Z"] {
            assert_eq!(time(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_malformed_body_is_an_error_without_a_code() {
        for body in [&b""[..], b"<Code>", b"<Code>x", b"<html>503</html>", b"<Code>x</Cod", b"<"] {
            let error = parse(503, body, None);
            assert_eq!((error.code.as_str(), error.kind()), ("", Kind::SlowDown));
        }
    }
}
