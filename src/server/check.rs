//! `--check`: asks each bucket for one byte of an object and says in words what came of it.

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
use crate::server::error_mapping::clock_words;
use crate::server::handler::{locate, name_object};
use crate::server::live::Live;
use crate::server::settings::Settings;
use crate::server::startup::build_shared;
use crate::server::worker::Worker;
use crate::sys::event_loop;
use crate::upstream::Origin;

/// What was found out about one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `/files/ → bucket lab at http://minio:9000, credentials of the profile "lab"`.
    subject: String,
    verdict: Verdict,
    /// In words.
    words: String,
}

/// Whether objects can be expected to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    /// S3's response fits both.
    Unknown,
    Fails,
}

impl Finding {
    /// Whether objects can be expected to be served; `false` where that is not known.
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
        write!(f, "{}: {verdict}: {}", self.subject, self.words)
    }
}

/// A key that no bucket should have; that it is missing is the best answer.
const PROBE_KEY: &str = "s3proxy-check-of-a-key-that-need-not-exist";

/// Longest time for one mount. All parts of a request have timeouts of their own, but a server may
/// stay just within each of them for hours.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Retries end this long after the first try, since somebody is watching.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks every mount, all at once. The one that `named` is an object of is asked for that object.
///
/// # Errors
/// Where not even an event loop can be had, or `named` names no object.
pub(crate) fn run(
    settings: Settings,
    mut live: Live,
    named: Option<&str>,
) -> io::Result<Vec<Finding>> {
    live.retries.timeout = live.retries.timeout.min(RETRY_TIMEOUT);
    let named = named.map(|named| find(&live, named)).transpose().map_err(io::Error::other)?;
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
    // As in a worker: the process ends now anyway.
    std::mem::forget(event_loop.runtime);
    findings
}

