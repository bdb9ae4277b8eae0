//! The configuration as the program uses it: typed, complete, and checked.
//!
//! Read it in the order it runs: [`load`] reads the file; `file`, `environment` and `flags` say
//! what was written, key by key, each with its place; `resolve` turns that into a [`Config`] or
//! into every mistake at once. `schema` is the table of keys. Flags win over the environment, the
//! environment over the file, the file over defaults.
//!
//! [`resolve`] is pure: file text and environment come in as arguments. What is known here only
//! as text is never looked up: no name is resolved and no bucket is asked, which is what
//! `--check` is for. The one exception are files that settings name, which [`load`] looks at and
//! [`resolve`] does not.

mod bucket;
mod credentials;
mod customer_key;
mod environment;
mod file;
mod files;
mod flags;
mod keys;
mod listen;
mod login;
mod mounts;
mod problem;
mod profiles;
mod proxy;
mod reader;
mod resolve;
mod rules;
mod schema;
mod sources;
#[cfg(test)]
mod tests;
mod values;
mod web;
mod yaml;

use std::io::ErrorKind;
use std::path::Path;

pub use self::environment::{Environment, of_process as process_environment};
pub use self::file::File;
pub use self::flags::Overrides;
pub use self::problem::{Place, Problem, Problems};

use self::files::{Files, read_bounded};
use self::problem::{Fault, Spot};
use self::profiles::Profiles;
use self::reader::Reader;
use crate::server::live::Live;
use crate::server::settings::Settings;

/// The file that is read if none is named.
pub const DEFAULT_FILE: &str = "config.yaml";

/// Largest file that is read, in bytes. A thousand mounts with credentials take a quarter.
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
) -> Result<Config, Problems> {
    let name = path.unwrap_or(Path::new(DEFAULT_FILE));
    let shown = name.display().to_string();
    let file_problem = |line, what: &str, remedy: &str| {
        let spot = Spot::new(Place::File { name: shown.clone(), line }, "");
        Problems::new(vec![spot.problem(Fault::new(what, remedy))])
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
            let remedy = "write one or name it with -c FILE; see config.example.yaml";
            return Err(file_problem(None, "there is no such file", remedy));
        }
        Err(error) => return Err(file_problem(None, &format!("cannot be read: {error}"), "")),
    };
    if bytes.len() > FILE_BYTES {
        let what = format!("is larger than {FILE_BYTES} bytes");
        return Err(file_problem(None, &what, "name the configuration file with -c FILE"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => {
            let file = Some(File { name: &shown, text });
            resolve_with(file, environment, flags, &surroundings)
        }
        Err(error) => {
            let line = 1 + memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
            Err(file_problem(Some(line), "is not UTF-8 text", "save the file as UTF-8"))
        }
    }
}

/// The configuration that `file`, `environment` and `flags` give together. Other files are not
/// read: a setting that needs one is a mistake here.
///
/// # Errors
/// Every mistake in all three.
pub fn resolve(
    file: Option<File<'_>>,
    environment: &Environment,
    flags: &Overrides,
) -> Result<Config, Problems> {
    let surroundings = Surroundings { files: files::NONE, profiles: Profiles::default() };
    resolve_with(file, environment, flags, &surroundings)
}

/// What a configuration may refer to besides its own text.
struct Surroundings {
    files: Files,
    profiles: Profiles,
}

fn resolve_with(
    file: Option<File<'_>>,
    environment: &Environment,
    flags: &Overrides,
    surroundings: &Surroundings,
) -> Result<Config, Problems> {
    let mut problems = Vec::new();
    // In rising order of precedence.
    let mut settings = file.map(|file| file::read(file, &mut problems)).unwrap_or_default();
    let unreadable = !problems.is_empty() && settings.is_empty();
    settings.extend(environment::read(environment, &mut problems));
    settings.extend(flags::read(flags));

    let mut reader = Reader::new(settings);
    reader.files = surroundings.files;
    let config = resolve::resolve(&mut reader, environment, &surroundings.profiles, &home(file));
    if unreadable {
        // What was not read cannot be said to be missing.
        reader.problems.retain(|problem| problem.place != home(file));
    }
    problems.append(&mut reader.problems);
    if problems.is_empty() { Ok(config) } else { Err(Problems::new(problems)) }
}

/// Where a key that is missing would have to be written.
fn home(file: Option<File<'_>>) -> Place {
    match file {
        Some(file) => Place::File { name: file.name.to_owned(), line: None },
        None => Place::Nowhere,
    }
}
