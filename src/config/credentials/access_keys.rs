//! Access keys in the file and the environment. Diagnostics never contain their values.

use crate::config::diagnostic::{Diagnostic, Fault, Location, Source};
use crate::config::key::{Marks, fill, no_value};
use crate::config::settings::AWS_KEYS;
use crate::config::source::Written;
use crate::s3::credentials::{self, Credentials, is_access_key_id_byte};

/// A setting; `Wrong` has been reported.
#[derive(Clone)]
pub(super) enum Given<T> {
    Unset,
    Wrong,
    Is(T),
}

/// An access key ID, a secret access key and a session token from one source.
#[derive(Default)]
pub(in crate::config) struct AccessKeys {
    pub(in crate::config) id: Option<String>,
    pub(in crate::config) secret: Option<String>,
    pub(in crate::config) token: Option<String>,
}

impl AccessKeys {
    /// The credentials, if both the ID and the secret are set. The last argument but one has the
    /// names of the three keys in `marks`.
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

/// The names of the three keys in the environment and at the top level of the file.
const AWS_NAMES: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The access keys with the names of AWS's tools.
///
/// All three come from one source: S3 would reject a session token from one with the keys from
/// another, without naming the reason.
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

    /// The keys in the environment. Mistakes in them are reported only if they are used, and only
    /// once.
    pub(super) fn of_environment(
        &mut self,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Given<Credentials> {
        diagnostics.append(&mut self.environment.1);
        self.environment.0.clone()
    }

    /// The keys in the file, likewise.
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

/// Reports a conflict if the top level of the file has both `credentials` and access keys.
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

/// A secret is never sent, so any text is allowed, but spaces around it are a mistake in copying.
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
