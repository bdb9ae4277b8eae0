//! `--check`: requests one byte of an object from each bucket and reports the results.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::http1::conditional::Preconditions;
use crate::http1::range::ByteRange;
use crate::http1::target::Target;
use crate::policy::route::Mount;
use crate::s3::client::{ClientError, Reply};
use crate::s3::clock::Skew;
use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::endpoint::Endpoint;
use crate::s3::error::{Kind, ServiceError};
use crate::s3::object_name::ObjectName;
use crate::s3::request::{ObjectRequest, Operation};
use crate::server::accept::sweep;
use crate::server::error_mapping::clock_message;
use crate::server::handler::{locate, name_object};
use crate::server::live::Live;
use crate::server::settings::Settings;
use crate::server::startup::build_shared;
use crate::server::worker::Worker;
use crate::sys::event_loop;
use crate::upstream::Origin;

/// The result for one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `/files/ → bucket lab at http://minio:9000, credentials of the profile "lab"`.
    subject: String,
    verdict: Verdict,
    message: String,
}

/// Whether objects can be expected to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    /// S3's response does not tell.
    Unknown,
    Fails,
}

impl Finding {
    /// Whether objects can be expected to be served; `false` if that is unknown.
    pub(crate) fn works(&self) -> bool {
        self.verdict == Verdict::Works
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Works => "ok",
            Verdict::Unknown => "cannot tell",
            Verdict::Fails => "FAILED",
        };
        write!(f, "{}: {verdict}: {}", self.subject, self.message)
    }
}

/// A key that no bucket should contain: 404 proves that requests are accepted.
const PROBE_KEY: &str = "s3proxy-check-of-a-key-that-need-not-exist";

/// Longest time for one mount. Each part of a request has a timeout, but a slow server could stay
/// just within each of them for hours.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time for retries, since a user is waiting.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks all mounts concurrently. The mount of the object `named` is checked by reading it.
///
/// # Errors
/// If the event loop cannot be set up, or no mount contains `named`.
pub(crate) fn run(
    settings: Settings,
    mut live: Live,
    named: Option<&str>,
) -> io::Result<Vec<Finding>> {
    live.retries.timeout = live.retries.timeout.min(RETRY_TIMEOUT);
    let named =
        named.map(|named| find_object(&live, named)).transpose().map_err(io::Error::other)?;
    let (shared, _upkeep) = build_shared(settings, live, None).map_err(io::Error::other)?;
    let mut event_loop = event_loop::build(shared.settings.driver)?;
    let findings = event_loop.runtime.block_on(async {
        let worker = Worker::new(Arc::clone(&shared), Arc::default());
        monoio::spawn(sweep(Rc::clone(&worker)));
        let live = worker.live();
        let checks = live.mounts.iter().map(|mount| {
            let named = named.as_ref().filter(|(named, _)| Arc::ptr_eq(named, mount));
            let object = named.map(|(_, object)| object.clone());
            monoio::spawn(check(Rc::clone(&worker), Arc::clone(mount), object))
        });
        let mut findings = Vec::new();
        for check in checks.collect::<Vec<_>>() {
            findings.push(check.await);
        }
        Ok(findings)
    });
    // As in a worker, since dropping it may block. The process ends now anyway.
    std::mem::forget(event_loop.runtime);
    findings
}

/// Finds the mount and name of an object given as a path or URL as a client requests it, as
/// `s3://bucket/key`, or as a key if there is only one mount.
fn find_object(live: &Live, named: &str) -> Result<(Arc<Mount>, ObjectName), String> {
    let mut object = ObjectName::default();
    if let Some(rest) = named.strip_prefix("s3://") {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let holds =
            |mount: &Arc<Mount>| mount.bucket.name == bucket && key.starts_with(&mount.prefix);
        let found = live.mounts.iter().find(|mount| !key.is_empty() && holds(mount));
        object.start().push_str(key);
        return match found {
            Some(mount) => Ok((Arc::clone(mount), object)),
            None => Err(format!("{named:?} is not an object of any mount")),
        };
    }
    if let Some(target) = Target::parse(named) {
        let located = locate(live, target).and_then(|located| {
            name_object(live, &located, None, &mut object)?;
            Ok(Arc::clone(located.mount))
        });
        return match located {
            Ok(mount) => Ok((mount, object)),
            Err(_) => Err(format!("{named:?} is not an object of any mount")),
        };
    }
    let [mount] = live.mounts.as_slice() else {
        return Err(format!(
            "there are several mounts: write {named:?} with the path of its mount, such as {:?}",
            format!("{}{named}", live.mounts[0].path)
        ));
    };
    let key = object.start();
    key.push_str(named);
    live.rewrite_rules.apply(key);
    mount.prepend_prefix(key).map_err(|error| error.to_string())?;
    Ok((Arc::clone(mount), object))
}

