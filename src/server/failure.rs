//! Why a request fails, and the response that the client gets: the only place that maps failures to
//! statuses.

use std::borrow::Cow;

use http::StatusCode;

use crate::cache::metadata::Negative;
use crate::http1::framing::HeadEnd;
use crate::http1::request::RequestError;
use crate::http1::target::DecodeError;
use crate::s3::object_name::VersionIdError;

/// Why the response is not an object. Details for the operator are logged where the failure occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request head is invalid.
    Request(RequestError),
    /// A line of the head ends with LF alone.
    BareLineFeed,
    /// The head is larger than the limit.
    HeadTooLarge,
    /// A GET or HEAD with a body.
    Body,
    /// Another method.
    Method,
    /// The path cannot be decoded to a key.
    Key(DecodeError),
    /// The `versionId` cannot be the id of a version.
    VersionId(VersionIdError),
    /// S3 rejects the `versionId`.
    VersionRefused,
    /// The path is outside every mount.
    NotMounted,
    /// The path is that of a mount, without a key.
    NoKey,
    /// S3 has no such key, version or bucket.
    NotFound,
    /// S3 rejects such keys, so no object has it.
    InvalidKey,
    /// The proxy's credentials may not read the object.
    AccessDenied,
    /// The object is in an archive and must be restored before it can be read.
    Archived,
    /// A condition failed.
    PreconditionFailed,
    /// The range is outside the object.
    RangeNotSatisfiable {
        /// The object's size in bytes.
        size: u64,
    },
    /// The proxy has no valid credentials, or S3 rejects them.
    Credentials,
    /// S3 rejects the request because the proxy's clock is wrong.
    Clock,
    /// The bucket is in another region or at another endpoint.
    WrongEndpoint,
    /// The mount's customer key is missing, wrong, or not wanted.
    CustomerKey,
    /// S3 cannot be reached.
    Unreachable,
    /// S3's response is invalid, or an internal error of S3.
    BadResponse,
    /// S3 did not respond in time.
    TimedOut,
    /// S3 throttles the proxy.
    SlowDown {
        /// Seconds after which the client may retry.
        retry_after: u64,
    },
    /// All upstream connections of the worker are busy, or this machine lacks resources.
    Overloaded,
}

/// Seconds after which a client may retry after a 503, unless S3 sends another `Retry-After`.
pub(crate) const RETRY_AFTER: u64 = 1;

impl Failure {
    /// The status code.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Failure::Request(RequestError::TooManyFields) | Failure::HeadTooLarge => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Failure::Key(DecodeError::TooLong) => StatusCode::URI_TOO_LONG,
            Failure::Request(_)
            | Failure::BareLineFeed
            | Failure::Body
            | Failure::Key(_)
            | Failure::VersionId(_)
            | Failure::VersionRefused => StatusCode::BAD_REQUEST,
            Failure::Method => StatusCode::METHOD_NOT_ALLOWED,
            Failure::NotMounted | Failure::NoKey | Failure::NotFound | Failure::InvalidKey => {
                StatusCode::NOT_FOUND
            }
            Failure::AccessDenied | Failure::Archived => StatusCode::FORBIDDEN,
            Failure::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Failure::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Failure::Credentials
            | Failure::Clock
            | Failure::WrongEndpoint
            | Failure::CustomerKey
            | Failure::Unreachable
            | Failure::BadResponse => StatusCode::BAD_GATEWAY,
            Failure::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Failure::SlowDown { .. } | Failure::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether the connection must be closed, because it is uncertain where the next request
    /// starts.
    pub(crate) fn ends_connection(self) -> bool {
        matches!(
            self.status(),
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        )
    }

    /// The body: one line, without its line end. It never repeats text from S3.
    pub(crate) fn line(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Failure::Request(error) => return Cow::Owned(error.to_string()),
            Failure::Key(error) => return Cow::Owned(error.to_string()),
            Failure::VersionId(error) => return Cow::Owned(error.to_string()),
            Failure::VersionRefused => "S3 says that versionId is not the id of any version",
            Failure::BareLineFeed => "a line of the request head does not end with CRLF",
            Failure::HeadTooLarge => "the request head is larger than 16 KiB",
            Failure::Body => "a GET or HEAD request must not have a body",
            Failure::Method => "only GET, HEAD and OPTIONS are allowed",
            Failure::NotMounted => "no files here: the path is outside every mount",
            Failure::NoKey => "no object name: the path ends where a key should begin",
            Failure::NotFound => "no such object in the bucket",
            Failure::InvalidKey => "no such object: S3 does not accept this key",
            Failure::AccessDenied => "S3 denies access to this key",
            Failure::Archived => "the object is archived: restore it first",
            Failure::PreconditionFailed => "a condition of the request failed",
            Failure::RangeNotSatisfiable { size } => {
                return Cow::Owned(format!("the range is outside the object of {size} bytes"));
            }
            Failure::Credentials => "the credentials of this proxy are missing, expired or refused",
            Failure::Clock => "S3 refuses the request because the clock of this proxy is wrong",
            Failure::WrongEndpoint => "the bucket is in another region or at another endpoint",
            Failure::CustomerKey => "the encryption key of this proxy does not fit this object",
            Failure::Unreachable => "S3 cannot be reached",
            Failure::BadResponse => "S3 sent an invalid response, or failed",
            Failure::TimedOut => "S3 did not respond in time",
            Failure::SlowDown { .. } => "S3 asks for fewer requests: try again",
            Failure::Overloaded => "this proxy is busy: try again",
        })
    }

    /// The header fields that the status requires, each with its CRLF.
    pub(crate) fn fields(self) -> Cow<'static, str> {
        match self {
            Failure::Method => Cow::Borrowed("Allow: GET, HEAD, OPTIONS\r\n"),
            Failure::SlowDown { retry_after } => {
                Cow::Owned(format!("Retry-After: {retry_after}\r\n"))
            }
            Failure::Overloaded => Cow::Owned(format!("Retry-After: {RETRY_AFTER}\r\n")),
            Failure::RangeNotSatisfiable { size } => {
                Cow::Owned(format!("Content-Range: bytes */{size}\r\n"))
            }
            _ => Cow::Borrowed(""),
        }
    }

    /// Why a head has no end within the limit.
    pub(crate) fn from_head_end(end: HeadEnd) -> Failure {
        match end {
            HeadEnd::BareLineFeed => Failure::BareLineFeed,
            HeadEnd::Missing | HeadEnd::At(_) => Failure::HeadTooLarge,
        }
    }
}

