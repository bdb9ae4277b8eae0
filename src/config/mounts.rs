//! `bucket_name` and `mounts`: the mapping from URL paths to buckets.

use std::sync::Arc;

use crate::config::credentials::{Providers, Reported, profile_of};
use crate::config::diagnostic::{Diagnostic, Fault, Location, Source, key_name, quoted};
use crate::config::endpoint::{self, Server};
use crate::config::files::Files;
use crate::config::key::{Marks, entries_of, fill, no_value};
use crate::config::profiles::{Profiles, S3Profile};
use crate::config::settings::{INHERITED, MOUNT, MountSettings};
use crate::config::source::Written;
use crate::config::source::yaml::{Entry, Value};
use crate::config::{bucket, customer_key};
use crate::policy::route::Mount;
use crate::s3::bucket::Bucket;
use crate::s3::credentials::login::Login;
use crate::s3::endpoint::{Addressing, Aws, Endpoint};

/// The path of `bucket_name`, as in the 2014 application.
const SHORT_FORM_PATH: &str = "/files/";

/// The region if neither the configuration nor a profile has one, as in the 2014 application.
pub(super) const DEFAULT_REGION: &str = "us-east-1";

/// Largest number of mounts: each request is compared with them one after the other.
const MOUNTS: usize = 1000;

/// A mount with its own and its inherited settings.
struct Draft {
    path: String,
    location: Location,
    settings: MountSettings,
    marks: Marks,
}

