//! The configuration: fills the settings of the layers below from a file, the environment and
//! flags.
//!
//! [`load`] reads the file. `source` splits each source into keys with values and locations;
//! `settings` is the table of keys; `mounts` and `checks` handle keys that depend on others. The
//! result is a [`Config`], or all mistakes at once. Flags take precedence over the environment, the
//! environment over the file, the file over defaults.
//!
//! [`resolve`] does no I/O: file text and environment are arguments, and files that settings name
//! are not read. Neither function resolves host names or sends requests; `--check` does that.

mod bucket;
mod checks;
mod credentials;
mod customer_key;
mod diagnostic;
mod endpoint;
mod files;
mod key;
mod listen;
mod mounts;
mod profiles;
mod proxy;
mod response_fields;
mod rewrite;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod values;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

pub use self::diagnostic::Source;
pub(crate) use self::diagnostic::{Diagnostic, Diagnostics, Location};
pub(crate) use self::settings::summary;
pub use self::source::environment::Environment;
pub(crate) use self::source::environment::of_process as process_environment;
pub use self::source::file::File;
pub use self::source::flags::Overrides;

use self::credentials::Providers;
use self::diagnostic::Fault;
use self::files::{Files, read_bounded};
use self::key::{Marks, fill};
use self::mounts::MountReader;
use self::profiles::Profiles;
use self::settings::{INHERITED, TOP_LEVEL, TopLevel};
use self::source::{Written, environment, file, flags};
use crate::s3::endpoint::is_aws_region;
use crate::server::live::Live;
use crate::server::settings::Settings;

/// The configuration file if the command line names none.
pub(crate) const DEFAULT_FILE: &str = "config.yaml";

/// Largest configuration file, in bytes. A thousand mounts with credentials take a quarter of it.
const FILE_BYTES: usize = 1024 * 1024;

/// A configuration, ready for the server.
#[derive(Debug)]
pub struct Config {
    /// What is fixed for a run.
    pub settings: Settings,
    /// What can be replaced while running.
    pub live: Live,
}

/// Reads the file at `path`, or `config.yaml`, and resolves it with `environment` and `flags`.
/// Without a file and without `path`, an environment that names a bucket is enough.
///
/// # Errors
/// Every mistake in all three.
pub fn load(
    path: Option<&Path>,
    environment: &Environment,
    flags: &Overrides,
) -> Result<Config, Diagnostics> {
    let name = path.unwrap_or(Path::new(DEFAULT_FILE));
    let shown = name.display().to_string();
    let file_diagnostic = |line, problem: &str, help: &str| {
        let location = Location::new(Source::File { name: shown.clone(), line }, "");
        Diagnostics::new(vec![location.diagnostic(Fault::new(problem, help))])
    };
    let surroundings =
        Surroundings { files: files::OF_THIS_MACHINE, profiles: Profiles::load(environment) };
    let bytes = match read_bounded(name, FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let bucket = environment.get("S3PROXY_BUCKET_NAME").map(|name| name.trim());
            if path.is_none() && bucket.is_some_and(|name| !name.is_empty()) {
                return resolve_with(None, environment, flags, &surroundings);
            }
            let help = "write one or name it with -c FILE; see config.example.yaml";
            return Err(file_diagnostic(None, "there is no such file", help));
        }
        Err(error) => return Err(file_diagnostic(None, &format!("cannot be read: {error}"), "")),
    };
    if bytes.len() > FILE_BYTES {
        let problem = format!("is larger than {FILE_BYTES} bytes");
        return Err(file_diagnostic(None, &problem, "name the configuration file with -c FILE"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => {
            let file = Some(File { name: &shown, text });
            resolve_with(file, environment, flags, &surroundings)
        }
        Err(error) => {
            let line = 1 + memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
            Err(file_diagnostic(Some(line), "is not UTF-8 text", "save the file as UTF-8"))
        }
    }
}

/// Resolves the configuration in `file`, `environment` and `flags`. Other files are not read; a
/// setting that names one is reported as a mistake.
///
/// # Errors
/// Every mistake in all three.
pub fn resolve(
    file: Option<File<'_>>,
    environment: &Environment,
    flags: &Overrides,
) -> Result<Config, Diagnostics> {
    let surroundings = Surroundings { files: files::NONE, profiles: Profiles::default() };
    resolve_with(file, environment, flags, &surroundings)
}

/// The file system and the profiles of AWS's tools.
struct Surroundings {
    files: Files,
    profiles: Profiles,
}

fn resolve_with(
    file: Option<File<'_>>,
    environment: &Environment,
    flags: &Overrides,
    surroundings: &Surroundings,
) -> Result<Config, Diagnostics> {
    let mut diagnostics = Vec::new();
    // In rising order of precedence.
    let mut written = file.map(|file| file::read(file, &mut diagnostics)).unwrap_or_default();
    let is_unreadable = !diagnostics.is_empty() && written.is_empty();
    written.extend(environment::read(environment, &mut diagnostics));
    written.extend(flags::read(flags));

    let home = match file {
        Some(file) => Source::File { name: file.name.to_owned(), line: None },
        None => Source::Nowhere,
    };
    let config = read(&written, environment, surroundings, &home, &mut diagnostics);
    if is_unreadable {
        // Keys may seem missing only because the file could not be read.
        diagnostics.retain(|diagnostic| diagnostic.location.source != home);
    }
    if diagnostics.is_empty() { Ok(config) } else { Err(Diagnostics::new(diagnostics)) }
}

/// Reads all settings. The result is complete only if nothing was reported.
fn read(
    written: &[Written],
    environment: &Environment,
    surroundings: &Surroundings,
    home: &Source,
    diagnostics: &mut Vec<Diagnostic>,
) -> Config {
    let (mut top, mut marks) = (TopLevel::default(), Marks::default());
    fill(TOP_LEVEL, written, &mut top, &mut marks, diagnostics);
    fill(INHERITED, written, &mut top.mount, &mut marks, diagnostics);
    checks::finish(&mut top, &marks, surroundings.files, diagnostics);

    let TopLevel { mut settings, mut live, mount, mounts, proxy, .. } = top;
    let proxy = if marks.is_wrong("proxy") { Some(None) } else { proxy };
    let proxies = proxy::read(proxy, environment);
    settings.proxies = Arc::clone(&proxies.proxies);
    // STS knows the regions of AWS only.
    let sts_region = mount.region.clone().filter(|region| is_aws_region(region));
    let identity = mount.credentials.as_ref();
    let providers = Providers::new(
        identity,
        &marks,
        written,
        sts_region,
        Arc::clone(&proxies.proxies),
        diagnostics,
    );
    let reader = MountReader {
        inherited: mount,
        marks: &marks,
        providers,
        profiles: &surroundings.profiles,
        files: surroundings.files,
        diagnostics,
    };
    live.mounts = reader.read(mounts.as_ref(), home);
    proxies.report(&live.mounts, diagnostics);
    Config { settings, live }
}