async fn check(worker: Rc<Worker>, mount: Arc<Mount>, named: Option<ObjectName>) -> Finding {
    let probed = monoio::time::timeout(TIMEOUT, probe(&worker, &mount, named.as_ref())).await;
    let timed_out = || (Verdict::Fails, format!("no complete response in {} s", TIMEOUT.as_secs()));
    let (verdict, message) = probed.unwrap_or_else(|_| timed_out());
    // After the request, since S3 may have redirected it to another region.
    let origin = Arc::clone(&mount.bucket.location().origin);
    let via = worker.shared.settings.proxies.of(&origin);
    let via = via.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
    let credentials = match mount.bucket.credentials.as_deref() {
        Some(source) => format!("credentials of {}", source.login()),
        None => "anonymous".to_owned(),
    };
    let subject = format!(
        "{} → bucket {} at {origin}{}{via}, {credentials}{}",
        mount.path,
        mount.bucket.name,
        mount.bucket.base_path,
        options(&mount)
    );
    let (verdict, message) = match doubled_bucket(&mount) {
        Some(remedy) => (Verdict::Fails, format!("{remedy} ({message})")),
        None => (verdict, message),
    };
    let message = match mount.bucket.exposes_customer_key() {
        true => format!("{message}; but the encryption key is sent unencrypted, use HTTPS"),
        false => message,
    };
    // Requests are signed with S3's time, so they may succeed although this clock is wrong.
    let skew = Skew::to(mount.bucket.clock().seconds());
    let message = match verdict == Verdict::Works && !skew.is_small() {
        true => format!("{message}; but this machine's clock is {skew}: set it (NTP)"),
        false => message,
    };
    Finding { subject, verdict, message }
}

/// The remedy for an endpoint that includes the bucket's name. Requests then name the bucket twice,
/// S3 looks for the key `bucket/key`, and its 404 would pass for success.
fn doubled_bucket(mount: &Mount) -> Option<String> {
    let Endpoint::At(origin) = &mount.bucket.endpoint else { return None };
    let (name, base_path) = (&mount.bucket.name, &mount.bucket.base_path);
    let in_host = origin.host.strip_prefix(&name.to_ascii_lowercase());
    let in_host =
        in_host.and_then(|rest| rest.strip_prefix('.')).filter(|rest| is_s3_service(rest));
    let (part, host, path) = match (in_host, base_path.rsplit_once('/')) {
        (Some(host), _) => ("host", host, base_path.as_str()),
        (None, Some((path, last))) if last == name => ("path", origin.host.as_str(), path),
        _ => return None,
    };
    let server = Origin { host: host.to_owned(), ..(**origin).clone() };
    Some(format!(
        "the endpoint's {part} includes the bucket's name, which requests add themselves: write \
         'endpoint: {server}{path}'"
    ))
}

/// Whether the rest of a host name behind the bucket's name is an S3 service. Elsewhere the first
/// label may equal the bucket's name by chance.
fn is_s3_service(host: &str) -> bool {
    const DOMAINS: [&str; 9] = [
        ".amazonaws.com",
        ".amazonaws.com.cn",
        ".amazonaws.eu",
        ".digitaloceanspaces.com",
        ".r2.cloudflarestorage.com",
        ".backblazeb2.com",
        ".wasabisys.com",
        ".aliyuncs.com",
        ".linodeobjects.com",
    ];
    host.starts_with("s3.")
        || host.starts_with("s3-")
        || host == "storage.googleapis.com"
        || DOMAINS.iter().any(|domain| host.ends_with(domain))
}