/// Reads mounts and reports the mistakes in them.
pub(super) struct MountReader<'a> {
    /// The settings of the top level.
    pub(super) inherited: MountSettings,
    pub(super) marks: &'a Marks,
    pub(super) providers: Providers,
    pub(super) profiles: &'a Profiles,
    pub(super) files: Files,
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl MountReader<'_> {
    /// All mounts, ordered by length of their paths, longest first, so that the first match is the
    /// most specific one. `home` is the location that a missing bucket is reported at.
    pub(super) fn read(mut self, mounts: Option<&Written>, home: &Source) -> Vec<Arc<Mount>> {
        self.prepare_inherited();
        let mut drafts = self.drafts(mounts, home);
        drafts.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| a.path.cmp(&b.path)));
        drafts.into_iter().filter_map(|draft| self.complete(draft)).map(Arc::new).collect()
    }

    /// Checks and completes the settings that all mounts inherit.
    fn prepare_inherited(&mut self) {
        let Aws { dual_stack, fips, .. } = self.inherited.aws;
        for (key, is_on) in [("dual_stack", dual_stack), ("fips", fips)] {
            if let (true, true, Some(location)) =
                (is_on, self.marks.is_set("endpoint"), self.marks.location(key))
            {
                let problem = "is for AWS only, and conflicts with endpoint";
                let fault = Fault::new(problem, "keep one of the two");
                self.diagnostics.push(location.diagnostic(fault));
            }
        }
        let marks = self.marks;
        let inherited = std::mem::take(&mut self.inherited);
        self.inherited = self.with_customer_key(inherited, marks);
    }

    /// Reads the customer key, if these settings name a file that has not been read yet.
    fn with_customer_key(&mut self, mut settings: MountSettings, marks: &Marks) -> MountSettings {
        let location = marks.location("sse_customer_key_file");
        if let (Some(path), Some(location)) = (settings.customer_key_file.take(), location) {
            settings.customer_key =
                customer_key::read(&path, location, self.files, self.diagnostics);
        }
        settings
    }

    fn drafts(&mut self, mounts: Option<&Written>, home: &Source) -> Vec<Draft> {
        match (self.marks.location("bucket_name").cloned(), mounts) {
            (None, None) => {
                let help = "name a bucket here or in S3PROXY_BUCKET_NAME, or several in 'mounts'";
                let location = Location::new(home.clone(), "bucket_name");
                self.diagnostics.push(location.diagnostic(Fault::new("is missing", help)));
                Vec::new()
            }
            (Some(location), Some(_)) => {
                let help = "keep one of the two; 'bucket_name' is short for one mount at /files/";
                let fault = Fault::new("conflicts with 'mounts'", help);
                self.diagnostics.push(location.diagnostic(fault));
                Vec::new()
            }
            (Some(location), None) => {
                let path = SHORT_FORM_PATH.to_owned();
                let settings = MountSettings { credentials: None, ..self.inherited.clone() };
                vec![Draft { path, location, settings, marks: self.marks.clone() }]
            }
            (None, Some(mounts)) => self.long_form(mounts),
        }
    }

    fn long_form(&mut self, mounts: &Written) -> Vec<Draft> {
        let fault = match &mounts.value.value {
            Value::Map(entries) if entries.len() > MOUNTS => {
                let problem = format!("has {} mounts", entries.len());
                Fault::new(problem, format!("keep {MOUNTS} at most"))
            }
            Value::Map(entries) if !entries.is_empty() => {
                return entries
                    .iter()
                    .filter_map(|entry| self.mount(&mounts.location, entry))
                    .collect();
            }
            _ => {
                let help = "write one line per path, such as '/files/: { bucket: my-bucket }'";
                Fault::new("is not a map of paths to buckets", help)
            }
        };
        self.diagnostics.push(mounts.location.diagnostic(fault));
        Vec::new()
    }

    fn mount(&mut self, mounts: &Location, entry: &Entry) -> Option<Draft> {
        let location = mounts.child(entry.line, key_name(&entry.key));
        let path =
            path(&entry.key).map_err(|fault| self.diagnostics.push(location.diagnostic(fault)));
        let Value::Map(entries) = &entry.value.value else {
            let fault = Fault::new("is not a map", "write '{ bucket: my-bucket }' after it");
            self.diagnostics.push(location.diagnostic(fault));
            return None;
        };
        let mut settings = MountSettings { credentials: None, ..self.inherited.clone() };
        let mut marks = self.marks.clone();
        let names: Vec<&'static str> =
            MOUNT.iter().chain(INHERITED).map(|key| key.about.name).collect();
        let written = entries_of(&location, entries, &names, self.diagnostics);
        fill(MOUNT, &written, &mut settings, &mut marks, self.diagnostics);
        fill(INHERITED, &written, &mut settings, &mut marks, self.diagnostics);
        if !marks.is_set("bucket") {
            let fault = Fault::new("has no bucket", "add 'bucket: my-bucket'");
            self.diagnostics.push(location.diagnostic(fault));
        }
        let settings = self.with_customer_key(settings, &marks);
        Some(Draft { path: path.ok()?, location, settings, marks })
    }

    /// Resolves a draft; `None` has been reported.
    fn complete(&mut self, draft: Draft) -> Option<Mount> {
        let Draft { path, location, settings, marks } = draft;
        let bucket = settings.bucket?;
        let login = self.providers.login(settings.credentials, &marks, self.diagnostics);
        let profile = self.profile(&marks, login.as_ref().ok().and_then(Option::as_ref)).ok()?;
        let server = self.server(settings.endpoint, &marks, &profile).ok()?;
        let (mut endpoint, base_path) = match server {
            Some(Server { origin, path }) => (Endpoint::At(Arc::new(origin)), path),
            None => (Endpoint::Aws(settings.aws), String::new()),
        };
        if let (Endpoint::At(origin), Addressing::Virtual) = (&endpoint, settings.addressing) {
            self.check(&location, endpoint::allows_virtual(origin)).ok()?;
        }
        let region = match bucket.access_point_in {
            Some(region) => {
                endpoint = self.check(&location, access_point(endpoint)).ok()?;
                region
            }
            None => self.region(settings.region, &marks, profile, &endpoint).ok()?,
        };
        let login = login.ok()?;
        if settings.requester_pays && login.is_none() {
            let problem =
                "'requester_pays' tells S3 who pays, but 'credentials: anonymous' does not";
            let help = "give it credentials, or write 'requester_pays: false'";
            self.diagnostics.push(location.diagnostic(Fault::new(problem, help)));
        }
        let credentials = login.map(|login| self.providers.source(login));
        let mut bucket =
            Bucket::new(bucket.name, &region, endpoint, settings.addressing, credentials);
        bucket.base_path = base_path;
        bucket.requester_pays = settings.requester_pays;
        bucket.customer_key = settings.customer_key;
        Some(Mount {
            path,
            prefix: settings.prefix.unwrap_or_default(),
            bucket: Arc::new(bucket),
            allow_version_id: settings.allow_version_id,
            denied_is_missing: settings.denied_is_missing,
            cache_control: settings.cache_control,
        })
    }

    /// The profile of AWS's tools, if the configuration leaves the region or the endpoint open.
    fn profile(&mut self, marks: &Marks, login: Option<&Login>) -> Result<S3Profile, Reported> {
        if marks.is_set("region") && marks.is_set("endpoint") {
            return Ok(S3Profile::default());
        }
        let profile = self.profiles.get(login.and_then(profile_of));
        self.check(&Location::new(Source::Environment, ""), profile)
    }

    /// The server of a mount; `None` is AWS.
    fn server(
        &mut self,
        configured: Option<Server>,
        marks: &Marks,
        profile: &S3Profile,
    ) -> Result<Option<Server>, Reported> {
        match (configured, &profile.endpoint_url) {
            _ if marks.is_wrong("endpoint") => Err(Reported),
            (Some(server), _) => Ok(Some(server)),
            (None, None) => Ok(None),
            (None, Some(url)) => {
                let location = in_profile(profile, "endpoint_url");
                self.check(&location, endpoint::server(url)).map(Some)
            }
        }
    }

    /// The region of a mount: from the configuration, or else the profile, or else the default.
    fn region(
        &mut self,
        configured: Option<String>,
        marks: &Marks,
        profile: S3Profile,
        endpoint: &Endpoint,
    ) -> Result<String, Reported> {
        let parse = match endpoint {
            Endpoint::Aws(_) => bucket::aws_region,
            Endpoint::At(_) => bucket::region,
        };
        match (configured, marks.location("region"), &profile.region) {
            _ if marks.is_wrong("region") => Err(Reported),
            (Some(name), Some(location), _) => self.check(location, parse(&name)),
            (_, _, Some(name)) => self.check(&in_profile(&profile, "region"), parse(name)),
            (_, _, None) => Ok(DEFAULT_REGION.to_owned()),
        }
    }

    /// Reports a mistake, but only once if several mounts share it.
    fn check<T>(&mut self, location: &Location, result: Result<T, Fault>) -> Result<T, Reported> {
        result.map_err(|fault| {
            let diagnostic = location.diagnostic(fault);
            if !self.diagnostics.contains(&diagnostic) {
                self.diagnostics.push(diagnostic);
            }
            Reported
        })
    }
}

