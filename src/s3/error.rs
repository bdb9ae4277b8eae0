//! S3's error responses, parsed and classified (Amazon S3 API Reference, "Error responses").

use std::fmt;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::StatusCode;

use crate::http1::conditional::http_date;
use crate::http1::framing::decimal;
use crate::logging::is_unprintable;

/// The parts of an error response that are used. They are empty if the response lacks them; one to
/// HEAD has no body and so no code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// The HTTP status.
    pub status: StatusCode,
    /// `<Code>`, for example `NoSuchKey`.
    pub code: String,
    /// `<Message>`, for the log only: it may contain what clients must not see.
    pub message: String,
    /// `<ActualObjectSize>` of a 416, in bytes.
    pub actual_object_size: Option<u64>,
    /// `x-amz-request-id`, which AWS support asks for.
    pub request_id: String,
    /// The bucket's region, if the request was signed for another:
    /// `x-amz-bucket-region` or `<Region>`.
    pub region: Option<String>,
    /// S3's time in the `Date` field, in seconds since 1970.
    pub date: Option<u64>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// S3's time in the `<ServerTime>` of a `RequestTimeTooSkewed`, in seconds since 1970.
    pub server_time: Option<u64>,
}

/// The cause of an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No such key or bucket.
    NotFound,
    /// The credentials are good, but may not read this object.
    AccessDenied,
    /// The object is in an archive (S3 Glacier) and cannot be read before it is restored.
    Archived,
    /// 400, 401 or 403 without a code, as to HEAD: either the object or the credentials may be the
    /// cause.
    Unexplained,
    /// The proxy's credentials are missing, expired or rejected.
    Credentials,
    /// The proxy's clock is more than 15 minutes off.
    Clock,
    /// The bucket is in another region or at another endpoint.
    WrongEndpoint,
    /// The object is encrypted with a customer key and none was sent, or one was sent for an object
    /// that is not. A wrong key is [`AccessDenied`](Kind::AccessDenied).
    CustomerKey,
    /// S3 throttles.
    SlowDown,
    /// S3 timed out.
    TimedOut,
    /// A condition of the request failed.
    PreconditionFailed,
    /// The range lies outside the object.
    RangeNotSatisfiable,
    /// The server does not allow such keys.
    InvalidKey,
    /// Anything else, such as an internal error of S3.
    Other,
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

    /// The cause, by the code, or by the status if there is no known code.
    pub fn kind(&self) -> Kind {
        match self.code.as_str() {
            "AccessDenied" if self.is_refusal_by_garage() => Kind::Credentials,
            "NoSuchKey" | "NoSuchBucket" | "NoSuchVersion" => Kind::NotFound,
            "AccessDenied" | "AllAccessDisabled" => Kind::AccessDenied,
            "InvalidObjectState" => Kind::Archived,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "InvalidSecurity"
            | "NotSignedUp"
            | "AccountProblem"
            | "MissingSecurityHeader" => Kind::Credentials,
            "RequestTimeTooSkewed" | "RequestExpired" => Kind::Clock,
            // Garage has no specific code for it.
            "InvalidRequest" if self.message.contains("Date is too old") => Kind::Clock,
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => Kind::WrongEndpoint,
            "SlowDown"
            | "ServiceUnavailable"
            | "Throttling"
            | "RequestLimitExceeded"
            | "TooManyRequests" => Kind::SlowDown,
            "RequestTimeout" => Kind::TimedOut,
            "PreconditionFailed" => Kind::PreconditionFailed,
            // S3 has no specific code for it, only these messages: "The object was stored using a
            // form of Server Side Encryption. …", "The encryption parameters are not applicable …".
            "InvalidRequest" | "InvalidArgument" if self.message.contains("ncryption") => {
                Kind::CustomerKey
            }
            "InvalidRange" => Kind::RangeNotSatisfiable,
            "InvalidURI"
            | "InvalidKey"
            | "InvalidObjectName"
            | "KeyTooLongError"
            | "XMinioInvalidObjectName"
            | "XMinioInvalidResourceName" => Kind::InvalidKey,
            _ => self.kind_of_status(),
        }
    }

    /// Whether it is a 404 for a missing key, not for a missing bucket or version.
    pub fn is_plain_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && matches!(self.code.as_str(), "" | "NoSuchKey")
    }

    /// The `target` of log messages about it. The log limits each bucket and code separately, so
    /// that many errors of one kind do not suppress another.
    pub fn log_target(&self, bucket: &str) -> String {
        format!("s3proxy::s3::{bucket}::{} {}", self.status.as_str(), self.code)
    }

    /// Whether the key may not exist: S3 denies access to a missing key if the bucket may not be
    /// listed. Archived objects and rejected credentials have other codes.
    pub fn may_be_missing(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
            && self.code == "AccessDenied"
            && self.kind() == Kind::AccessDenied
    }

    /// Garage has no codes for a wrong secret and for an unknown access key, only these messages.
    fn is_refusal_by_garage(&self) -> bool {
        self.message.starts_with("Forbidden: Invalid signature")
            || self.message.starts_with("Forbidden: No such key: ")
    }

    /// Whether S3 rejects the credentials for every request. A wrong signature may be due to one
    /// key that S3 canonicalises in another way.
    pub fn is_about_credentials(&self) -> bool {
        matches!(
            self.code.as_str(),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidAccessKeyId"
        ) || self.message.starts_with("Forbidden: No such key: ")
    }

    /// Whether a retry may succeed (Amazon S3 User Guide, "Best practices design patterns"). An
    /// unknown status is treated as the first of its class (RFC 9110 §15).
    pub fn is_transient(&self) -> bool {
        match self.kind() {
            Kind::SlowDown | Kind::TimedOut => true,
            // It will not be implemented meanwhile.
            _ => self.status.is_server_error() && self.code != "NotImplemented",
        }
    }

    fn kind_of_status(&self) -> Kind {
        match self.status {
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => Kind::WrongEndpoint,
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
                if self.code.is_empty() =>
            {
                Kind::Unexplained
            }
            StatusCode::FORBIDDEN => Kind::AccessDenied,
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::PRECONDITION_FAILED => Kind::PreconditionFailed,
            StatusCode::RANGE_NOT_SATISFIABLE => Kind::RangeNotSatisfiable,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Kind::SlowDown,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Kind::TimedOut,
            _ => Kind::Other,
        }
    }
}

