//! Whose certificates are believed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{RootCertStore, SupportedProtocolVersion};

/// Sessions that one core remembers to resume, each a server's name with its newest tickets.
const SESSIONS: usize = 64;

/// What an operator may set about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A PEM file with certificates of authorities that are believed besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Why there is nobody to believe.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read or holds no certificate.
    #[error("ca_file {path}: {reason}; name a PEM file with the certificates of your authority")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no certificates and no file was named.
    #[error(
        "HTTPS needs the certificates of the authorities to be believed, and this system has none: \
         install ca-certificates, or name a file in 'ca_file'"
    )]
    NoRoots,
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The authorities that are believed, shared by all cores.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
}

/// TLS 1.3 and 1.2 (RFC 8446, RFC 5246); rustls has nothing older.
const VERSIONS: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

impl Trust {
    /// Reads the system's certificates (or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name) and
    /// those of `ca_file`.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn load(settings: &Settings) -> Result<Trust, TrustError> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            log::warn!("a certificate of the system cannot be read: {error}");
        }
        // What is no authority's certificate is left out, as every TLS library does.
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = &settings.ca_file {
            add_file(&mut roots, path)?;
        }
        if roots.is_empty() {
            return Err(TrustError::NoRoots);
        }
        Ok(Trust { roots: Arc::new(roots) })
    }

    /// How one core speaks TLS, with sessions of its own to resume.
    ///
    /// # Errors
    /// [`TrustError::Tls`].
    pub fn client(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(VERSIONS)?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = builder.with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Arc::new(config))
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TrustError> {
    let problem = |reason: String| TrustError::File { path: path.display().to_string(), reason };
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| problem(words(error)))?;
    let mut found = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| problem(words(error)))?;
        roots.add(certificate).map_err(|error| problem(error.to_string()))?;
        found += 1;
    }
    if found == 0 {
        return Err(problem("holds no certificate".to_owned()));
    }
    Ok(())
}

/// The system's own words for what it could not do.
fn words(error: rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        error => format!("is not PEM: {error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_holds_no_certificate_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let said = || {
            let settings = Settings { ca_file: Some(path.clone()) };
            Trust::load(&settings).unwrap_err().to_string()
        };
        assert!(said().contains("ca.pem: No such file"), "{}", said());
        std::fs::write(&path, "no certificate\n").unwrap();
        assert!(said().contains("holds no certificate; name a PEM file"), "{}", said());
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n")
            .unwrap();
        assert!(said().contains("is not PEM"), "{}", said());
    }
}
