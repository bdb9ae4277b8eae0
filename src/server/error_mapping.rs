//! Maps errors of the S3 client to a [`Failure`], a line in the log, and an entry of the negative
//! cache.

use std::io;
use std::time::Instant;

use http::StatusCode;
use log::Level;

use crate::cache::metadata::Negative;
use crate::policy::route::Mount;
use crate::s3::client::ClientError;
use crate::s3::clock::Skew;
use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::error::{Kind, ServiceError};
use crate::s3::object_name::ObjectName;
use crate::server::failure::{Failure, RETRY_AFTER};
use crate::server::worker::Worker;
use crate::upstream::connection::HeadError;
use crate::upstream::error::Side;
use crate::upstream::pool::PoolError;

/// Maps and logs an error of a request to which S3 sent no valid response.
pub(crate) fn map_client_error(error: &ClientError) -> Failure {
    // The credentials refresh logs its errors, once for all requests.
    if !matches!(error, ClientError::Credentials(_)) {
        log::warn!("{error}");
    }
    failure_of_client_error(error)
}

fn failure_of_client_error(error: &ClientError) -> Failure {
    match error {
        ClientError::Credentials(_) => Failure::Credentials,
        ClientError::Pool(PoolError::Exhausted(_)) => Failure::Overloaded,
        ClientError::Pool(PoolError::Connect { error, .. }) => match error.side() {
            Side::Us => Failure::Overloaded,
            Side::Upstream if error.is_timeout() => Failure::TimedOut,
            Side::Upstream => Failure::Unreachable,
        },
        ClientError::Head(HeadError::TimedOut) => Failure::TimedOut,
        ClientError::Send(_) | ClientError::Head(HeadError::NoResponse(_) | HeadError::Cut(_)) => {
            Failure::Unreachable
        }
        ClientError::Head(HeadError::Malformed(_)) | ClientError::Response(_) => {
            Failure::BadResponse
        }
    }
}

/// Maps and logs an error of S3's body that occurred before anything was sent to the client.
pub(crate) fn map_body_error(object: &ObjectName, error: &io::Error) -> Failure {
    log::warn!("S3 broke off the body of {object:?}: {error}");
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Unreachable,
    }
}

/// Maps and logs an error response of S3 to a request sent at `sent_at`. For a key that does not
/// exist or may not be read, adds a negative cache entry.
pub(crate) fn map_service_error(
    worker: &Worker,
    mount: &Mount,
    object: &ObjectName,
    error: &ServiceError,
    sent_at: Instant,
) -> Failure {
    let failure = failure_of_service_error(mount, object, error);
    // S3 responds to a wrong customer key as to a missing permission.
    let kind = match failure {
        Failure::AccessDenied if mount.bucket.customer_key.is_some() => Kind::CustomerKey,
        _ => error.kind(),
    };
    let remedy = match failure {
        // S3 stumbled over the key that the client chose; nothing of the mount needs a remedy.
        Failure::InvalidKey => String::new(),
        _ => remedy(error, kind, mount.bucket.credentials.as_deref()),
    };
    log_service_error(mount, object, error, level(error, failure), &remedy);
    let negative = match failure {
        Failure::NotFound | Failure::InvalidKey => Negative::NotFound,
        Failure::AccessDenied => Negative::AccessDenied,
        // An archived object has metadata, which HEAD may read.
        _ => return failure,
    };
    let id = object.id(mount.bucket.id);
    worker.metadata.borrow_mut().store_negative(id, negative, sent_at, Instant::now());
    failure
}

fn failure_of_service_error(mount: &Mount, object: &ObjectName, error: &ServiceError) -> Failure {
    if is_about_the_key(object.key(), error) {
        return Failure::InvalidKey;
    }
    match error.kind() {
        Kind::NotFound => Failure::NotFound,
        Kind::InvalidKey => Failure::InvalidKey,
        Kind::AccessDenied if mount.denied_is_missing && error.may_be_missing() => {
            Failure::NotFound
        }
        Kind::AccessDenied => Failure::AccessDenied,
        Kind::Unexplained if error.status == StatusCode::FORBIDDEN => Failure::AccessDenied,
        Kind::Archived => Failure::Archived,
        Kind::Credentials => Failure::Credentials,
        Kind::Clock => Failure::Clock,
        Kind::WrongEndpoint => Failure::WrongEndpoint,
        Kind::CustomerKey => Failure::CustomerKey,
        Kind::SlowDown => {
            Failure::SlowDown { retry_after: error.retry_after.unwrap_or(RETRY_AFTER) }
        }
        Kind::TimedOut => Failure::TimedOut,
        Kind::PreconditionFailed => Failure::PreconditionFailed,
        Kind::Other if object.version_id().is_some() => failure_of_version_error(error),
        // The caller handles 416 to a request with a range; without a range it is invalid.
        Kind::Other | Kind::Unexplained | Kind::RangeNotSatisfiable => Failure::BadResponse,
    }
}

