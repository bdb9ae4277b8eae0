//! S3's error responses, classified (Amazon S3 API Reference, "Error responses").

use std::fmt;

use http::StatusCode;

/// The parts of an error response that are used; each is empty if the response lacks it. A response
/// to HEAD has no body and so no code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// The HTTP status.
    pub status: StatusCode,
    /// `<Code>`, for example `NoSuchKey`.
    pub code: String,
    /// `<Message>`, for the log only: it may name internals of the bucket's owner.
    pub message: String,
    /// `<ActualObjectSize>` of a 416, in bytes.
    pub actual_object_size: Option<u64>,
    /// `x-amz-request-id`, needed for support requests to AWS.
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
    /// The credentials are valid but have no permission to read this object.
    AccessDenied,
    /// The object is in an archive (S3 Glacier) and cannot be read before it is restored.
    Archived,
    /// 400, 401 or 403 without a code, as for HEAD: the cause may be the object or the credentials.
    Unexplained,
    /// The proxy's credentials are missing, expired or rejected.
    Credentials,
    /// The proxy's clock is more than 15 minutes off.
    Clock,
    /// The bucket is in another region or at another endpoint.
    WrongEndpoint,
    /// A customer key is required and none was sent, or one was sent for an object that has none. A
    /// wrong key is [`AccessDenied`](Kind::AccessDenied).
    CustomerKey,
    /// S3 throttles requests.
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
    /// The cause, from the code if it is a known one, otherwise from the status.
    pub fn kind(&self) -> Kind {
        match self.code.as_str() {
            "AccessDenied" if self.is_credentials_error_of_garage() => Kind::Credentials,
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
            // Garage has no code of its own for this.
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
            // S3 has no code for these errors, only messages: "The object was stored using a
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

    /// Whether this is a 404 for a missing key, not for a missing bucket or version.
    pub fn is_plain_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && matches!(self.code.as_str(), "" | "NoSuchKey")
    }

    /// The `target` of log messages about this error. The log limits the rate of each target, so
    /// that many errors with one code do not suppress those with another.
    pub fn log_target(&self, bucket: &str) -> String {
        format!("s3proxy::s3::{bucket}::{} {}", self.status.as_str(), self.code)
    }

    /// Whether the key may be missing: S3 denies access to a missing key without the permission to
    /// list the bucket. Archived objects and rejected credentials have other codes.
    pub fn may_be_missing(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
            && self.code == "AccessDenied"
            && self.kind() == Kind::AccessDenied
    }

    /// Garage has no codes for a wrong secret or an unknown access key, only these messages.
    fn is_credentials_error_of_garage(&self) -> bool {
        self.message.starts_with("Forbidden: Invalid signature")
            || self.message.starts_with("Forbidden: No such key: ")
    }

    /// Whether S3 rejects the credentials for every request. A wrong signature is not among these
    /// errors: it may be due to one key that the server canonicalises differently.
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
            // A retry cannot change this.
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
        // From an HTTP proxy on the way: S3 servers do not send it.
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return f.write_str(
                "the HTTP proxy requires a valid user name and password (407): write \
                 http://NAME:PASSWORD@ before its host",
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
            write!(f, "; it asks for no request in the next {seconds} s (Retry-After)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(status: u16, body: &[u8], request_id: Option<&[u8]>) -> ServiceError {
        ServiceError::parse(StatusCode::from_u16(status).unwrap(), body, request_id)
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
    fn credentials_errors_of_garage_are_recognised_by_their_messages() {
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
    fn server_errors_are_transient_and_client_errors_are_not() {
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
}