/// The object that a user names: a path or URL as a client asks for it, `s3://bucket/key`, or a key
/// where there is one mount only.
fn find(live: &Live, named: &str) -> Result<(Arc<Mount>, ObjectName), String> {
    let mut object = ObjectName::default();
    if let Some(rest) = named.strip_prefix("s3://") {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let holds =
            |mount: &Arc<Mount>| mount.bucket.name == bucket && key.starts_with(&mount.prefix);
        let found = live.mounts.iter().find(|mount| !key.is_empty() && holds(mount));
        object.start().push_str(key);
        return match found {
            Some(mount) => Ok((Arc::clone(mount), object)),
            None => Err(format!("{named:?} is an object of no mount")),
        };
    }
    if let Some(target) = Target::parse(named) {
        let located = locate(live, target).and_then(|located| {
            name_object(live, &located, None, &mut object)?;
            Ok(Arc::clone(located.mount))
        });
        return match located {
            Ok(mount) => Ok((mount, object)),
            Err(_) => Err(format!("{named:?} is an object of no mount")),
        };
    }
    let [mount] = live.mounts.as_slice() else {
        return Err(format!(
            "there are several mounts: write {named:?} with its mount, such as {:?}",
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
    let asked = monoio::time::timeout(TIMEOUT, ask(&worker, &mount, named.as_ref())).await;
    let timed_out = || (Verdict::Fails, format!("no complete answer in {} s", TIMEOUT.as_secs()));
    let (verdict, words) = asked.unwrap_or_else(|_| timed_out());
    // Last, since S3 may have named another region.
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
        particulars(&mount)
    );
    let (verdict, words) = match doubled_bucket(&mount) {
        Some(remedy) => (Verdict::Fails, format!("{remedy} ({words})")),
        None => (verdict, words),
    };
    let words = match mount.bucket.exposes_customer_key() {
        true => format!("{words}; but the encryption key travels unencrypted, use HTTPS"),
        false => words,
    };
    // S3 has told its time, and requests are signed with that.
    let skew = Skew::to(mount.bucket.clock().seconds());
    let words = match verdict == Verdict::Works && !skew.is_small() {
        true => format!("{words}; but this machine's clock is {skew}: set it (NTP)"),
        false => words,
    };
    Finding { subject, verdict, words }
}

/// What to write where the endpoint names the bucket already, so that it is named twice in each
/// request. S3 then looks for `bucket/key` in the bucket, and says 404 as if all were well.
fn doubled_bucket(mount: &Mount) -> Option<String> {
    let Endpoint::At(origin) = &mount.bucket.endpoint else { return None };
    let (name, base_path) = (&mount.bucket.name, &mount.bucket.base_path);
    let in_host = origin.host.strip_prefix(&name.to_ascii_lowercase());
    let in_host = in_host.and_then(|rest| rest.strip_prefix('.')).filter(|rest| is_of_s3(rest));
    let (part, host, path) = match (in_host, base_path.rsplit_once('/')) {
        (Some(host), _) => ("host", host, base_path.as_str()),
        (None, Some((path, last))) if last == name => ("path", origin.host.as_str(), path),
        _ => return None,
    };
    let server = Origin { host: host.to_owned(), ..(**origin).clone() };
    Some(format!(
        "the endpoint's {part} names the bucket already, which the requests do too: write \
         'endpoint: {server}{path}'"
    ))
}

/// Whether what follows a bucket's name in a host's name is a server of S3. A server may be called
/// as a bucket by chance, but not below one of these.
fn is_of_s3(host: &str) -> bool {
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

/// Asks for one byte of the object that is named, or of one that need not exist.
async fn ask(worker: &Worker, mount: &Mount, named: Option<&ObjectName>) -> (Verdict, String) {
    let probe = format!("{}{PROBE_KEY}", mount.prefix);
    let request = ObjectRequest {
        operation: Operation::Get,
        key: named.map_or(&probe, |object| object.key()),
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
            (Verdict::Fails, "S3 answers 304 to a request without a condition".to_owned())
        }
        Ok(Reply::Error(error)) => judge(&error, named, &mount.path),
        Err(ClientError::Credentials(_)) => {
            (Verdict::Fails, without_credentials(mount.bucket.credentials.as_deref()))
        }
        Err(error) => (Verdict::Fails, error.to_string()),
    }
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
fn without_credentials(source: Option<&CredentialsHandle>) -> String {
    let reason = source.and_then(CredentialsHandle::failure);
    let reason = reason.as_deref().map_or("they have expired", String::as_str);
    let advice = source.map_or("", |source| source.login().advice());
    format!("there are no credentials: {reason}; {advice}")
}

/// What an error says about the way to a bucket. `named` is the object that was asked for, if the
/// user has named one; otherwise it was a key that need not exist.
fn judge(error: &ServiceError, named: Option<&ObjectName>, path: &str) -> (Verdict, String) {
    let failed = |words: &str| (Verdict::Fails, format!("{words}; {error}"));
    match (error.kind(), named) {
        (Kind::NotFound, _) if error.code == "NoSuchBucket" => failed("there is no such bucket"),
        (Kind::NotFound, Some(object)) => failed(&format!("there is no object {object:?}")),
        (Kind::NotFound, None) => (
            Verdict::Works,
            "reached, and the credentials are accepted (a missing key is told as 404)".to_owned(),
        ),
        (Kind::AccessDenied, Some(object)) => failed(&format!(
            "S3 denies reading {object:?}: allow s3:GetObject (if the bucket lets requesters pay, \
             'requester_pays: true' is needed)"
        )),
        // Without s3:ListBucket a missing key is 403 too (Amazon S3 API Reference, `GetObject`).
        (Kind::AccessDenied, None) => (
            Verdict::Unknown,
            format!(
                "S3 denies reading a key that need not exist, which it does where the bucket may \
                 not be listed (allow s3:ListBucket for an honest 404), and also where nothing may \
                 be read: name an object that exists, s3proxy --check {path}KEY; {error}"
            ),
        ),
        (Kind::Archived, _) => failed("the object is archived: restore it, or name another one"),
        (Kind::RangeNotSatisfiable, _) => (Verdict::Works, "an empty object was read".to_owned()),
        (Kind::Credentials, _) => {
            failed("the credentials are refused: check the access key, the secret and their expiry")
        }
        (Kind::Clock, _) => failed(&clock_words(error)),
        (Kind::WrongEndpoint, _) => failed("check 'region' and 'endpoint'"),
        (Kind::CustomerKey, _) => failed("check 'sse_customer_key_file'"),
        (Kind::SlowDown | Kind::TimedOut, _) => failed("S3 is overloaded or slow: try again"),
        (Kind::InvalidKey | Kind::Unexplained | Kind::PreconditionFailed | Kind::Other, _) => {
            failed("S3 gives an unexpected answer")
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::s3::bucket::Bucket;
    use crate::s3::endpoint::Addressing;

    fn judged(status: u16, code: &str, named: Option<&str>) -> (Verdict, String) {
        let body = format!("<Error><Code>{code}</Code></Error>");
        let object = named.map(|key| {
            let mut object = ObjectName::default();
            object.start().push_str(key);
            object
        });
        let status = StatusCode::from_u16(status).unwrap();
        judge(&ServiceError::parse(status, body.as_bytes(), None), object.as_ref(), "/files/")
    }

    #[test]
    fn a_bucket_that_is_named_twice_is_noticed() {
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
    fn a_missing_key_is_the_best_answer_and_a_missing_bucket_is_not() {
        assert_eq!(judged(404, "NoSuchKey", None).0, Verdict::Works);
        assert_eq!(judged(404, "NoSuchBucket", None).0, Verdict::Fails);
        assert_eq!(judged(404, "NoSuchKey", Some("a")).0, Verdict::Fails);
    }

    #[test]
    fn refused_credentials_fail_and_name_s3s_reason() {
        let (verdict, words) = judged(403, "SignatureDoesNotMatch", None);
        assert!(verdict == Verdict::Fails && words.contains("secret"));
        assert!(words.contains("SignatureDoesNotMatch"));
    }

    #[test]
    fn what_is_denied_is_not_taken_for_what_is_missing() {
        let (verdict, words) = judged(403, "AccessDenied", None);
        assert!(verdict == Verdict::Unknown && words.contains("s3:ListBucket"));
        assert!(words.contains("s3proxy --check /files/KEY"));
        let (verdict, words) = judged(403, "AccessDenied", Some("a.bam"));
        assert!(verdict == Verdict::Fails && words.contains("\"a.bam\""));
    }
}