/// Logs S3's 416, as AWS support may ask for its request id. It is not a failure yet: the
/// conditions of the request take precedence.
pub(crate) fn log_unsatisfiable_range(mount: &Mount, object: &ObjectName, error: &ServiceError) {
    log_service_error(mount, object, error, Level::Info, "");
}

fn log_service_error(
    mount: &Mount,
    object: &ObjectName,
    error: &ServiceError,
    level: Level,
    remedy: &str,
) {
    let target = error.log_target(&mount.bucket.name);
    log::log!(target: &target, level, "{object:?}: {error}{remedy}");
}

/// `Debug` for a missing key, which is normal; `Info` for other errors that the client caused;
/// `Warn` for the rest, which the operator should see.
fn level(error: &ServiceError, failure: Failure) -> Level {
    match failure {
        _ if error.is_plain_not_found() => Level::Debug,
        Failure::NotFound if error.code != "NoSuchBucket" => Level::Info,
        Failure::InvalidKey | Failure::PreconditionFailed | Failure::VersionRefused => Level::Info,
        _ => Level::Warn,
    }
}

/// Whether the error is due to an unusual key. Some servers, and proxies in front of them, refuse
/// such a request line, redirect it, or normalise the path before they check the signature. The
/// client chose the key, so the proxy is not at fault.
fn is_about_the_key(key: &str, error: &ServiceError) -> bool {
    let is_normalised = |segment: &str| matches!(segment, "" | "." | "..");
    // NAME_MAX of Linux, the limit of servers that store objects as files.
    let is_unusual = |segment: &str| is_normalised(segment) || segment.len() > 255;
    let unusual_character = |c: char| c.is_control() || c == '\\';
    let is_unusual_key = key.split('/').any(is_unusual) || key.contains(unusual_character);
    let may_be_due_to_key = match error.status {
        StatusCode::FORBIDDEN => error.code == "SignatureDoesNotMatch",
        StatusCode::BAD_REQUEST => error.code.is_empty() || error.kind() == Kind::Other,
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => error.code.is_empty(),
        StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => true,
        _ => false,
    };
    is_unusual_key && may_be_due_to_key
}

/// Maps the errors that occur only for requests with a `versionId`.
fn failure_of_version_error(error: &ServiceError) -> Failure {
    match error.status {
        // The version is a delete marker, which counts as a missing object.
        StatusCode::METHOD_NOT_ALLOWED => Failure::NotFound,
        // The id is malformed for this kind of server; each has its own syntax.
        StatusCode::BAD_REQUEST => Failure::VersionRefused,
        _ => Failure::BadResponse,
    }
}

/// Advice for the operator, to append to the log line.
fn remedy(error: &ServiceError, kind: Kind, source: Option<&CredentialsHandle>) -> String {
    let remedy = match (kind, source) {
        (Kind::Credentials, Some(source)) => {
            let login = source.login();
            return format!("; its credentials are those of {login}: {}", login.advice());
        }
        (Kind::Clock, _) => return format!("; {}", clock_message(error)),
        (Kind::WrongEndpoint, _) => "; check 'region' and 'endpoint' of this mount",
        (Kind::NotFound, _) if error.code == "NoSuchBucket" => {
            "; check the name of the bucket and 'endpoint' of this mount"
        }
        (Kind::Archived, _) => "; the object is archived: restore it first (RestoreObject)",
        (Kind::CustomerKey, _) => "; check 'sse_customer_key_file' of this mount",
        _ => "",
    };
    remedy.to_owned()
}

