//! Describes errors of the AWS libraries in one line without secrets.
//!
//! These errors are chains, and some of the links quote their input: the body of a response, an
//! authorization token, the output of a program. Such links are left out, and anything that looks
//! like a key is replaced.

use std::error::Error;

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_types::error::ErrorMetadata;
use http::header::InvalidHeaderValue;

use crate::logging::is_unprintable;
use crate::transport::error_text::describe as describe_tls;

/// Longest reason, in characters.
const REASON_CHARACTERS: usize = 300;

/// Most links of a chain that are read.
const LINKS: usize = 16;

/// A word of key characters with at least this length may be a key. AWS's secret access keys have
/// 40 characters.
const KEY_CHARACTERS: usize = 40;

/// The error in one line.
pub(super) fn describe(error: &CredentialsError) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut link: Option<&(dyn Error + 'static)> = Some(error);
    for _ in 0..LINKS {
        let Some(error) = link else { break };
        if let Some(text) = text(error)
            && !texts.iter().any(|earlier| earlier.contains(&text))
        {
            texts.push(text);
        }
        link = error.source();
    }
    if texts.is_empty() {
        texts.push("no credentials found".to_owned());
    }
    line(&texts.join(": "))
}

/// The text of one link; `None` if it is empty of content or may hold a secret.
fn text(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(ImdsError::ErrorResponse(context)) = error.downcast_ref::<ImdsError>() {
        // The error's own text contains the body of the response.
        return Some(format!("it responded {}", context.response().status().as_u16()));
    }
    if let Some(metadata) = error.downcast_ref::<ErrorMetadata>() {
        let code = metadata.code().unwrap_or("an error without a code");
        return Some(match metadata.message() {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        });
    }
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls.or(error.downcast_ref::<rustls::Error>()) {
        // These services are verified against the system's certificate authorities alone.
        return Some(describe_tls(tls).replace("'ca_file'", "SSL_CERT_FILE"));
    }
    // The text of an error about a header's value begins with the value.
    let is_about_a_value = error.source().is_some_and(<dyn Error>::is::<InvalidHeaderValue>);
    if is_about_a_value {
        return Some(
            "the authorization token contains a line break or another control character".to_owned(),
        );
    }
    if let Some(error) = error.downcast_ref::<CredentialsError>() {
        return match error {
            CredentialsError::ProviderTimedOut(_) => Some("no response in time".to_owned()),
            // The others have no content of their own.
            _ => None,
        };
    }
    let text = error.to_string();
    // The standard error of a credential_process may hold secrets; operators can run it by hand.
    let text = text.split(" Stderr:").next().unwrap_or_default();
    let is_empty_of_content = matches!(text, "service error" | "dispatch failure" | "io error")
        || text.starts_with("unhandled error");
    (!is_empty_of_content).then(|| text.trim_end_matches(['.', ' ']).to_owned())
}

/// One short line without control characters and without anything that looks like a key.
fn line(text: &str) -> String {
    let clean = |c: char| if is_unprintable(c) { ' ' } else { c };
    let text: String = text.chars().map(clean).take(REASON_CHARACTERS).collect();
    text.split_whitespace()
        .map(|word| if is_key(word) { "…" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a word may be a secret or a token. Paths start with a slash; ARNs and URLs contain
/// colons.
fn is_key(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '/');
    let is_key_character = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    bare.len() >= KEY_CHARACTERS && !bare.starts_with('/') && bare.chars().all(is_key_character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_sts_is_shown_without_the_errors_that_wrap_it() {
        let metadata = ErrorMetadata::builder()
            .code("AccessDenied")
            .message("User: arn:aws:iam::111122223333:user/x may not sts:AssumeRole")
            .build();
        let error = CredentialsError::provider_error(metadata);
        assert_eq!(
            describe(&error),
            "AccessDenied: User: arn:aws:iam::111122223333:user/x may not sts:AssumeRole"
        );
    }

    #[test]
    fn a_tls_error_is_described_for_operators() {
        let fault = rustls::Error::from(rustls::CertificateError::UnknownIssuer);
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, fault);
        let said = describe(&CredentialsError::provider_error(error));
        assert!(said.contains("SSL_CERT_FILE") && !said.contains("UnknownIssuer"), "{said}");
    }

    #[test]
    fn the_value_of_a_header_is_not_shown() {
        #[derive(Debug, thiserror::Error)]
        #[error("`{0}` could not be used")]
        struct Invalid(&'static str, #[source] InvalidHeaderValue);
        let wrong = http::HeaderValue::from_str("hush\n").unwrap_err();
        let said = describe(&CredentialsError::invalid_configuration(Invalid("hush\n", wrong)));
        assert!(said.contains("line break") && !said.contains("hush"), "{said}");
    }

    #[test]
    fn output_of_programs_and_anything_like_a_key_is_left_out() {
        let key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        for text in [
            format!("exited with code 1. Stderr: hush {key}"),
            format!("exited with code 1, {key}"),
            format!("exited with code 1:\n\"{key}\""),
        ] {
            let said = describe(&CredentialsError::provider_error(text));
            assert!(said.starts_with("exited with code 1"), "{said}");
            assert!(!said.contains(key) && !said.contains("hush") && !said.contains('\n'));
        }
        let path = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token: No such file";
        assert_eq!(describe(&CredentialsError::provider_error(path)), path);
    }

    #[test]
    fn an_error_without_text_still_has_a_reason() {
        assert_eq!(describe(&CredentialsError::not_loaded_no_source()), "no credentials found");
        let long = describe(&CredentialsError::unhandled("x ".repeat(1000)));
        assert!(long.chars().count() <= REASON_CHARACTERS);
    }
}
