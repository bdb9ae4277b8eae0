//! Describes TLS errors for operators, with a remedy. rustls' own texts are for programmers and are
//! not shown.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::transport::verifier::pki_error;

/// Most names of a certificate that are listed.
const NAMES: usize = 3;

/// Describes an error, as a clause about the server.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(fault) => of_certificate(fault, error),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS there; is the port right, or is http:// meant?".to_owned()
        }
        Error::PeerIncompatible(fault) => of_incompatibility(fault).to_owned(),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::NoCertificatesPresented => "it presented no certificate".to_owned(),
        Error::UnsupportedNameType => "its name is not valid in a certificate".to_owned(),
        Error::DecryptError | Error::PeerSentOversizedRecord => {
            "its data was damaged on the way".to_owned()
        }
        Error::FailedToGetCurrentTime => "this machine's clock cannot be read".to_owned(),
        Error::FailedToGetRandomBytes => "this machine provides no random numbers".to_owned(),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_) => {
            "it violates the TLS protocol; is there a proxy or a firewall in between?".to_owned()
        }
        _ => "TLS with it failed".to_owned(),
    }
}

fn of_certificate(fault: &CertificateError, error: &Error) -> String {
    use CertificateError as Fault;
    let text = match fault {
        Fault::UnknownIssuer => {
            "its certificate is not from a trusted authority; name the file with the authority's \
             certificate in 'ca_file'"
        }
        Fault::Expired | Fault::ExpiredContext { .. } => {
            "its certificate has expired (if not, this machine's clock is wrong)"
        }
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "its certificate is not valid yet (if it is, this machine's clock is wrong)"
        }
        Fault::NotValidForNameContext { presented, .. } => return of_names(presented),
        Fault::NotValidForName => "its certificate is for another name",
        Fault::Revoked => "its certificate has been revoked",
        Fault::BadEncoding => "its certificate cannot be read",
        Fault::BadSignature => {
            "its certificate or its handshake has a wrong signature: the certificate is not from the \
             authority that it names, or the key does not belong to the certificate"
        }
        Fault::UnsupportedSignatureAlgorithmContext { .. }
        | Fault::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => WEAK,
        Fault::UnhandledCriticalExtension => "its certificate has an unknown critical extension",
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            "its certificate is not for servers (its extended key usage lacks serverAuth)"
        }
        _ => return of_pki_error(error).to_owned(),
    };
    text.to_owned()
}

const WEAK: &str = "its certificate has a weak signature; use RSA with 2048 bits or more, or ECDSA, and \
                    SHA-256";

fn of_pki_error(error: &Error) -> &'static str {
    match pki_error(error) {
        Some(webpki::Error::CaUsedAsEndEntity) => {
            "its certificate is an authority's, which a server's must not be; put that very \
             certificate into 'ca_file', or make one with -addext basicConstraints=critical,CA:FALSE"
        }
        Some(webpki::Error::EndEntityUsedAsCa) => {
            "its certificate was signed with one that is not an authority's (it lacks CA:TRUE)"
        }
        Some(webpki::Error::UnsupportedCertVersion) => {
            "its certificate is not of X.509 version 3; make one with -addext \
             subjectAltName=DNS:its.name"
        }
        Some(webpki::Error::NameConstraintViolation) => {
            "its certificate is for a name that its authority may not sign for"
        }
        Some(webpki::Error::PathLenConstraintViolated) => {
            "its certificate has more authorities above it than the first of them allows"
        }
        // A key that is too short is found here too.
        Some(
            webpki::Error::InvalidSignatureForPublicKey | webpki::Error::SignatureAlgorithmMismatch,
        ) => WEAK,
        _ => "its certificate cannot be trusted",
    }
}