/// Says how far this machine's clock is off, if S3's response has a time.
pub(crate) fn clock_message(error: &ServiceError) -> String {
    match error.server_time.or(error.date).map(Skew::to).filter(|skew| !skew.is_small()) {
        Some(skew) => format!("this machine's clock is {skew}: set it (NTP)"),
        None => "this machine's clock and that of S3 differ: set whichever is wrong (NTP)".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http1::framing::FramingError;
    use crate::http1::response::ResponseError;
    use crate::s3::bucket::Bucket;
    use crate::s3::endpoint::{Addressing, Endpoint};
    use crate::s3::request::NoCredentials;
    use crate::transport::tls::TlsError;
    use crate::upstream::Origin;
    use crate::upstream::error::ConnectError;

    #[test]
    fn each_client_error_has_a_failure_and_says_whether_a_retry_may_help() {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, UnexpectedEof};
        let connect = |error: ConnectError| {
            ClientError::Pool(PoolError::Connect { origin: "https://s3".to_owned(), error })
        };
        let tls = TlsError::from(rustls::Error::from(rustls::CertificateError::Expired));
        let no_memory = io::Error::from(io::ErrorKind::OutOfMemory);
        let wrong_framing = ResponseError::Framing(FramingError::LengthAndEncoding);
        for (error, failure, is_transient) in [
            (ClientError::Credentials(NoCredentials), Failure::Credentials, false),
            (ClientError::Pool(PoolError::Exhausted(9)), Failure::Overloaded, false),
            (connect(ConnectError::Unresolved), Failure::Unreachable, true),
            (connect(ConnectError::TimedOut), Failure::TimedOut, true),
            (connect(ConnectError::Tcp(ConnectionRefused.into())), Failure::Unreachable, true),
            (connect(ConnectError::Tls(tls)), Failure::Unreachable, false),
            (connect(ConnectError::OutOfResources(no_memory)), Failure::Overloaded, false),
            (ClientError::Send(ConnectionReset.into()), Failure::Unreachable, true),
            (HeadError::NoResponse(UnexpectedEof.into()).into(), Failure::Unreachable, true),
            (HeadError::Cut(UnexpectedEof.into()).into(), Failure::Unreachable, true),
            (HeadError::TimedOut.into(), Failure::TimedOut, true),
            (HeadError::Malformed("no CRLF").into(), Failure::BadResponse, false),
            (ClientError::Response(wrong_framing), Failure::BadResponse, false),
        ] {
            assert_eq!(failure_of_client_error(&error), failure, "{error:?}");
            assert_eq!(error.is_transient(), is_transient, "{error:?}");
        }
    }

    fn mount(denied_is_missing: bool) -> Mount {
        let origin = Origin { tls: false, host: "minio".to_owned(), port: 9000 };
        let endpoint = Endpoint::At(Arc::new(origin));
        let bucket = Bucket::new("lab".to_owned(), "us-east-1", endpoint, Addressing::Path, None);
        Mount {
            path: "/files/".to_owned(),
            prefix: String::new(),
            bucket: Arc::new(bucket),
            allow_version_id: true,
            denied_is_missing,
            cache_control: None,
        }
    }

    fn object(key: &str, query: &str) -> ObjectName {
        let mut object = ObjectName::default();
        object.start().push_str(key);
        object.read_version_id(query).unwrap();
        object
    }

    fn error(status: u16, code: &str) -> ServiceError {
        let body = format!("<Error><Code>{code}</Code></Error>");
        let status = StatusCode::from_u16(status).unwrap();
        ServiceError::parse(status, body.as_bytes(), None)
    }

    #[test]
    fn each_kind_of_service_error_has_a_failure() {
        let (mount, object) = (mount(false), object("a.bam", ""));
        for (status, code, failure) in [
            (404, "NoSuchKey", Failure::NotFound),
            (404, "NoSuchBucket", Failure::NotFound),
            (400, "InvalidURI", Failure::InvalidKey),
            (403, "AccessDenied", Failure::AccessDenied),
            (403, "InvalidObjectState", Failure::Archived),
            (403, "", Failure::AccessDenied),
            (400, "", Failure::BadResponse),
            (403, "ExpiredToken", Failure::Credentials),
            (403, "RequestTimeTooSkewed", Failure::Clock),
            (301, "PermanentRedirect", Failure::WrongEndpoint),
            (503, "SlowDown", Failure::SlowDown { retry_after: RETRY_AFTER }),
            (400, "RequestTimeout", Failure::TimedOut),
            (412, "PreconditionFailed", Failure::PreconditionFailed),
            (416, "InvalidRange", Failure::BadResponse),
            (500, "InternalError", Failure::BadResponse),
        ] {
            let found = failure_of_service_error(&mount, &object, &error(status, code));
            assert_eq!(found, failure, "{status} {code}");
        }
        let mut slow_down = error(503, "SlowDown");
        slow_down.retry_after = Some(7);
        let failure = failure_of_service_error(&mount, &object, &slow_down);
        assert_eq!(failure, Failure::SlowDown { retry_after: 7 });
    }

    #[test]
    fn the_failure_also_depends_on_mount_version_and_key() {
        let failure = |denied_is_missing: bool, key: &str, query: &str, status: u16, code: &str| {
            let (mount, object) = (mount(denied_is_missing), object(key, query));
            failure_of_service_error(&mount, &object, &error(status, code))
        };
        let version = "versionId=1";
        assert_eq!(failure(true, "a", "", 403, "AccessDenied"), Failure::NotFound);
        assert_eq!(failure(true, "a", "", 403, ""), Failure::AccessDenied);
        assert_eq!(failure(false, "a", version, 405, "MethodNotAllowed"), Failure::NotFound);
        assert_eq!(failure(false, "a", version, 400, "InvalidArgument"), Failure::VersionRefused);
        assert_eq!(failure(false, "a", version, 500, "InternalError"), Failure::BadResponse);
        assert_eq!(failure(false, "a", "", 400, "InvalidArgument"), Failure::BadResponse);
        for (status, code) in [(403, "SignatureDoesNotMatch"), (400, ""), (302, ""), (414, "")] {
            assert_eq!(failure(false, "a//b", "", status, code), Failure::InvalidKey, "{status}");
            assert_ne!(failure(false, "a/b", "", status, code), Failure::InvalidKey, "{status}");
        }
        assert_eq!(failure(false, "a//b", "", 403, "AccessDenied"), Failure::AccessDenied);
    }
}
