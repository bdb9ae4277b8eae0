//! The credentials that requests are signed with.

pub mod handle;
pub mod login;
pub mod refresh;

use std::fmt;

use crate::limits;

/// One set of AWS credentials. `Debug` shows the access key id, never a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`, present with temporary credentials.
    pub session_token: Option<String>,
}

/// Whether a byte may be part of an access key id, which stands between slashes and commas in the
/// `Authorization` field (AWS S3 API Reference, "Signature Calculations for the Authorization
/// Header").
pub fn is_of_access_key_id(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"/,=".contains(&byte)
}

impl Credentials {
    /// Whether id and token may stand in a request's head. What a service or a program gave out
    /// could otherwise end a header field and begin another.
    pub fn fit_a_head(&self) -> bool {
        let token = self.session_token.as_deref().unwrap_or_default();
        let id = &self.access_key_id;
        !id.is_empty()
            && !self.secret_access_key.is_empty()
            && id.bytes().all(is_of_access_key_id)
            && token.bytes().all(|byte| byte.is_ascii_graphic())
            && id.len() + token.len() <= limits::CREDENTIALS_BYTES
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_head_does_not_fit() {
        let set = |id: &str, token: &str| Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: "SECRET".to_owned(),
            session_token: Some(token.to_owned()),
        };
        assert!(set("ASIAEXAMPLE", "FwoGZXIvYXdzEBc/+=").fit_a_head());
        for (id, token) in [
            ("", "t"),
            ("ASIA/x", "t"),
            ("ASIA\r\nHost: x", "t"),
            ("ASIA", "t\r\nRange: bytes=0-"),
            ("ASIA", "to ken"),
            ("ASIA", &"t".repeat(limits::CREDENTIALS_BYTES)),
        ] {
            assert!(!set(id, token).fit_a_head(), "{id:?}");
        }
    }
}
