//! Why credentials could not be loaded, in words that may be logged.
//!
//! Errors of the AWS libraries come as chains, and some of their links show what they were given:
//! the body of an answer, an authorization token, what a program wrote. Those are left out here,
//! and so is whatever looks like a key.

use std::error::Error;

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_types::error::ErrorMetadata;
use http::header::InvalidHeaderValue;

use crate::logging::is_disturbing;
use crate::transport::error_text::words as tls_words;

/// Longest reason, in characters.
const REASON_CHARACTERS: usize = 300;

/// Most links of a chain that are looked at.
const LINKS: usize = 16;

/// From this length on a word of key characters is taken for a key; AWS's secrets have 40.
const KEY_CHARACTERS: usize = 40;

/// The reason in one line.
pub(super) fn words(error: &CredentialsError) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut link: Option<&(dyn Error + 'static)> = Some(error);
    for _ in 0..LINKS {
        let Some(error) = link else { break };
        if let Some(text) = text(error)
            && !said.iter().any(|known| known.contains(&text))
        {
            said.push(text);
        }
        link = error.source();
    }
    if said.is_empty() {
        said.push("there are none".to_owned());
    }
    line(&said.join(": "))
}

/// What one link of a chain adds; `None` where that is nothing, or nothing to be shown.
fn text(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(ImdsError::ErrorResponse(context)) = error.downcast_ref::<ImdsError>() {
        // Its own words hold the answer's body.
        return Some(format!("it answered {}", context.response().status().as_u16()));
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
        // These services are asked with the system's authorities.
        return Some(tls_words(tls).replace("'ca_file'", "SSL_CERT_FILE"));
    }
    // The words of an error about a header's value begin with the value.
    let is_about_a_value = error.source().is_some_and(|source| source.is::<InvalidHeaderValue>());
    if is_about_a_value {
        return Some("the authorization token holds a line break or the like".to_owned());
    }
    if let Some(error) = error.downcast_ref::<CredentialsError>() {
        return match error {
            CredentialsError::ProviderTimedOut(_) => Some("no answer in time".to_owned()),
            // All others say no more than that there was an error.
            _ => None,
        };
    }
    let text = error.to_string();
    // What a credential_process writes to its standard error is for whoever runs it by hand.
    let text = text.split(" Stderr:").next().unwrap_or_default();
    let says_nothing = matches!(text, "service error" | "dispatch failure" | "io error")
        || text.starts_with("unhandled error");
    (!says_nothing).then(|| text.trim_end_matches(['.', ' ']).to_owned())
}

/// One short line without control characters and without anything that looks like a key.
fn line(text: &str) -> String {
    let clean = |c: char| if is_disturbing(c) { ' ' } else { c };
    let text: String = text.chars().map(clean).take(REASON_CHARACTERS).collect();
    text.split_whitespace()
        .map(|word| if is_key(word) { "…" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a word may be a secret or a token. Paths start with a slash, ARNs and URLs hold colons.
fn is_key(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '/');
    let is_key_character = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    bare.len() >= KEY_CHARACTERS && !bare.starts_with('/') && bare.chars().all(is_key_character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sts_says_is_said_without_the_layers_around_it() {
        let metadata = ErrorMetadata::builder()
            .code("AccessDenied")
            .message("User: arn:aws:iam::111122223333:user/x may not sts:AssumeRole")
            .build();
        let error = CredentialsError::provider_error(metadata);
        assert_eq!(
            words(&error),
            "AccessDenied: User: arn:aws:iam::111122223333:user/x may not sts:AssumeRole"
        );
    }

    #[test]
    fn a_fault_of_tls_is_told_in_our_words() {
        let fault = rustls::Error::from(rustls::CertificateError::UnknownIssuer);
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, fault);
        let said = words(&CredentialsError::provider_error(error));
        assert!(said.contains("SSL_CERT_FILE") && !said.contains("UnknownIssuer"), "{said}");
    }

    #[test]
    fn the_value_of_a_header_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("`{0}` could not be used")]
        struct Invalid(&'static str, #[source] InvalidHeaderValue);
        let wrong = http::HeaderValue::from_str("hush\n").unwrap_err();
        let said = words(&CredentialsError::invalid_configuration(Invalid("hush\n", wrong)));
        assert!(said.contains("line break") && !said.contains("hush"), "{said}");
    }

    #[test]
    fn what_a_program_wrote_and_what_looks_like_a_key_is_left_out() {
        let key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        for text in [
            format!("exited with code 1. Stderr: hush {key}"),
            format!("exited with code 1, {key}"),
            format!("exited with code 1:\n\"{key}\""),
        ] {
            let said = words(&CredentialsError::provider_error(text));
            assert!(said.starts_with("exited with code 1"), "{said}");
            assert!(!said.contains(key) && !said.contains("hush") && !said.contains('\n'));
        }
        let path = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token: No such file";
        assert_eq!(words(&CredentialsError::provider_error(path)), path);
    }

    #[test]
    fn an_error_that_says_nothing_still_has_words() {
        assert_eq!(words(&CredentialsError::not_loaded_no_source()), "there are none");
        let long = words(&CredentialsError::unhandled("x ".repeat(1000)));
        assert!(long.chars().count() <= REASON_CHARACTERS);
    }
}