/// The path of a mount, which is compared with decoded request paths byte by byte.
fn path(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(no_value());
    }
    let inner = text.trim_matches('/');
    let whole = if inner.is_empty() { "/".to_owned() } else { format!("/{inner}/") };
    if whole != text {
        // Not shown if it may be a secret whose key is missing.
        let shown = if key_name(text) == text { whole } else { "/name/".to_owned() };
        let problem = "a path starts and ends with one '/'";
        return Err(Fault::new(problem, format!("write {}", quoted(&shown))));
    }
    if let Some(wrong) = text.chars().find(|&c| !c.is_ascii_graphic() || "?#%\\\"<>".contains(c)) {
        let problem = format!("a path cannot contain {}", quoted(&wrong.to_string()));
        return Err(Fault::new(problem, "use letters, digits, '-', '_' and '.'"));
    }
    // Clients resolve these before they send a request (RFC 3986 §5.2.4).
    if inner.split('/').any(|part| part == "." || part == "..") || inner.contains("//") {
        let problem = "clients never request paths with '//', '/./' or '/../'";
        return Err(Fault::new(problem, "write a plain path"));
    }
    Ok(whole)
}

/// The endpoint for access points.
fn access_point(endpoint: Endpoint) -> Result<Endpoint, Fault> {
    match endpoint {
        Endpoint::Aws(aws) => Ok(Endpoint::Aws(Aws { access_point: true, ..aws })),
        Endpoint::At(_) => {
            let problem = "names an access point, which only AWS has";
            Err(Fault::new(problem, "remove 'endpoint', or name a bucket"))
        }
    }
}

fn in_profile(profile: &S3Profile, key: &str) -> Location {
    Location::new(Source::Environment, format!("profile {}: {key}", profile.name))
}
