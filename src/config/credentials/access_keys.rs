//! Access keys that are written down. Nothing in this file ever repeats a value.

use crate::config::diagnostic::{Diagnostic, Fault, Location, Source};
use crate::config::key::{Marks, fill, no_value};
use crate::config::settings::AWS_KEYS;
use crate::config::source::Written;
use crate::s3::credentials::{self, Credentials, is_access_key_id_byte};

/// A setting that, if it is wrong, has been reported and is not missing.
#[derive(Clone)]
pub(super) enum Given<T> {
    Unset,
    Wrong,
    Is(T),
}

/// An access key id, a secret and a session token that belong together.
#[derive(Default)]
pub(in crate::config) struct AccessKeys {
    pub(in crate::config) id: Option<String>,
    pub(in crate::config) secret: Option<String>,
    pub(in crate::config) token: Option<String>,
}

impl AccessKeys {
    /// All of them together, if the id and the secret are both set. `marks` has them under these
    /// names.
    pub(super) fn complete(
        self,
        marks: &Marks,
        [id, secret, token]: [&str; 3],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Given<Credentials> {
        let alone = match (marks.location(id), marks.location(secret), marks.location(token)) {
            (None, None, None) => return Given::Unset,
            (Some(_), Some(_), _) => None,
            (Some(set), None, _) => Some((set, secret.to_owned())),
            (None, Some(set), _) => Some((set, id.to_owned())),
            (None, None, Some(set)) => Some((set, format!("{id} and {secret}"))),
        };
        if let Some((set, missing)) = alone {
            let fault = Fault::new(format!("is set without {missing}"), "set all of them or none");
            diagnostics.push(set.diagnostic(fault));
            return Given::Wrong;
        }
        match (self.id, self.secret) {
            (Some(id), Some(secret)) if !marks.is_wrong(token) => {
                Given::Is(credentials::fixed(id, secret, self.token))
            }
            _ => Given::Wrong,
        }
    }
}

/// The names in the environment and at the top level of the file.
const AWS_NAMES: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The access keys that are named as in AWS's tools.
///
/// They come from one source as a set: a session token of one with the keys of another would be
/// rejected by S3 with an error that does not say why.
pub(super) struct AwsKeys {
    environment: (Given<Credentials>, Vec<Diagnostic>),
    file: (Given<Credentials>, Vec<Diagnostic>),
}

impl AwsKeys {
    pub(super) fn read(written: &[Written]) -> AwsKeys {
        let is_from_environment =
            |written: &&Written| written.location.source == Source::Environment;
        let (environment, file): (Vec<&Written>, Vec<&Written>) =
            written.iter().partition(is_from_environment);
        AwsKeys { environment: key_set(&environment), file: key_set(&file) }
    }

    /// The keys in the environment. Mistakes in them are reported if they are used, once.
    pub(super) fn of_environment(
        &mut self,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Given<Credentials> {
        diagnostics.append(&mut self.environment.1);
        self.environment.0.clone()
    }

    /// The same for the keys in the file.
    pub(super) fn of_file(&mut self, diagnostics: &mut Vec<Diagnostic>) -> Given<Credentials> {
        diagnostics.append(&mut self.file.1);
        self.file.0.clone()
    }
}

fn key_set(written: &[&Written]) -> (Given<Credentials>, Vec<Diagnostic>) {
    let (mut keys, mut marks) = (AccessKeys::default(), Marks::default());
    let mut diagnostics = Vec::new();
    fill(AWS_KEYS, written.iter().copied(), &mut keys, &mut marks, &mut diagnostics);
    (keys.complete(&marks, AWS_NAMES, &mut diagnostics), diagnostics)
}

/// `credentials` and access keys at the top level of the same file contradict each other.
pub(super) fn report_both(written: &[Written], diagnostics: &mut Vec<Diagnostic>) {
    let in_file = |keys: &[&str]| {
        let is_one = |written: &&Written| {
            keys.contains(&written.key) && matches!(written.location.source, Source::File { .. })
        };
        written.iter().find(is_one).map(|written| &written.location)
    };
    if let (Some(Location { key, .. }), Some(location)) =
        (in_file(&AWS_NAMES), in_file(&["credentials"]))
    {
        let fault = Fault::new(format!("conflicts with {key}"), "keep one of the two");
        diagnostics.push(location.diagnostic(fault));
    }
}

pub(in crate::config) fn access_key_id(text: &str) -> Result<String, Fault> {
    of_bytes(text, is_access_key_id_byte)
}

pub(in crate::config) fn session_token(text: &str) -> Result<String, Fault> {
    of_bytes(text, |byte| byte.is_ascii_graphic())
}

/// A secret is never sent, so any text is allowed; but spaces around it come from copying.
pub(in crate::config) fn secret_key(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(no_value());
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(invalid_character());
    }
    Ok(text.to_owned())
}

fn of_bytes(text: &str, allowed: fn(u8) -> bool) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(no_value());
    }
    if !text.bytes().all(allowed) {
        return Err(invalid_character());
    }
    Ok(text.to_owned())
}

fn invalid_character() -> Fault {
    Fault::new("contains a space or an invalid character", "copy it again")
}
