//! Access keys as they are written down. Nothing in this file ever repeats a value.

use crate::config::credentials::Given;
use crate::config::problem::{Fault, Problem, Spot};
use crate::config::reader::{Reader, no_value};
use crate::s3::credentials::{self, Credentials, is_of_access_key_id};

/// Reads an access key id, a secret and a token that belong together.
pub(super) fn key_set(
    keys: &mut Reader,
    [id, secret, token]: [&'static str; 3],
    problems: &mut Vec<Problem>,
) -> Given<Credentials> {
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
            Given::Is(credentials::fixed(access_key_id, secret_access_key, session_token))
        }
        _ => Given::Wrong,
    }
}

fn access_key_id(text: &str) -> Result<String, Fault> {
    of_bytes(text, is_of_access_key_id)
}

fn session_token(text: &str) -> Result<String, Fault> {
    of_bytes(text, |byte| byte.is_ascii_graphic())
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

fn of_bytes(text: &str, allowed: fn(u8) -> bool) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(no_value());
    }
    if !text.bytes().all(allowed) {
        return Err(unfit());
    }
    Ok(text.to_owned())
}

fn unfit() -> Fault {
    Fault::new("contains a space or a character that cannot belong to it", "copy it once more")
}
