//! The trusted certificate authorities.

use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{RootCertStore, SupportedProtocolVersion};

use crate::transport::error_text::describe;
use crate::transport::verifier::Verifier;

/// TLS sessions that one worker keeps for resumption, each a server's name with its newest tickets.
const SESSIONS: usize = 64;

/// The settings of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Certificates that are trusted in addition to the system's (`ca_file`).
    pub certificates: Vec<CertificateDer<'static>>,
}

/// The trusted certificate authorities cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system has no certificates and no file was named.
    #[error(
        "HTTPS needs certificates of trusted authorities, and this system has none: install \
         ca-certificates, or name a file in 'ca_file'"
    )]
    NoRoots,
    /// The TLS library refuses its own defaults, or certificates that it has accepted before.
    #[error("TLS cannot be set up: {}", describe(.0))]
    Tls(#[from] rustls::Error),
}

/// The trusted authorities, shared by all workers.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
    named: Arc<[CertificateDer<'static>]>,
}

/// TLS 1.3 and 1.2 (RFC 8446, RFC 5246); rustls has nothing older.
const VERSIONS: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

impl Trust {
    /// Reads the system's certificates (or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name) and
    /// those of the configuration.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub(crate) fn load(settings: &Settings) -> Result<Trust, TrustError> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            log::warn!("a certificate of the system cannot be read: {error}");
        }
        // Certificates that cannot be an authority's are ignored, as in every TLS library.
        roots.add_parsable_certificates(system.certs);
        for certificate in &settings.certificates {
            roots.add(certificate.clone())?;
        }
        if roots.is_empty() {
            return Err(TrustError::NoRoots);
        }
        let named = settings.certificates.clone().into();
        Ok(Trust { roots: Arc::new(roots), named })
    }

    /// The TLS configuration of one worker, with its own session cache.
    ///
    /// # Errors
    /// [`TrustError::Tls`].
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::clone(&self.roots);
        let by_authority = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let by_authority = by_authority.build().map_err(|_| TrustError::NoRoots)?;
        let verifier = Verifier::new(by_authority, Arc::clone(&self.named));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Arc::new(config))
    }
}

/// The certificates of a PEM file's text.
///
/// # Errors
/// The fault of the file, to be written after its name.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let number = found.len() + 1;
        let broken = || format!("is damaged: certificate {number} in it cannot be read");
        let certificate = certificate.map_err(|_| broken())?;
        RootCertStore::empty().add(certificate.clone()).map_err(|_| broken())?;
        found.push(certificate);
    }
    match found.is_empty() {
        true => Err("holds no certificate".to_owned()),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_or_with_a_broken_one_is_described() {
        for (pem, what) in [
            ("", "holds no certificate"),
            ("no certificate\n", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", "is damaged: certif"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is damaged"),
        ] {
            let said = certificates(pem.as_bytes()).unwrap_err();
            assert!(said.contains(what), "{pem:?}: {said}");
        }
    }
}
