//! The value of `credentials`: a word, or a map. Diagnostics never contain values, since a secret
//! may be in the wrong place.

use crate::config::credentials::access_keys::{AccessKeys, Given};
use crate::config::diagnostic::{Diagnostic, Fault, Location};
use crate::config::key::{Marks, Reading, no_value, read_map};
use crate::config::settings::CREDENTIALS;
use crate::config::source::yaml::{Entry, Value};
use crate::config::values::Kind;
use crate::s3::credentials::login::{Login, Role};

/// The parsed value of one `credentials` key.
#[derive(Clone)]
pub(in crate::config) enum Identity {
    /// Do not sign requests.
    Anonymous,
    /// The access keys in the environment, or else the default chain of AWS's tools.
    Auto,
    /// The access keys in the environment.
    Environment,
    Login(Login),
    /// A role that is assumed with the top level's credentials, or else with the default chain.
    Role(Role),
}

/// The keys of `credentials` if it is a map.
#[derive(Default)]
pub(in crate::config) struct CredentialsMap {
    pub(in crate::config) keys: AccessKeys,
    pub(in crate::config) profile: Option<String>,
    pub(in crate::config) role_arn: Option<String>,
    pub(in crate::config) external_id: Option<String>,
    pub(in crate::config) session_name: Option<String>,
    pub(in crate::config) token_file: Option<String>,
}

const HELP: &str = "write anonymous, auto, environment, web_identity, container or instance, or \
                    a map with access_key_id, profile or role_arn";

/// One of the words, or a map.
pub(in crate::config) struct IdentityKind;

impl Kind<Option<Identity>> for IdentityKind {
    fn read(&self, mut reading: Reading<'_>, into: &mut Option<Identity>) {
        let fault = match &reading.written.value.value {
            Value::Map(entries) if entries.is_empty() => Fault::new("is empty", HELP),
            Value::Map(entries) => {
                let location = &reading.written.location;
                *into = map(location, entries, reading.diagnostics).or_else(|| into.take());
                return;
            }
            Value::Text(text) => match word(text) {
                Some(identity) => {
                    *into = Some(identity);
                    return;
                }
                None => Fault::new("is not a kind of credentials", HELP),
            },
            Value::List(_) => Fault::new("is a list", HELP),
            Value::Null => no_value(),
        };
        reading.report(fault);
    }

    fn show(&self, _: &Option<Identity>) -> Option<String> {
        None
    }
}

fn word(text: &str) -> Option<Identity> {
    Some(match text {
        "anonymous" => Identity::Anonymous,
        "auto" => Identity::Auto,
        "environment" => Identity::Environment,
        "web_identity" => Identity::Login(Login::WebIdentity),
        "container" => Identity::Login(Login::Container),
        "instance" => Identity::Login(Login::Instance),
        _ => return None,
    })
}

/// Reads access keys, a profile, or a role with either of them or with a token file.
fn map(
    location: &Location,
    entries: &[Entry],
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Identity> {
    const KEYS: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];
    let before = diagnostics.len();
    let (map, marks) = read_map(CREDENTIALS, location, entries, diagnostics);
    report_conflicts(&marks, diagnostics);
    let CredentialsMap { keys, profile, role_arn, external_id, session_name, token_file } = map;
    let keys = keys.complete(&marks, KEYS, diagnostics);
    if diagnostics.len() > before {
        return None;
    }
    let own = match (keys, profile) {
        (Given::Is(keys), _) => Some(Login::Keys(keys)),
        (_, profile) => profile.map(Login::Profile),
    };
    match (role_arn, token_file, own) {
        (Some(role_arn), Some(path), _) => {
            Some(Identity::Login(Login::TokenFile { path, role_arn, session_name }))
        }
        (Some(arn), None, Some(own)) => {
            let role = Role { arn, external_id, session_name, source: Box::new(own) };
            Some(Identity::Login(Login::Role(role)))
        }
        (Some(arn), None, None) => {
            let source = Box::new(Login::Chain);
            Some(Identity::Role(Role { arn, external_id, session_name, source }))
        }
        (None, _, Some(login)) => Some(Identity::Login(login)),
        (None, _, None) => {
            diagnostics.push(location.diagnostic(Fault::new("has no credentials", HELP)));
            None
        }
    }
}

/// Reports keys that exclude others or need others.
fn report_conflicts(marks: &Marks, diagnostics: &mut Vec<Diagnostic>) {
    for (key, other) in [
        ("profile", "access_key_id"),
        ("web_identity_token_file", "access_key_id"),
        ("web_identity_token_file", "profile"),
        ("web_identity_token_file", "external_id"),
    ] {
        if let (Some(location), true) = (marks.location(key), marks.is_set(other)) {
            let fault = Fault::new(format!("conflicts with {other}"), "keep one of the two");
            diagnostics.push(location.diagnostic(fault));
        }
    }
    if marks.is_set("role_arn") {
        return;
    }
    for key in ["external_id", "session_name", "web_identity_token_file"] {
        if let Some(location) = marks.location(key) {
            let fault = Fault::new("needs role_arn", "add role_arn, or remove this key");
            diagnostics.push(location.diagnostic(fault));
        }
    }
}

pub(in crate::config) fn profile(text: &str) -> Result<String, Fault> {
    let is_invalid = |c: char| c.is_control() || c == '[' || c == ']';
    if text.is_empty() || text.trim() != text || text.chars().any(is_invalid) {
        return Err(Fault::new(
            "is not the name of a profile",
            "write it as in ~/.aws/config, without the brackets and the word 'profile'",
        ));
    }
    Ok(text.to_owned())
}

/// Only a rough check, since other S3 servers have other ARNs.
pub(in crate::config) fn role_arn(text: &str) -> Result<String, Fault> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.starts_with("arn:") || !(20..=2048).contains(&text.len()) || !is_plain {
        let help = "write it as arn:aws:iam::111122223333:role/name";
        return Err(Fault::new("is not the ARN of a role", help));
    }
    Ok(text.to_owned())
}

/// AWS STS API Reference, `AssumeRole`, `ExternalId`.
pub(in crate::config) fn external_id(text: &str) -> Result<String, Fault> {
    of_characters(text, 2..=1224, "+=,.@:/-_", "an external id")
}

/// AWS STS API Reference, `AssumeRole`, `RoleSessionName`.
pub(in crate::config) fn session_name(text: &str) -> Result<String, Fault> {
    of_characters(text, 2..=64, "+=,.@-_", "a session name")
}

fn of_characters(
    text: &str,
    length: std::ops::RangeInclusive<usize>,
    marks: &str,
    expected: &str,
) -> Result<String, Fault> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    if !length.contains(&text.len()) || !text.chars().all(is_allowed) {
        let (least, most) = (length.start(), length.end());
        let help = format!("write {least} to {most} letters, digits or {marks}");
        return Err(Fault::new(format!("is not {expected}"), help));
    }
    Ok(text.to_owned())
}

pub(in crate::config) fn token_file(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new("is not a path", "write the path of a file"));
    }
    Ok(text.to_owned())
}
