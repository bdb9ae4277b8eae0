//! `bucket_name` or `mounts`: which paths lead to which buckets.

use std::sync::Arc;

use crate::config::bucket;
use crate::config::credentials::{self, AwsKeys, Given, Identity};
use crate::config::file::{Setting, fields};
use crate::config::login;
use crate::config::problem::{Fault, Place, Problem, Spot, key_name, quoted};
use crate::config::reader::{Reader, no_value};
use crate::config::schema::MOUNT_KEYS;
use crate::config::values;
use crate::config::yaml::{Entry, Value};
use crate::mount::Mount;
use crate::s3::bucket::{Addressing, Bucket};
use crate::s3::login::{Login, Role};
use crate::s3::source::Source;
use crate::upstream::Origin;

/// Where `bucket_name` is mounted, as in the 2014 application.
const SHORT_FORM_PATH: &str = "/files/";

/// The region that requests are signed for where nothing names one, as in the 2014 application.
const DEFAULT_REGION: &str = "us-east-1";

/// Most mounts of one configuration: a request looks through them one after the other.
const MOUNTS: usize = 1000;

/// A mount as written; what is `None` or unset comes from the top level.
struct Written {
    spot: Spot,
    path: String,
    bucket: String,
    prefix: String,
    region: Option<String>,
    endpoint: Given<Origin>,
    addressing: Option<Addressing>,
    identity: Given<Identity>,
}

/// All mounts, those with the longest path first, so that the first match is the best one.
/// `home` is where something that is missing would have to be written.
pub(super) fn read(reader: &mut Reader, home: &Place) -> Vec<Mount> {
    let mut keys = AwsKeys::take(reader);
    let mut mounts = written(reader, home, &mut keys);
    mounts.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| a.path.cmp(&b.path)));
    let mut top = TopLevel::read(reader, home, &mut keys);
    mounts.into_iter().filter_map(|mount| top.complete(mount, &mut reader.problems)).collect()
}

fn written(reader: &mut Reader, home: &Place, keys: &mut AwsKeys) -> Vec<Written> {
    let short = reader.spot("bucket_name");
    let bucket = reader.value("bucket_name", bucket::name);
    let mounts = reader.take("mounts").pop();
    match (short, mounts) {
        (None, None) => {
            let what = "is missing";
            let remedy = "name a bucket here or in S3PROXY_BUCKET_NAME, or several in 'mounts'";
            reader.report(&Spot::new(home.clone(), "bucket_name"), Fault::new(what, remedy));
            Vec::new()
        }
        (Some(short), Some(_)) => {
            let remedy = "keep one of the two; 'bucket_name' is short for one mount at /files/";
            reader.report(&short, Fault::new("stands beside 'mounts'", remedy));
            Vec::new()
        }
        (Some(spot), None) => bucket.map(|bucket| short_form(spot, bucket)).into_iter().collect(),
        (None, Some(mounts)) => long_form(mounts, keys, &mut reader.problems),
    }
}

fn short_form(spot: Spot, bucket: String) -> Written {
    Written {
        spot,
        path: SHORT_FORM_PATH.to_owned(),
        bucket,
        prefix: String::new(),
        region: None,
        endpoint: Given::Unset,
        addressing: None,
        identity: Given::Unset,
    }
}

fn long_form(mounts: Setting, keys: &mut AwsKeys, problems: &mut Vec<Problem>) -> Vec<Written> {
    let Setting { spot, value, .. } = mounts;
    match value.value {
        Value::Map(entries) if entries.len() > MOUNTS => {
            let what = format!("has {} mounts", entries.len());
            problems.push(spot.problem(Fault::new(what, format!("keep {MOUNTS} at most"))));
            Vec::new()
        }
        Value::Map(entries) if !entries.is_empty() => {
            entries.into_iter().filter_map(|entry| mount(&spot, entry, keys, problems)).collect()
        }
        _ => {
            let remedy = "write one line per path, such as '/files/: { bucket: my-bucket }'";
            problems.push(spot.problem(Fault::new("is not a map of paths to buckets", remedy)));
            Vec::new()
        }
    }
}

fn mount(
    mounts: &Spot,
    entry: Entry,
    keys: &mut AwsKeys,
    problems: &mut Vec<Problem>,
) -> Option<Written> {
    let spot = mounts.child(entry.line, key_name(&entry.key));
    let path = path(&entry.key).map_err(|fault| problems.push(spot.problem(fault))).ok();
    let Value::Map(entries) = entry.value.value else {
        let fault = Fault::new("is not a map", "write '{ bucket: my-bucket }' behind it");
        problems.push(spot.problem(fault));
        return None;
    };
    let mut reader = Reader::new(fields(&spot, entries, MOUNT_KEYS, problems));
    if reader.spot("bucket").is_none() {
        reader.report(&spot, Fault::new("names no bucket", "add 'bucket: my-bucket'"));
    }
    let bucket = reader.value("bucket", bucket::name);
    let prefix = reader.value("prefix", bucket::prefix).unwrap_or_default();
    let region = reader.value("region", bucket::region);
    let endpoint = endpoint(&mut reader);
    let addressing = reader.value("addressing", values::addressing);
    let identity = match reader.take("credentials").pop() {
        Some(setting) => login::identity(setting, keys, &mut reader.problems),
        None => Given::Unset,
    };
    problems.append(&mut reader.problems);
    let (path, bucket) = (path?, bucket?);
    Some(Written { spot, path, bucket, prefix, region, endpoint, addressing, identity })
}