impl From<Negative> for Failure {
    fn from(negative: Negative) -> Failure {
        match negative {
            Negative::NotFound => Failure::NotFound,
            Negative::AccessDenied => Failure::AccessDenied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::framing::FramingError;

    /// A table of failures. It does not compile unless each variant has a row.
    macro_rules! failures {
        ($($variant:pat => [$($failure:expr => $status:literal),+],)+) => {
            fn failures() -> Vec<(Failure, u16)> {
                let has_row = |failure: Failure| match failure { $($variant => {})+ };
                let all = vec![$($(($failure, $status)),+),+];
                for &(failure, _) in &all {
                    has_row(failure);
                }
                all
            }
        };
    }

    failures! {
        Failure::Request(_) => [
            Failure::Request(RequestError::Malformed("bad method")) => 400,
            Failure::Request(RequestError::TooManyFields) => 431,
            Failure::Request(RequestError::Target) => 400,
            Failure::Request(RequestError::Host) => 400,
            Failure::Request(RequestError::HostSyntax) => 400,
            Failure::Request(RequestError::Repeated("Range")) => 400,
            Failure::Request(RequestError::Framing(FramingError::ContentLength)) => 400
        ],
        Failure::BareLineFeed => [Failure::BareLineFeed => 400],
        Failure::HeadTooLarge => [Failure::HeadTooLarge => 431],
        Failure::Body => [Failure::Body => 400],
        Failure::Method => [Failure::Method => 405],
        Failure::Key(_) => [
            Failure::Key(DecodeError::PercentSign) => 400,
            Failure::Key(DecodeError::Utf8) => 400,
            Failure::Key(DecodeError::Nul) => 400,
            Failure::Key(DecodeError::TooLong) => 414
        ],
        Failure::VersionId(_) => [Failure::VersionId(VersionIdError::Empty) => 400],
        Failure::VersionRefused => [Failure::VersionRefused => 400],
        Failure::NotMounted => [Failure::NotMounted => 404],
        Failure::NoKey => [Failure::NoKey => 404],
        Failure::NotFound => [Failure::NotFound => 404],
        Failure::InvalidKey => [Failure::InvalidKey => 404],
        Failure::AccessDenied => [Failure::AccessDenied => 403],
        Failure::Archived => [Failure::Archived => 403],
        Failure::PreconditionFailed => [Failure::PreconditionFailed => 412],
        Failure::RangeNotSatisfiable { .. } => [Failure::RangeNotSatisfiable { size: 7 } => 416],
        Failure::Credentials => [Failure::Credentials => 502],
        Failure::Clock => [Failure::Clock => 502],
        Failure::WrongEndpoint => [Failure::WrongEndpoint => 502],
        Failure::CustomerKey => [Failure::CustomerKey => 502],
        Failure::Unreachable => [Failure::Unreachable => 502],
        Failure::BadResponse => [Failure::BadResponse => 502],
        Failure::TimedOut => [Failure::TimedOut => 504],
        Failure::SlowDown { .. } => [Failure::SlowDown { retry_after: 9 } => 503],
        Failure::Overloaded => [Failure::Overloaded => 503],
    }

    #[test]
    fn each_failure_has_a_status_with_a_reason_and_one_line() {
        for (failure, status) in failures() {
            assert_eq!(failure.status().as_u16(), status, "{failure:?}");
            assert!(failure.status().canonical_reason().is_some(), "{failure:?}");
            let line = failure.line();
            assert!(!line.is_empty() && !line.contains('\n'), "{failure:?}: {line:?}");
        }
    }

    #[test]
    fn fields_that_a_status_requires_are_sent() {
        for (failure, status) in failures() {
            let expected = match status {
                405 => "Allow: GET, HEAD, OPTIONS\r\n",
                416 => "Content-Range: bytes */7\r\n",
                503 if failure == Failure::Overloaded => "Retry-After: 1\r\n",
                503 => "Retry-After: 9\r\n",
                _ => "",
            };
            assert_eq!(failure.fields(), expected, "{failure:?}");
        }
    }

    #[test]
    fn only_a_malformed_request_ends_the_connection() {
        for (failure, status) in failures() {
            assert_eq!(failure.ends_connection(), matches!(status, 400 | 431), "{failure:?}");
        }
    }
}
