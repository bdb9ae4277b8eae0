//! Verifies the certificate of a server.
//!
//! As in every TLS library, a certificate must chain to a trusted authority, be valid now, and
//! match the server's name. There is one addition: a certificate that is itself in `ca_file` needs
//! no authority. `openssl req -x509` makes self-signed certificates that are marked as an
//! authority's, which a server's must not be (RFC 5280 §4.2.1.9); curl and Python accept them if
//! they are named, and so do we. Their validity and their name are checked all the same.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// Verifies servers by trusted authorities and by named certificates.
#[derive(Debug)]
pub(super) struct Verifier {
    by_authority: Arc<WebPkiServerVerifier>,
    named: Arc<[CertificateDer<'static>]>,
}

impl Verifier {
    pub(super) fn new(
        by_authority: Arc<WebPkiServerVerifier>,
        named: Arc<[CertificateDer<'static>]>,
    ) -> Verifier {
        Verifier { by_authority, named }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_authority = &*self.by_authority;
        match by_authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            // webpki reports this after it has checked the validity, and before it would check the
            // name.
            Err(error) if lacks_an_authority(&error) && self.named.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Whether a certificate was rejected only for lack of a trusted issuer: it is marked as an
/// authority's own, or its issuer is unknown.
fn lacks_an_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
        || matches!(pki_error(error), Some(webpki::Error::CaUsedAsEndEntity))
}

/// A fault of a certificate for which rustls has no variant.
pub(super) fn pki_error(error: &Error) -> Option<&webpki::Error> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}
