//! `--check`: asks each bucket for one byte of an object and says in words what came of it.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::config::Config;
use crate::http1::conditional::Preconditions;
use crate::http1::range::ByteRange;
use crate::mount::Mount;
use crate::s3::client::{BucketId, ClientError, Reply};
use crate::s3::clock::Skew;
use crate::s3::error::{Kind, ServiceError};
use crate::s3::request::{ObjectRequest, Operation};
use crate::s3::source::Source;
use crate::server::core::Core;
use crate::server::explain::clock_words;
use crate::server::running::share;
use crate::sys::driver;

/// What was found out about one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `/files/ → bucket lab at http://minio:9000, credentials of the profile "lab"`.
    subject: String,
    /// Whether objects can be expected to be served.
    pub works: bool,
    /// In words.
    words: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let works = if self.works { "ok" } else { "FAILED" };
        write!(f, "{}: {works}: {}", self.subject, self.words)
    }
}

/// A key that no bucket should have; that it is missing is the best answer.
const PROBE_KEY: &str = "s3proxy-check-of-a-key-that-need-not-exist";

/// Retries of each question: somebody waits, and wants to know what does not work.
const RETRIES: u32 = 2;

/// Checks every mount.
///
/// # Errors
/// Where not even an event loop can be had.
pub fn run(mut config: Config) -> io::Result<Vec<Finding>> {
    config.retries.retries = config.retries.retries.min(RETRIES);
    let shared = share(config).map_err(io::Error::other)?;
    let mut event_loop = driver::build(shared.config.driver)?;
    let findings = event_loop.runtime.block_on(async {
        let core = Core::new(Arc::clone(&shared), Arc::default()).map_err(io::Error::other)?;
        let mut findings = Vec::new();
        for (index, mount) in shared.config.mounts.iter().enumerate() {
            findings.push(check(&core, BucketId(index), mount).await);
        }
        Ok(findings)
    });
    // As in a worker: the process ends now anyway.
    std::mem::forget(event_loop.runtime);
    findings
}

async fn check(core: &Core, id: BucketId, mount: &Mount) -> Finding {
    let source = mount.bucket.credentials.as_deref();
    let request = ObjectRequest {
        operation: Operation::Get,
        key: &format!("{}{PROBE_KEY}", mount.prefix),
        version_id: None,
        range: Some(ByteRange::Closed { first: 0, last: 0 }),
        conditions: Preconditions::default(),
    };
    let (works, words) = match core.s3.send(id, &request).await {
        Ok(Reply::Object(_)) => (true, "an object was read".to_owned()),
        Ok(Reply::Refused(error)) => judge(&error),
        Err(ClientError::Credentials(_)) => (false, without_credentials(source)),
        Err(error) => (false, error.to_string()),
    };
    // Last, since S3 may have named another region.
    let origin = Arc::clone(&mount.bucket.location().origin);
    let credentials = match source {
        Some(source) => format!("credentials of {}", source.login()),
        None => "anonymous".to_owned(),
    };
    let subject = format!(
        "{} → bucket {} at {origin}, {credentials}{}",
        mount.path,
        mount.bucket.name,
        particulars(mount)
    );
    let words = match mount.bucket.exposes_customer_key() {
        true => format!("{words}; but the encryption key travels unencrypted, use HTTPS"),
        false => words,
    };
    // S3 has told its time, and requests are signed with that.
    let skew = Skew::to(mount.bucket.clock().seconds());
    let words = match works && !skew.is_small() {
        true => format!("{words}; but this machine's clock is {skew}: set it (NTP)"),
        false => words,
    };
    Finding { subject, works, words }
}

/// What is asked for with each request of this mount: ` (requester pays, encryption key)`.
fn particulars(mount: &Mount) -> String {
    let all = [
        (mount.bucket.requester_pays, "requester pays"),
        (mount.bucket.customer_key.is_some(), "encryption key"),
        (mount.allow_version_id, "versions allowed"),
    ];
    let set: Vec<&str> = all.iter().filter(|(set, _)| *set).map(|&(_, name)| name).collect();
    if set.is_empty() { String::new() } else { format!(" ({})", set.join(", ")) }
}

/// Why a request could not be signed.
fn without_credentials(source: Option<&Source>) -> String {
    let reason = source.and_then(Source::failure);
    let reason = reason.as_deref().map_or("they have expired", String::as_str);
    let advice = source.map_or("", |source| source.login().advice());
    format!("there are no credentials: {reason}; {advice}")
}

fn judge(error: &ServiceError) -> (bool, String) {
    let failed = |words: &str| (false, format!("{words}; {error}"));
    match error.kind() {
        Kind::NotFound if error.code == "NoSuchBucket" => failed("there is no such bucket"),
        Kind::NotFound => (
            true,
            "reached, and the credentials are accepted (a missing key is told as 404)".to_owned(),
        ),
        Kind::AccessDenied => (
            true,
            "reached, and the credentials are accepted, but they may not list the bucket: a \
             missing key is told as 403 (grant s3:ListBucket for an honest 404; if the bucket \
             lets requesters pay, 'requester_pays: true' is needed)"
                .to_owned(),
        ),
        Kind::RangeNotSatisfiable => (true, "an empty object was read".to_owned()),
        Kind::Credentials => {
            failed("the credentials are refused: check the access key, the secret and their expiry")
        }
        Kind::Clock => failed(&clock_words(error)),
        Kind::WrongEndpoint => failed("check 'region' and 'endpoint'"),
        Kind::CustomerKey => failed("check 'sse_customer_key_file'"),
        Kind::SlowDown | Kind::TimedOut => failed("S3 is overloaded or slow: try again"),
        Kind::InvalidKey | Kind::Unexplained | Kind::PreconditionFailed | Kind::Other => {
            failed("S3 gives an unexpected answer")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, code: &str) -> (bool, String) {
        let body = format!("<Error><Code>{code}</Code></Error>");
        judge(&ServiceError::parse(status, body.as_bytes(), None))
    }

    #[test]
    fn a_missing_key_is_the_best_answer_and_a_missing_bucket_is_not() {
        assert!(judged(404, "NoSuchKey").0);
        assert!(!judged(404, "NoSuchBucket").0);
    }

    #[test]
    fn refused_credentials_fail_and_name_s3s_reason() {
        let (works, words) = judged(403, "SignatureDoesNotMatch");
        assert!(!works && words.contains("secret") && words.contains("SignatureDoesNotMatch"));
    }

    #[test]
    fn a_bucket_that_may_not_be_listed_works_with_a_hint() {
        let (works, words) = judged(403, "AccessDenied");
        assert!(works && words.contains("s3:ListBucket"));
    }
}
