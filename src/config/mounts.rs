//! `bucket_name` or `mounts`: which paths lead to which buckets.

use std::sync::Arc;

use crate::config::bucket::{self, Server};
use crate::config::credentials::{AwsKeys, Given, Identity};
use crate::config::customer_key::{self, KeyFile};
use crate::config::file::{Setting, fields};
use crate::config::files::Files;
use crate::config::login;
use crate::config::problem::{Fault, Place, Problem, Spot, key_name, quoted};
use crate::config::profiles::{self, Profiles};
use crate::config::reader::{Reader, no_value};
use crate::config::schema::MOUNT_KEYS;
use crate::config::sources::Sources;
use crate::config::values;
use crate::config::web::{self, CacheControl};
use crate::config::yaml::{Entry, Value};
use crate::policy::route::Mount;
use crate::s3::bucket::Bucket;
use crate::s3::endpoint::{Addressing, Aws, Endpoint, is_aws_region};
use crate::s3::sse_c::CustomerKey;
use crate::upstream::proxy::Proxies;

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
    bucket: bucket::Name,
    prefix: String,
    region: Option<Region>,
    endpoint: Given<Server>,
    addressing: Option<Addressing>,
    identity: Given<Identity>,
    requester_pays: Option<bool>,
    allow_version_id: Option<bool>,
    denied_is_missing: Option<bool>,
    cache_control: Option<CacheControl>,
    key_file: Option<KeyFile>,
}

/// A region, and where it was named, since what it may look like depends on the endpoint.
#[derive(Clone)]
struct Region {
    spot: Spot,
    name: String,
}

/// All mounts, those with the longest path first, so that the first match is the best one.
/// `home` is where something that is missing would have to be written.
pub(super) fn read(
    reader: &mut Reader,
    profiles: &Profiles,
    proxies: &Arc<Proxies>,
    home: &Place,
) -> Vec<Arc<Mount>> {
    let mut keys = AwsKeys::take(reader);
    let mut mounts = written(reader, home, &mut keys);
    mounts.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| a.path.cmp(&b.path)));
    let mut top = TopLevel::read(reader, &mut keys, proxies);
    let problems = &mut reader.problems;
    mounts.into_iter().filter_map(|mount| top.complete(mount, profiles, problems)).collect()
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

