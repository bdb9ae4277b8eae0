//! What comes of it when S3 gives no object: what the client is told, what the operator reads in
//! the log, and what is remembered.

use std::time::Instant;

use http::StatusCode;
use log::Level;

use crate::cache::metadata::Negative;
use crate::policy::route::Mount;
use crate::s3::client::ClientError;
use crate::s3::clock::Skew;
use crate::s3::credentials::handle::Source;
use crate::s3::error::{Kind, ServiceError};
use crate::s3::object_name::ObjectName;
use crate::server::failure::Failure;
use crate::server::worker::Worker;
use crate::upstream::connection::HeadError;
use crate::upstream::error::Side;
use crate::upstream::pool::PoolError;

/// What the client is told when S3 gives no answer; the operator is told why.
pub fn describe(error: &ClientError) -> Failure {
    let failure = match error {
        // Whoever renews them has said so, once for all requests.
        ClientError::Credentials(_) => return Failure::Credentials,
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
    };
    log::warn!("{error}");
    failure
}

/// What the client is told of an error that S3 answered with. Logs all but a plain 404, and
/// remembers what is about the key.
pub fn explain(
    worker: &Worker,
    mount: &Mount,
    object: &ObjectName,
    error: &ServiceError,
    asked: Instant,
) -> Failure {
    let source = mount.bucket.credentials.as_deref();
    let failure = match Failure::from_kind(error.kind()) {
        _ if is_about_the_key(object.key(), error) => Failure::InvalidKey,
        Some(Failure::BadResponse) if object.version_id().is_some() => of_version(error),
        Some(Failure::SlowDown { retry_after }) => {
            Failure::SlowDown { retry_after: error.retry_after.unwrap_or(retry_after) }
        }
        Some(Failure::AccessDenied) if mount.denied_is_missing && error.may_be_missing() => {
            Failure::NotFound
        }
        Some(failure) => failure,
        None if error.status == StatusCode::FORBIDDEN => Failure::AccessDenied,
        None => Failure::BadResponse,
    };
    // S3 does not tell a wrong customer key from a missing permission.
    let kind = match failure {
        Failure::AccessDenied if mount.bucket.customer_key.is_some() => Kind::CustomerKey,
        _ => error.kind(),
    };
    let remedy = remedy(error, kind, source);
    note(mount, object, error, level(error, failure), &remedy);
    let negative = match failure {
        Failure::NotFound | Failure::InvalidKey => Negative::NotFound,
        Failure::AccessDenied => Negative::AccessDenied,
        // An archived object has metadata, which HEAD may read.
        _ => return failure,
    };
    let name = object.as_str();
    worker.metadata.borrow_mut().learn_negative(
        mount.bucket.id,
        name,
        negative,
        asked,
        Instant::now(),
    );
    failure
}

/// Logs S3's 416: it is not the last word on the range, but support may ask for its request id.
pub fn note_unsatisfiable(mount: &Mount, object: &ObjectName, error: &ServiceError) {
    note(mount, object, error, Level::Info, "");
}

fn note(mount: &Mount, object: &ObjectName, error: &ServiceError, level: Level, remedy: &str) {
    let target = error.log_target(&mount.bucket.name);
    log::log!(target: &target, level, "{object:?}: {error}{remedy}");
}

/// How much an operator must know of it: nothing of a missing key, little of what the client's own
/// conditions, range, version or key brought about.
fn level(error: &ServiceError, failure: Failure) -> Level {
    match failure {
        _ if error.is_plain_not_found() => Level::Debug,
        Failure::NotFound if error.code != "NoSuchBucket" => Level::Info,
        Failure::InvalidKey | Failure::PreconditionFailed | Failure::VersionRefused => Level::Info,
        _ => Level::Warn,
    }
}

/// Whether S3, or a server in front of it, stumbled over a key that not every server takes as it is: it
/// refuses the request line, sends elsewhere, or resolves the path before it checks the signature. The
/// client chose the key, so the proxy is not at fault.
fn is_about_the_key(key: &str, error: &ServiceError) -> bool {
    let resolved = |segment: &str| matches!(segment, "" | "." | "..");
    // Most file systems have no longer names (NAME_MAX of Linux).
    let is_odd = |segment: &str| resolved(segment) || segment.len() > 255;
    let odd_character = |c: char| c.is_control() || c == '\\';
    let is_odd_key = key.split('/').any(is_odd) || key.contains(odd_character);
    let stumbled = match (error.status.as_u16(), error.code.as_str()) {
        (403, code) => code == "SignatureDoesNotMatch",
        (400, code) => code.is_empty() || error.kind() == Kind::Other,
        (301 | 302 | 307 | 308, code) => code.is_empty(),
        (status, _) => matches!(status, 414 | 431),
    };
    is_odd_key && stumbled
}

/// What an error is that S3 has only for requests with a `versionId`.
fn of_version(error: &ServiceError) -> Failure {
    match error.status {
        // The version is a delete marker: to a reader the object is not there.
        StatusCode::METHOD_NOT_ALLOWED => Failure::NotFound,
        // Each store has a form of its own for its version ids, and this is none.
        StatusCode::BAD_REQUEST => Failure::VersionRefused,
        _ => Failure::BadResponse,
    }
}

/// What an operator can do about it.
fn remedy(error: &ServiceError, kind: Kind, source: Option<&Source>) -> String {
    let remedy = match (kind, source) {
        (Kind::Credentials, Some(source)) => {
            let login = source.login();
            return format!("; its credentials are those of {login}: {}", login.advice());
        }
        (Kind::Clock, _) => return format!("; {}", clock_words(error)),
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

/// Which clock is wrong and which way, as far as S3 tells.
pub fn clock_words(error: &ServiceError) -> String {
    match error.server_time.or(error.date).map(Skew::to).filter(|skew| !skew.is_small()) {
        Some(skew) => format!("this machine's clock is {skew}: set it (NTP)"),
        None => "this machine's clock and that of S3 differ: set whichever is wrong (NTP)".into(),
    }
}