/// The names come from the server: only characters of host names are repeated.
fn of_names(presented: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-*_:".contains(c);
    // They are written as `DnsName("a.example.org")` or `IpAddress(10.0.0.1)`.
    let bare = |text: &String| {
        let name = text.split_once('(').map_or(text.as_str(), |(_, name)| name);
        name.chars().filter(|&c| plain(c)).take(80).collect::<String>()
    };
    let mut names: Vec<String> = presented.iter().take(NAMES).map(bare).collect();
    names.retain(|name| !name.is_empty());
    if names.is_empty() {
        return "its certificate is for another name: it has no subjectAltName, which alone counts"
            .to_owned();
    }
    let more = if presented.len() > names.len() { ", …" } else { "" };
    format!("its certificate is for another name: {}{more}", names.join(", "))
}

fn of_incompatibility(fault: &PeerIncompatible) -> &'static str {
    match fault {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => OLD,
        PeerIncompatible::ExtendedMasterSecretExtensionRequired => {
            "it lacks the extended master secret of TLS 1.2 (RFC 7627)"
        }
        _ => "it and this program have no cipher suite in common",
    }
}

const OLD: &str = "it does not speak TLS 1.2 or 1.3";

fn of_alert(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::ProtocolVersion => OLD,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "it ends the handshake: it and this program have no cipher suite in common, or it \
             wants a client certificate"
        }
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => "it wants a client certificate, which is not supported",
        AlertDescription::UnrecognisedName => "it does not know the host name of the request",
        AlertDescription::AccessDenied => "it denies access",
        _ => return format!("it ends the connection with TLS alert {}", u8::from(alert)),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{OtherError, PeerMisbehaved};

    use super::*;

    #[test]
    fn no_text_of_a_library_is_repeated() {
        let other =
            |error: webpki::Error| CertificateError::Other(OtherError(Arc::new(error))).into();
        let errors: Vec<Error> = vec![
            CertificateError::UnknownIssuer.into(),
            CertificateError::Expired.into(),
            CertificateError::NotValidYet.into(),
            CertificateError::Revoked.into(),
            CertificateError::BadEncoding.into(),
            CertificateError::BadSignature.into(),
            CertificateError::InvalidPurpose.into(),
            CertificateError::UnknownRevocationStatus.into(),
            CertificateError::UnhandledCriticalExtension.into(),
            CertificateError::ApplicationVerificationFailure.into(),
            other(webpki::Error::CaUsedAsEndEntity),
            other(webpki::Error::UnsupportedCertVersion),
            other(webpki::Error::NameConstraintViolation),
            other(webpki::Error::BadDer),
            Error::AlertReceived(AlertDescription::HandshakeFailure),
            Error::AlertReceived(AlertDescription::InternalError),
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
            PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into(),
            InvalidMessage::TrailingData("x").into(),
            Error::DecryptError,
            Error::General("hush".to_owned()),
        ];
        for error in errors {
            let said = describe(&error);
            let raw = error.to_string();
            assert!(!said.contains(&raw) && !said.contains("hush"), "{said}");
            // Names of Rust's variants are written LikeThis.
            let is_camel = |word: &str| {
                word.chars().skip(1).any(|c| c.is_ascii_uppercase())
                    && word.chars().any(|c| c.is_ascii_lowercase())
                    && !["serverAuth", "subjectAltName", "subjectAltName=DNS", "basicConstraints"]
                        .iter()
                        .any(|known| word.starts_with(known))
            };
            assert!(!said.split([' ', ',', '(']).any(is_camel), "{said}");
        }
    }

    #[test]
    fn the_names_of_a_certificate_are_repeated_as_far_as_they_are_names() {
        let said = |names: &[&str]| {
            of_names(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        };
        let prefix = "its certificate is for another name: ";
        assert_eq!(said(&["DnsName(\"minio.example.org\")"]), format!("{prefix}minio.example.org"));
        assert_eq!(said(&["IpAddress(10.0.0.1)"]), format!("{prefix}10.0.0.1"));
        assert_eq!(said(&["a.b", "c.d", "e", "f"]), format!("{prefix}a.b, c.d, e, …"));
        assert_eq!(said(&["DnsName(\"a\\n\u{1b}b\")"]), format!("{prefix}anb"));
        assert!(said(&[]).contains("no subjectAltName"));
    }
}
