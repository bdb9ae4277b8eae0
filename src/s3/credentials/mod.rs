//! The credentials that requests are signed with: the AWS SDK's type, which erases secrets from
//! memory when it is dropped, keeps them out of `Debug`, and has an expiry.

pub(crate) mod current;
pub(crate) mod handle;
pub(crate) mod login;
pub(crate) mod refresh;

pub use aws_credential_types::Credentials;

use crate::limits;

/// Credentials without an expiry, from the configuration.
pub fn fixed(
    access_key_id: impl Into<String>,
    secret_access_key: impl Into<String>,
    session_token: Option<String>,
) -> Credentials {
    Credentials::new(access_key_id, secret_access_key, session_token, None, "configuration")
}

/// Whether a byte may be part of an access key id, which slashes and commas delimit in the
/// `Authorization` field (AWS S3 API Reference, "Signature Calculations for the Authorization
/// Header").
pub(crate) fn is_access_key_id_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"/,=".contains(&byte)
}

/// Whether id and token can be sent in header fields. A service or a program could otherwise return
/// a value that ends the field and starts another.
fn are_valid_fields(credentials: &Credentials) -> bool {
    let id = credentials.access_key_id();
    let token = credentials.session_token().unwrap_or_default();
    !id.is_empty()
        && !credentials.secret_access_key().is_empty()
        && id.bytes().all(is_access_key_id_byte)
        && token.bytes().all(|byte| byte.is_ascii_graphic())
        && id.len() + token.len() <= limits::CREDENTIALS_BYTES
}

/// Whether both have the same keys and token, ignoring expiry and provider.
fn have_same_keys(a: &Credentials, b: &Credentials) -> bool {
    a.access_key_id() == b.access_key_id()
        && a.secret_access_key() == b.secret_access_key()
        && a.session_token() == b.session_token()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_break_a_request_head_are_rejected() {
        let fits =
            |id: &str, token: &str| are_valid_fields(&fixed(id, "SECRET", Some(token.to_owned())));
        assert!(fits("ASIAEXAMPLE", "FwoGZXIvYXdzEBc/+="));
        for (id, token) in [
            ("", "t"),
            ("ASIA/x", "t"),
            ("ASIA\r\nHost: x", "t"),
            ("ASIA", "t\r\nRange: bytes=0-"),
            ("ASIA", "to ken"),
            ("ASIA", &"t".repeat(limits::CREDENTIALS_BYTES)),
        ] {
            assert!(!fits(id, token), "{id:?}");
        }
        assert!(!are_valid_fields(&fixed("ASIA", "", None)));
    }

    #[test]
    fn debug_shows_the_id_and_no_secret() {
        let shown = format!("{:?}", fixed("AKIAEXAMPLE", "hush", Some("hush".to_owned())));
        assert!(shown.contains("AKIAEXAMPLE") && !shown.contains("hush"), "{shown}");
    }
}
