//! Credentials of the configuration. Nothing in this file ever repeats a value.

use std::sync::Arc;

use crate::config::file::{Setting, fields};
use crate::config::problem::{Fault, Place, Problem, Spot};
use crate::config::reader::{Reader, no_value};
use crate::config::schema::CREDENTIALS_KEYS;
use crate::config::yaml::Value;
use crate::s3::credentials::Credentials;

/// As whom a bucket is asked.
#[derive(Clone)]
pub(super) enum Login {
    /// Unsigned.
    Anonymous,
    /// Signed with these.
    Keys(Arc<Credentials>),
}

/// Something that may have been set, and may have been set wrongly, in which case it has been
/// reported and is not missing.
pub(super) enum Given<T> {
    Unset,
    Wrong,
    Is(T),
}

const AWS_KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The credentials of the top level, for every mount without its own.
///
/// `credentials: anonymous` is meant for this program, so it wins over AWS variables that happen
/// to be set. Otherwise keys come from one source as a set: a session token of one with the keys
/// of another would be refused by S3 in words that help nobody.
pub(super) fn top_level(reader: &mut Reader) -> Given<Login> {
    let written = reader.take("credentials");
    let (environment, file): (Vec<Setting>, Vec<Setting>) = AWS_KEYS
        .iter()
        .flat_map(|&key| reader.take(key))
        .partition(|setting| setting.spot.place == Place::Environment);
    let mut login = Given::Unset;
    for setting in written {
        if let (Place::File { .. }, Some(beside)) = (&setting.spot.place, file.first()) {
            let what = format!("stands beside {}", beside.key);
            reader.report(&setting.spot, Fault::new(what, "keep one of the two"));
        }
        login = self::login(setting, &mut reader.problems);
    }
    if let Given::Is(Login::Anonymous) = login {
        return login;
    }
    let keys = if environment.is_empty() { file } else { environment };
    match key_set(Reader::new(keys), AWS_KEYS, &mut reader.problems) {
        Given::Unset => login,
        keys => keys,
    }
}

/// `anonymous`, or a map of keys.
pub(super) fn login(setting: Setting, problems: &mut Vec<Problem>) -> Given<Login> {
    let Setting { spot, value, .. } = setting;
    const REMEDY: &str = "write 'anonymous', or access_key_id and secret_access_key";
    let fault = match value.value {
        Value::Text(text) if text == "anonymous" => return Given::Is(Login::Anonymous),
        Value::Map(entries) => {
            let keys = fields(&spot, entries, &CREDENTIALS_KEYS, problems);
            match key_set(Reader::new(keys), CREDENTIALS_KEYS, problems) {
                Given::Unset => Fault::new("has no keys", REMEDY),
                keys => return keys,
            }
        }
        Value::Text(_) => Fault::new("is neither 'anonymous' nor a map", REMEDY),
        Value::List(_) => Fault::new("is a list", REMEDY),
        Value::Null => no_value(),
    };
    problems.push(spot.problem(fault));
    Given::Wrong
}

/// Reads an access key id, a secret and a token that belong together.
fn key_set(
    mut keys: Reader,
    [id, secret, token]: [&'static str; 3],
    problems: &mut Vec<Problem>,
) -> Given<Login> {
    let (id_spot, secret_spot, token_spot) = (keys.spot(id), keys.spot(secret), keys.spot(token));
    let alone = |spot: Spot, missing: &str| {
        spot.problem(Fault::new(format!("{missing} is missing beside it"), "set it, or neither"))
    };
    match (id_spot, secret_spot, token_spot) {
        (None, None, None) => return Given::Unset,
        (Some(_), Some(_), _) => {}
        (Some(spot), None, _) => keys.problems.push(alone(spot, secret)),
        (None, Some(spot), _) => keys.problems.push(alone(spot, id)),
        (None, None, Some(spot)) => {
            keys.problems.push(alone(spot, &format!("{id} with {secret}")));
        }
    }
    let read = (keys.value(id, access_key_id), keys.value(secret, secret_key));
    let session_token = keys.value(token, session_token);
    let complete = keys.problems.is_empty();
    problems.append(&mut keys.problems);
    match read {
        (Some(access_key_id), Some(secret_access_key)) if complete => {
            Given::Is(Login::Keys(Arc::new(Credentials {
                access_key_id,
                secret_access_key,
                session_token,
            })))
        }
        _ => Given::Wrong,
    }
}

/// An access key id stands between slashes and commas in a signature's header.
fn access_key_id(text: &str) -> Result<String, Fault> {
    visible(text, |byte| byte != b'/' && byte != b',' && byte != b'=')
}

fn session_token(text: &str) -> Result<String, Fault> {
    visible(text, |_| true)
}

/// A secret is never sent, so any text will do; spaces around it come from copying.
fn secret_key(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(no_value());
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(unfit());
    }
    Ok(text.to_owned())
}

fn visible(text: &str, allowed: fn(u8) -> bool) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(no_value());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && allowed(byte)) {
        return Err(unfit());
    }
    Ok(text.to_owned())
}

fn unfit() -> Fault {
    Fault::new("contains a space or a character that cannot belong to it", "copy it once more")
}