fn short_form(spot: Spot, bucket: bucket::Name) -> Written {
    Written {
        spot,
        path: SHORT_FORM_PATH.to_owned(),
        bucket,
        prefix: String::new(),
        region: None,
        endpoint: Given::Unset,
        addressing: None,
        identity: Given::Unset,
        requester_pays: None,
        allow_version_id: None,
        denied_is_missing: None,
        cache_control: None,
        key_file: None,
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
    let region = region(&mut reader);
    let endpoint = endpoint(&mut reader);
    let addressing = reader.value("addressing", values::addressing);
    let identity = match reader.take("credentials").pop() {
        Some(setting) => login::identity(setting, keys, &mut reader.problems),
        None => Given::Unset,
    };
    let requester_pays = reader.value("requester_pays", values::boolean);
    let allow_version_id = reader.value("allow_version_id", values::boolean);
    let denied_is_missing = reader.value("denied_is_missing", values::boolean);
    let cache_control = reader.value("cache_control", web::cache_control);
    let key_file = customer_key::file(&mut reader);
    problems.append(&mut reader.problems);
    Some(Written {
        spot,
        path: path?,
        bucket: bucket?,
        prefix,
        region,
        endpoint,
        addressing,
        identity,
        requester_pays,
        allow_version_id,
        denied_is_missing,
        cache_control,
        key_file,
    })
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
        // What stands here may be a secret that has lost its key.
        let shown = if key_name(text) == text { whole } else { "/name/".to_owned() };
        return Err(Fault::new(what, format!("write {}", quoted(&shown))));
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

fn region(reader: &mut Reader) -> Option<Region> {
    let spot = reader.spot("region");
    let name = reader.value("region", bucket::region)?;
    Some(Region { spot: spot?, name })
}

fn endpoint(reader: &mut Reader) -> Given<Server> {
    match (reader.spot("endpoint"), reader.value("endpoint", bucket::endpoint)) {
        (None, _) => Given::Unset,
        (Some(_), None) => Given::Wrong,
        (Some(_), Some(origin)) => Given::Is(origin),
    }
}

/// Which of AWS's servers; the variants are of no meaning at an endpoint of one's own.
fn aws(reader: &mut Reader, is_aws: bool) -> Aws {
    let mut variant = |key| {
        let spot = reader.spot(key);
        let on = reader.value_or(key, values::boolean, false);
        if let (true, false, Some(spot)) = (on, is_aws, spot) {
            let fault = Fault::new("is for AWS only, and 'endpoint' is set", "keep one of the two");
            reader.report(&spot, fault);
        }
        on
    };
    let (dual_stack, fips) = (variant("dual_stack"), variant("fips"));
    Aws { dual_stack, fips, access_point: false }
}

/// What mounts inherit.
struct TopLevel {
    /// `None` where nothing names one.
    region: Option<Region>,
    endpoint: Given<Server>,
    aws: Aws,
    addressing: Addressing,
    sources: Sources,
    requester_pays: bool,
    allow_version_id: bool,
    denied_is_missing: bool,
    cache_control: CacheControl,
    customer_key: Option<Arc<CustomerKey>>,
    files: Files,
}

impl TopLevel {
    fn read(reader: &mut Reader, keys: &mut AwsKeys, proxies: &Arc<Proxies>) -> TopLevel {
        let endpoint = endpoint(reader);
        let files = reader.files;
        let key_file = customer_key::file(reader);
        let region = region(reader);
        // Elsewhere a region has a name that AWS's STS does not know.
        let sts_region = region.as_ref().map(|region| region.name.as_str());
        let sts_region = sts_region.filter(|name| is_aws_region(name));
        TopLevel {
            aws: aws(reader, matches!(endpoint, Given::Unset)),
            endpoint,
            addressing: reader.value_or("addressing", values::addressing, Addressing::Auto),
            sources: Sources::read(reader, keys, sts_region, Arc::clone(proxies)),
            region,
            requester_pays: reader.value_or("requester_pays", values::boolean, false),
            allow_version_id: reader.value_or("allow_version_id", values::boolean, false),
            denied_is_missing: reader.value_or("denied_is_missing", values::boolean, false),
            cache_control: reader.value("cache_control", web::cache_control).unwrap_or_default(),
            customer_key: key_file.and_then(|file| file.read(files, &mut reader.problems)),
            files,
        }
    }

    /// Fills the gaps of a mount.
    fn complete(
        &mut self,
        mount: Written,
        profiles: &Profiles,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Mount>> {
        let place = self.place(&mount, profiles).map_err(|fault| {
            report_once(Spot::new(Place::Environment, "").problem(fault), problems);
        });
        let place = place.ok()?;
        let server = self.server(mount.endpoint, &place, problems);
        let credentials = self.sources.of(mount.identity);
        let customer_key = match mount.key_file {
            Some(file) => file.read(self.files, problems),
            None => self.customer_key.clone(),
        };
        let (server, credentials) = (server?, credentials?);
        let Written { spot, path, prefix, .. } = mount;
        let requester_pays = mount.requester_pays.unwrap_or(self.requester_pays);
        if requester_pays && credentials.is_none() {
            problems.push(spot.problem(Fault::new(
                "'requester_pays' tells S3 who pays, but 'credentials: anonymous' does not",
                "give it credentials, or write 'requester_pays: false'",
            )));
        }
        let addressing = mount.addressing.unwrap_or(self.addressing);
        let (endpoint, base_path) = match server {
            Some(Server { origin, path }) => (Endpoint::At(Arc::new(origin)), path),
            None => (Endpoint::Aws(self.aws), String::new()),
        };
        if let (Endpoint::At(origin), Addressing::Virtual) = (&endpoint, addressing)
            && let Err(fault) = bucket::allows_virtual(origin)
        {
            problems.push(spot.problem(fault));
            return None;
        }
        let region = mount.region.or_else(|| self.region.clone());
        let (endpoint, region) = match mount.bucket.access_point_in {
            Some(region) => (access_point(endpoint, &spot, problems)?, region),
            None => {
                let region = named_region(region, place, &endpoint, problems)?;
                (endpoint, region)
            }
        };
        let mut bucket = Bucket::new(mount.bucket.name, &region, endpoint, addressing, credentials);
        bucket.base_path = base_path;
        bucket.requester_pays = requester_pays;
        bucket.customer_key = customer_key;
        let cache_control = mount.cache_control.unwrap_or_else(|| self.cache_control.clone());
        Some(Arc::new(Mount {
            path,
            prefix,
            bucket: Arc::new(bucket),
            allow_version_id: mount.allow_version_id.unwrap_or(self.allow_version_id),
            denied_is_missing: mount.denied_is_missing.unwrap_or(self.denied_is_missing),
            cache_control: cache_control.0,
        }))
    }

    /// What the profile of a mount says, where the configuration leaves something open.
    fn place(&self, mount: &Written, profiles: &Profiles) -> Result<profiles::Place, Fault> {
        let has_endpoint = |given: &Given<Server>| !matches!(given, Given::Unset);
        let is_complete = (mount.region.is_some() || self.region.is_some())
            && (has_endpoint(&mount.endpoint) || has_endpoint(&self.endpoint));
        match is_complete {
            true => Ok(profiles::Place::default()),
            false => profiles.place(self.sources.profile_of(&mount.identity)),
        }
    }

    /// The server that is named for a mount: outside `None` where something is wrong, inside where
    /// it is AWS.
    fn server(
        &self,
        own: Given<Server>,
        place: &profiles::Place,
        problems: &mut Vec<Problem>,
    ) -> Option<Option<Server>> {
        match (own, &self.endpoint, &place.endpoint_url) {
            (Given::Is(server), _, _) => Some(Some(server)),
            (Given::Unset, Given::Is(server), _) => Some(Some(server.clone())),
            (Given::Unset, Given::Unset, None) => Some(None),
            (Given::Unset, Given::Unset, Some(url)) => {
                of_profile("endpoint_url", bucket::endpoint(url), place, problems).map(Some)
            }
            (Given::Wrong, _, _) | (Given::Unset, Given::Wrong, _) => None,
        }
    }
}

/// The region of a mount: that of the configuration, of the profile, or AWS's first one.
fn named_region(
    written: Option<Region>,
    place: profiles::Place,
    endpoint: &Endpoint,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    let check = match endpoint {
        Endpoint::Aws(_) => bucket::aws_region,
        Endpoint::At(_) => bucket::region,
    };
    match (written, &place.region) {
        (Some(Region { spot, name }), _) => {
            check(&name).map_err(|fault| report_once(spot.problem(fault), problems)).ok()
        }
        (None, Some(name)) => of_profile("region", check(name), &place, problems),
        (None, None) => Some(DEFAULT_REGION.to_owned()),
    }
}

/// What a profile says, or its mistake.
fn of_profile<T>(
    key: &str,
    read: Result<T, Fault>,
    place: &profiles::Place,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let spot = || Spot::new(Place::Environment, format!("profile {}: {key}", place.profile));
    read.map_err(|fault| report_once(spot().problem(fault), problems)).ok()
}

/// Reports what several mounts have in common.
fn report_once(problem: Problem, problems: &mut Vec<Problem>) {
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

/// The servers for access points.
fn access_point(endpoint: Endpoint, spot: &Spot, problems: &mut Vec<Problem>) -> Option<Endpoint> {
    match endpoint {
        Endpoint::Aws(aws) => Some(Endpoint::Aws(Aws { access_point: true, ..aws })),
        Endpoint::At(_) => {
            let what = "names an access point, which only AWS has";
            let remedy = "remove 'endpoint', or name a bucket";
            problems.push(spot.problem(Fault::new(what, remedy)));
            None
        }
    }
}