/// For the log: `S3 said 403 SignatureDoesNotMatch: The request … (request id 4442587FB7D0A2F9)`.
impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is the proxy's on the way: no S3 server sends it.
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return f.write_str(
                "the HTTP proxy wants a name and a password (407), or others than its URL has: \
                 http://NAME:PASSWORD@host:port",
            );
        }
        write!(f, "S3 said {}", self.status.as_str())?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if !self.request_id.is_empty() {
            write!(f, " (request id {})", self.request_id)?;
        }
        if let Some(seconds) = self.retry_after {
            write!(f, "; it wants no request for the next {seconds} s (Retry-After)")?;
        }
        Ok(())
    }
}

/// Longest text that is kept of an error response, in characters.
const TEXT_CHARACTERS: usize = 300;

/// The content of the first `<name>…</name>`. S3's error documents are flat and their element
/// names have no prefix, so searching for the tags is enough.
fn element<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let open = format!("<{name}>");
    let start = memchr::memmem::find(body, open.as_bytes())? + open.len();
    let length = memchr::memmem::find(&body[start..], format!("</{name}>").as_bytes())?;
    Some(&body[start..start + length])
}

/// A time in ISO 8601 or as in a `Date` field, in seconds since 1970.
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

/// One short line without control characters, fit for a log.
fn printable(text: &str) -> String {
    let clean = |c: char| if is_unprintable(c) { ' ' } else { c };
    text.trim().chars().map(clean).take(TEXT_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_SUCH_KEY: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\
        <Code>NoSuchKey</Code><Message>The &lt;key&gt;\ndoes &amp; not exist</Message>\
        <Resource>/a</Resource><RequestId>4442587FB7D0A2F9</RequestId></Error>";

    fn parse(status: u16, body: &[u8], request_id: Option<&[u8]>) -> ServiceError {
        ServiceError::parse(StatusCode::from_u16(status).unwrap(), body, request_id)
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
    fn what_s3_says_cannot_disturb_a_terminal() {
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
    fn the_code_tells_the_cause_of_a_403() {
        let kind = |code: &str| {
            let body = format!("<Error><Code>{code}</Code></Error>");
            parse(403, body.as_bytes(), None).kind()
        };
        assert_eq!(kind("AccessDenied"), Kind::AccessDenied);
        assert_eq!(kind("SomethingNew"), Kind::AccessDenied);
        assert_eq!(kind("InvalidObjectState"), Kind::Archived);
        assert_eq!(kind("SignatureDoesNotMatch"), Kind::Credentials);
        assert_eq!(kind("RequestTimeTooSkewed"), Kind::Clock);
        assert_eq!(parse(403, b"", None).kind(), Kind::Unexplained);
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
    fn only_a_plain_denial_may_be_a_missing_key() {
        let may_be_missing = |status: u16, code: &str, message: &str| {
            let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
            parse(status, body.as_bytes(), None).may_be_missing()
        };
        assert!(may_be_missing(403, "AccessDenied", "Access Denied"));
        for code in ["InvalidObjectState", "AllAccessDisabled", "InvalidAccessKeyId", "", "New"] {
            assert!(!may_be_missing(403, code, ""), "{code}");
        }
        assert!(!may_be_missing(403, "AccessDenied", "Forbidden: Invalid signature"));
        assert!(!may_be_missing(400, "AccessDenied", ""));
    }

    #[test]
    fn garages_rejection_of_credentials_is_recognised_by_its_message() {
        let kind = |message: &str| {
            let body =
                format!("<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>");
            parse(403, body.as_bytes(), None).kind()
        };
        assert_eq!(kind("Forbidden: Invalid signature"), Kind::Credentials);
        assert_eq!(kind("Forbidden: No such key: GK0123456789"), Kind::Credentials);
        assert_eq!(kind("Forbidden: Operation is not allowed for this key."), Kind::AccessDenied);
        assert_eq!(kind("Access Denied"), Kind::AccessDenied);
    }

    #[test]
    fn an_error_about_encryption_is_recognised_by_its_message() {
        let kind = |message: &str| {
            let body =
                format!("<Error><Code>InvalidRequest</Code><Message>{message}</Message></Error>");
            parse(400, body.as_bytes(), None).kind()
        };
        for message in [
            "The object was stored using a form of Server Side Encryption. The correct parameters \
             must be provided to retrieve the object.",
            "The encryption parameters are not applicable to this object.",
            "Requests specifying Server Side Encryption with Customer provided keys must be made \
             over a secure connection.",
        ] {
            assert_eq!(kind(message), Kind::CustomerKey, "{message}");
        }
        assert_eq!(kind("Missing required header for this request"), Kind::Other);
    }

    #[test]
    fn failures_of_s3_are_transient_and_refusals_are_not() {
        let is_transient = |status: u16, code: &str| {
            let body = format!("<Error><Code>{code}</Code></Error>");
            let with_code = parse(status, body.as_bytes(), None).is_transient();
            let bare = parse(status, b"", None).is_transient();
            (with_code, bare)
        };
        for status in (500..600).chain([408, 429]) {
            assert_eq!(is_transient(status, "InternalError"), (true, true), "{status}");
        }
        for status in (300..500).filter(|status| ![408, 429].contains(status)) {
            assert_eq!(is_transient(status, "SomethingNew"), (false, false), "{status}");
            assert_eq!(is_transient(status, "SlowDown"), (true, false), "{status}");
            assert_eq!(is_transient(status, "RequestTimeout"), (true, false), "{status}");
        }
        assert_eq!(is_transient(501, "NotImplemented"), (false, true));
    }

    #[test]
    fn a_malformed_body_is_an_error_without_a_code() {
        for body in [&b""[..], b"<Code>", b"<Code>x", b"<html>503</html>", b"<Code>x</Cod", b"<"] {
            let error = parse(503, body, None);
            assert_eq!((error.code.as_str(), error.kind()), ("", Kind::SlowDown));
        }
    }
}