/// Requests one byte of the named object, or of [`PROBE_KEY`].
async fn probe(worker: &Worker, mount: &Mount, named: Option<&ObjectName>) -> (Verdict, String) {
    let probe_key = format!("{}{PROBE_KEY}", mount.prefix);
    let request = ObjectRequest {
        operation: Operation::Get,
        key: named.map_or(&probe_key, |object| object.key()),
        version_id: named.and_then(ObjectName::version_id),
        range: Some(ByteRange::Closed { first: 0, last: 0 }),
        conditions: Preconditions::default(),
        leave_body_in_socket: false,
    };
    match worker.s3.send(&mount.bucket, &request).await {
        Ok(Reply::Object(response)) => {
            response.dismiss().await;
            (Verdict::Works, format!("{:?} was read", request.key))
        }
        Ok(Reply::NotModified(response)) => {
            response.dismiss().await;
            (Verdict::Fails, "S3 responded 304 to a request without a condition".to_owned())
        }
        Ok(Reply::Error(error)) => verdict_on_error(&error, named, &mount.path),
        Err(ClientError::Credentials(_)) => {
            (Verdict::Fails, without_credentials(mount.bucket.credentials.as_deref()))
        }
        Err(error) => (Verdict::Fails, error.to_string()),
    }
}

/// The options of a mount that matter to S3: ` (requester pays, encryption key)`.
fn options(mount: &Mount) -> String {
    let all = [
        (mount.bucket.requester_pays, "requester pays"),
        (mount.bucket.customer_key.is_some(), "encryption key"),
        (mount.allow_version_id, "versions allowed"),
    ];
    let set: Vec<&str> = all.iter().filter(|(set, _)| *set).map(|&(_, name)| name).collect();
    if set.is_empty() { String::new() } else { format!(" ({})", set.join(", ")) }
}

/// The message for a request that could not be signed.
fn without_credentials(source: Option<&CredentialsHandle>) -> String {
    let reason = source.and_then(CredentialsHandle::failure);
    let reason = reason.as_deref().map_or("they have expired", String::as_str);
    let advice = source.map_or("", |source| source.login().advice());
    format!("there are no credentials: {reason}; {advice}")
}