/// The path of a mount, which is compared with decoded request paths byte by byte.
fn path(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(no_value());
    }
    let inner = text.trim_matches('/');
    let whole = if inner.is_empty() { "/".to_owned() } else { format!("/{inner}/") };
    if whole != text {
        let what = "a path starts and ends with one '/'";
        return Err(Fault::new(what, format!("write {}", quoted(&whole))));
    }
    if let Some(wrong) = text.chars().find(|&c| !c.is_ascii_graphic() || "?#%\\\"<>".contains(c)) {
        let what = format!("a path cannot contain {}", quoted(&wrong.to_string()));
        return Err(Fault::new(what, "use letters, digits, '-', '_' and '.'"));
    }
    // Clients resolve these before they send a request (RFC 3986 §5.2.4).
    if inner.split('/').any(|part| part == "." || part == "..") || inner.contains("//") {
        return Err(Fault::new("no client asks for '//', '/./' or '/../'", "write a plain path"));
    }
    Ok(whole)
}

fn endpoint(reader: &mut Reader) -> Given<Origin> {
    match (reader.spot("endpoint"), reader.value("endpoint", bucket::endpoint)) {
        (None, _) => Given::Unset,
        (Some(_), None) => Given::Wrong,
        (Some(_), Some(origin)) => Given::Is(origin),
    }
}

/// What mounts inherit, and the values that they share.
struct TopLevel {
    /// `None` where nothing names one.
    region: Option<String>,
    endpoint: Given<Origin>,
    addressing: Addressing,
    identity: Given<Identity>,
    home: Place,
    origins: Vec<Arc<Origin>>,
    sources: Vec<Arc<Source>>,
}

impl TopLevel {
    fn read(reader: &mut Reader, home: &Place, keys: &mut AwsKeys) -> TopLevel {
        TopLevel {
            region: reader.value("region", bucket::region),
            endpoint: endpoint(reader),
            addressing: reader.value_or("addressing", values::addressing, Addressing::Path),
            identity: credentials::top_level(reader, keys),
            home: home.clone(),
            origins: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Fills the gaps of a mount. What is missing at the top is reported for the first mount that
    /// needs it, and counts as wrong from then on.
    fn complete(&mut self, mount: Written, problems: &mut Vec<Problem>) -> Option<Mount> {
        let Written { spot, path, bucket, prefix, .. } = mount;
        let endpoint = self.endpoint(mount.endpoint, problems);
        let credentials = self.credentials(mount.identity);
        let (endpoint, credentials) = (endpoint?, credentials?);
        let addressing = mount.addressing.unwrap_or(self.addressing);
        let origin = match addressing {
            Addressing::Path => endpoint,
            Addressing::Virtual => bucket::virtual_host(&bucket, &endpoint)
                .map_err(|fault| problems.push(spot.problem(fault)))
                .ok()?,
        };
        let bucket = Bucket {
            name: bucket,
            region: mount.region.or(self.region.clone()).unwrap_or(DEFAULT_REGION.to_owned()),
            origin: shared(&mut self.origins, Arc::new(origin)),
            addressing,
            credentials,
        };
        Some(Mount { path, prefix, bucket })
    }

    fn endpoint(&mut self, own: Given<Origin>, problems: &mut Vec<Problem>) -> Option<Origin> {
        match (own, &self.endpoint) {
            (Given::Is(origin), _) => Some(origin),
            (Given::Unset, Given::Is(origin)) => Some(origin.clone()),
            (Given::Wrong, _) | (Given::Unset, Given::Wrong) => None,
            (Given::Unset, Given::Unset) => {
                let aws = bucket::endpoint_or_aws(None);
                let spot = Spot::new(self.home.clone(), "endpoint");
                let aws = aws.map_err(|fault| problems.push(spot.problem(fault))).ok();
                self.endpoint = aws.clone().map_or(Given::Wrong, Given::Is);
                aws
            }
        }
    }

    /// The credentials of a mount: outside `None` where they are wrong, inside where requests go
    /// unsigned.
    fn credentials(&mut self, own: Given<Identity>) -> Option<Option<Arc<Source>>> {
        let top = match &self.identity {
            Given::Is(Identity::Login(login)) => Some(login.clone()),
            Given::Is(Identity::Role(role)) => Some(Login::Role(role.clone())),
            Given::Is(Identity::Anonymous) | Given::Unset | Given::Wrong => None,
        };
        let login = match (own, &self.identity) {
            (Given::Wrong, _) | (Given::Unset, Given::Wrong) => return None,
            (Given::Is(Identity::Anonymous), _)
            | (Given::Unset, Given::Is(Identity::Anonymous)) => return Some(None),
            (Given::Is(Identity::Login(login)), _) => login,
            (Given::Is(Identity::Role(_)), Given::Wrong) => return None,
            (Given::Is(Identity::Role(role)), _) => {
                let source = Box::new(top.unwrap_or(Login::Chain));
                Login::Role(Role { source, ..role })
            }
            (Given::Unset, _) => top.unwrap_or(Login::Chain),
        };
        Some(Some(self.source(login)))
    }

    /// The source of a login, one for all mounts that have the same: each is renewed by itself.
    fn source(&mut self, login: Login) -> Arc<Source> {
        if let Some(known) = self.sources.iter().find(|source| *source.login() == login) {
            return Arc::clone(known);
        }
        let source = Arc::new(Source::new(login, self.region.clone()));
        self.sources.push(Arc::clone(&source));
        source
    }
}

/// The equal value that is already there, or `new`: workers keep state per origin, and there
/// should be one of each.
fn shared<T: PartialEq>(known: &mut Vec<Arc<T>>, new: Arc<T>) -> Arc<T> {
    if let Some(old) = known.iter().find(|old| ***old == *new) {
        return Arc::clone(old);
    }
    known.push(Arc::clone(&new));
    new
}
