//! The value of `credentials`: a word, or a map. Nothing in this file ever repeats a value, since
//! a secret may have ended up in the wrong place.

use crate::config::credentials::{AwsKeys, Given, Identity};
use crate::config::file::{Setting, fields};
use crate::config::keys::key_set;
use crate::config::problem::{Fault, Problem, Spot};
use crate::config::reader::{Reader, no_value};
use crate::config::schema::CREDENTIALS_KEYS;
use crate::config::yaml::{Entry, Value};
use crate::s3::credentials::login::{Login, Role};

const KEYS: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];

const REMEDY: &str = "write anonymous, auto, environment, web_identity, container or instance, or \
                      a map with access_key_id, profile or role_arn";

/// As whom to ask, as one `credentials` says it.
pub(super) fn identity(
    setting: Setting,
    keys: &mut AwsKeys,
    problems: &mut Vec<Problem>,
) -> Given<Identity> {
    let Setting { spot, value, .. } = setting;
    let fault = match value.value {
        Value::Map(entries) if entries.is_empty() => Fault::new("is empty", REMEDY),
        Value::Map(entries) => return map(&spot, entries, problems),
        Value::Text(text) => match text.as_str() {
            "anonymous" => return Given::Is(Identity::Anonymous),
            "web_identity" => return Given::Is(Identity::Login(Login::WebIdentity)),
            "container" => return Given::Is(Identity::Login(Login::Container)),
            "instance" => return Given::Is(Identity::Login(Login::Instance)),
            "auto" => match keys.of_environment(problems) {
                Given::Is(keys) => return Given::Is(Identity::Login(Login::EnvironmentKeys(keys))),
                Given::Unset => return Given::Is(Identity::Login(Login::Chain)),
                Given::Wrong => return Given::Wrong,
            },
            "environment" => match keys.of_environment(problems) {
                Given::Is(keys) => return Given::Is(Identity::Login(Login::EnvironmentKeys(keys))),
                Given::Unset => Fault::new(
                    "the environment holds no keys",
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there",
                ),
                Given::Wrong => return Given::Wrong,
            },
            _ => Fault::new("is no kind of credentials", REMEDY),
        },
        Value::List(_) => Fault::new("is a list", REMEDY),
        Value::Null => no_value(),
    };
    problems.push(spot.problem(fault));
    Given::Wrong
}

/// Keys, a profile, or a role with one of them or with a token file.
fn map(spot: &Spot, entries: Vec<Entry>, problems: &mut Vec<Problem>) -> Given<Identity> {
    let before = problems.len();
    let mut reader = Reader::new(fields(spot, entries, CREDENTIALS_KEYS, problems));
    report_contradictions(&mut reader);
    problems.append(&mut reader.problems);
    let keys = key_set(&mut reader, KEYS, problems);
    let profile = reader.value("profile", profile);
    let role_arn = reader.value("role_arn", role_arn);
    let external_id = reader.value("external_id", external_id);
    let session_name = reader.value("session_name", session_name);
    let token_file = reader.value("web_identity_token_file", file);
    problems.append(&mut reader.problems);
    if problems.len() > before {
        return Given::Wrong;
    }
    let own = match (keys, profile) {
        (Given::Is(keys), _) => Some(Login::Keys(keys)),
        (_, Some(name)) => Some(Login::Profile(name)),
        _ => None,
    };
    Given::Is(match (role_arn, token_file, own) {
        (Some(role_arn), Some(path), _) => {
            Identity::Login(Login::TokenFile { path, role_arn, session_name })
        }
        (Some(arn), None, own) => {
            let inherits = own.is_none();
            let source = Box::new(own.unwrap_or(Login::Chain));
            let role = Role { arn, external_id, session_name, source };
            if inherits { Identity::Role(role) } else { Identity::Login(Login::Role(role)) }
        }
        (None, _, Some(login)) => Identity::Login(login),
        (None, _, None) => {
            problems.push(spot.problem(Fault::new("names no credentials", REMEDY)));
            return Given::Wrong;
        }
    })
}

/// Reports keys that cannot stand beside others, or not without them.
fn report_contradictions(reader: &mut Reader) {
    for (key, beside) in [
        ("profile", "access_key_id"),
        ("web_identity_token_file", "access_key_id"),
        ("web_identity_token_file", "profile"),
        ("web_identity_token_file", "external_id"),
    ] {
        if let (Some(spot), Some(_)) = (reader.spot(key), reader.spot(beside)) {
            let what = format!("stands beside {beside}");
            reader.report(&spot, Fault::new(what, "keep one of the two"));
        }
    }
    if reader.spot("role_arn").is_some() {
        return;
    }
    for key in ["external_id", "session_name", "web_identity_token_file"] {
        if let Some(spot) = reader.spot(key) {
            let what = "stands without role_arn, which it belongs to";
            reader.report(&spot, Fault::new(what, "add role_arn, or remove it"));
        }
    }
}

fn profile(text: &str) -> Result<String, Fault> {
    let is_odd = |c: char| c.is_control() || c == '[' || c == ']';
    if text.is_empty() || text.trim() != text || text.chars().any(is_odd) {
        return Err(Fault::new(
            "is not the name of a profile",
            "write it as in ~/.aws/config, without brackets and without 'profile' before it",
        ));
    }
    Ok(text.to_owned())
}

/// A role's ARN. Other stores than AWS write theirs more freely.
fn role_arn(text: &str) -> Result<String, Fault> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.starts_with("arn:") || !(20..=2048).contains(&text.len()) || !is_plain {
        let remedy = "write it as arn:aws:iam::111122223333:role/name";
        return Err(Fault::new("is not the ARN of a role", remedy));
    }
    Ok(text.to_owned())
}

/// AWS STS API Reference, `AssumeRole`, "ExternalId".
fn external_id(text: &str) -> Result<String, Fault> {
    of_characters(text, 2..=1224, "+=,.@:/-_", "an external id")
}

/// AWS STS API Reference, `AssumeRole`, "RoleSessionName".
fn session_name(text: &str) -> Result<String, Fault> {
    of_characters(text, 2..=64, "+=,.@-_", "a session's name")
}

fn of_characters(
    text: &str,
    length: std::ops::RangeInclusive<usize>,
    marks: &str,
    what: &str,
) -> Result<String, Fault> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    if !length.contains(&text.len()) || !text.chars().all(is_allowed) {
        let (least, most) = (length.start(), length.end());
        let remedy = format!("write {least} to {most} letters, digits or {marks}");
        return Err(Fault::new(format!("is not {what}"), remedy));
    }
    Ok(text.to_owned())
}

fn file(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new("is not a path", "write the path of a file"));
    }
    Ok(text.to_owned())
}