/// Explains S3's error response. `named` is the object if the user named one; otherwise
/// [`PROBE_KEY`] was requested.
fn verdict_on_error(
    error: &ServiceError,
    named: Option<&ObjectName>,
    path: &str,
) -> (Verdict, String) {
    let failed = |message: &str| (Verdict::Fails, format!("{message}; {error}"));
    match (error.kind(), named) {
        (Kind::NotFound, _) if error.code == "NoSuchBucket" => failed("there is no such bucket"),
        (Kind::NotFound, Some(object)) => failed(&format!("there is no object {object:?}")),
        (Kind::NotFound, None) => (
            Verdict::Works,
            "reached, and the credentials are accepted (404 for a missing key)".to_owned(),
        ),
        (Kind::AccessDenied, Some(object)) => failed(&format!(
            "S3 denies reading {object:?}: allow s3:GetObject (if the bucket lets requesters pay, \
             'requester_pays: true' is needed)"
        )),
        // Without s3:ListBucket a missing key is 403 too (Amazon S3 API Reference, `GetObject`).
        (Kind::AccessDenied, None) => (
            Verdict::Unknown,
            format!(
                "S3 denies reading a key that probably does not exist: either the bucket may not \
                 be listed (with s3:ListBucket allowed this would be 404), or nothing may be read; to \
                 tell which, name an object that exists: s3proxy --check {path}KEY; {error}"
            ),
        ),
        (Kind::Archived, _) => failed("the object is archived: restore it, or name another one"),
        (Kind::RangeNotSatisfiable, _) => (Verdict::Works, "an empty object was read".to_owned()),
        (Kind::Credentials, _) => {
            failed("the credentials are refused: check the access key, the secret and their expiry")
        }
        (Kind::Clock, _) => failed(&clock_message(error)),
        (Kind::WrongEndpoint, _) => failed("check 'region' and 'endpoint'"),
        (Kind::CustomerKey, _) => failed("check 'sse_customer_key_file'"),
        (Kind::SlowDown | Kind::TimedOut, _) => failed("S3 is overloaded or slow: try again"),
        (Kind::InvalidKey | Kind::Unexplained | Kind::PreconditionFailed | Kind::Other, _) => {
            failed("unexpected response from S3")
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::s3::bucket::Bucket;
    use crate::s3::endpoint::Addressing;

    fn verdict(status: u16, code: &str, named: Option<&str>) -> (Verdict, String) {
        let body = format!("<Error><Code>{code}</Code></Error>");
        let object = named.map(|key| {
            let mut object = ObjectName::default();
            object.start().push_str(key);
            object
        });
        let status = StatusCode::from_u16(status).unwrap();
        let error = ServiceError::parse(status, body.as_bytes(), None);
        verdict_on_error(&error, object.as_ref(), "/files/")
    }

    #[test]
    fn an_endpoint_that_includes_the_bucket_is_reported() {
        let remedy = |host: &str, base_path: &str| {
            let origin = Origin { tls: true, host: host.to_owned(), port: 443 };
            let (endpoint, name) = (Endpoint::At(Arc::new(origin)), "my-lab".to_owned());
            let mut bucket = Bucket::new(name, "us-east-1", endpoint, Addressing::Auto, None);
            bucket.base_path = base_path.to_owned();
            let (path, prefix) = ("/files/".to_owned(), String::new());
            doubled_bucket(&Mount {
                path,
                prefix,
                bucket: Arc::new(bucket),
                allow_version_id: false,
                denied_is_missing: false,
                cache_control: None,
            })
        };
        for (host, path, right) in [
            ("my-lab.s3.amazonaws.com", "", "'endpoint: https://s3.amazonaws.com'"),
            ("my-lab.s3-eu-west-1.amazonaws.com", "", "https://s3-eu-west-1.amazonaws.com"),
            ("my-lab.s3.example.org", "/a", "'endpoint: https://s3.example.org/a'"),
            ("my-lab.fra1.digitaloceanspaces.com", "", "https://fra1.digitaloceanspaces.com"),
            ("minio", "/my-lab", "'endpoint: https://minio'"),
            ("minio", "/a/my-lab", "'endpoint: https://minio/a'"),
        ] {
            assert!(remedy(host, path).unwrap().contains(right), "{host}{path}");
        }
        for (host, path) in [
            ("s3.amazonaws.com", ""),
            ("my-lab.example.org", ""),
            ("my-lab2.s3.amazonaws.com", ""),
            ("minio", "/my-lab/s3"),
            ("x.supabase.co", "/storage/v1/s3"),
        ] {
            assert_eq!(remedy(host, path), None, "{host}{path}");
        }
    }

    #[test]
    fn a_missing_key_works_and_a_missing_bucket_fails() {
        assert_eq!(verdict(404, "NoSuchKey", None).0, Verdict::Works);
        assert_eq!(verdict(404, "NoSuchBucket", None).0, Verdict::Fails);
        assert_eq!(verdict(404, "NoSuchKey", Some("a")).0, Verdict::Fails);
    }

    #[test]
    fn rejected_credentials_fail_with_s3s_reason() {
        let (outcome, message) = verdict(403, "SignatureDoesNotMatch", None);
        assert!(outcome == Verdict::Fails && message.contains("secret"));
        assert!(message.contains("SignatureDoesNotMatch"));
    }

    #[test]
    fn access_denied_is_not_reported_as_missing() {
        let (outcome, message) = verdict(403, "AccessDenied", None);
        assert!(outcome == Verdict::Unknown && message.contains("s3:ListBucket"));
        assert!(message.contains("s3proxy --check /files/KEY"));
        let (outcome, message) = verdict(403, "AccessDenied", Some("a.bam"));
        assert!(outcome == Verdict::Fails && message.contains("\"a.bam\""));
    }
}
