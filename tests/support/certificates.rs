//! A certificate authority for tests, and certificates signed by it.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;

/// The authority, with its certificate in a file.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        // With one name for two authorities, the error would be a wrong signature instead.
        let name = format!("authority {:x?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("a new file");
        Authority { issuer, directory }
    }

    /// The value of `ca_file:`.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The TLS configuration of a server for `host`, with these versions of TLS.
    pub(crate) fn server(
        &self,
        host: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        self.server_with(params(host), versions)
    }

    /// The same with an expired certificate.
    pub(crate) fn expired_server(&self, host: &str) -> Arc<ServerConfig> {
        let mut params = params(host);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.server_with(params, rustls::ALL_VERSIONS)
    }

    /// The same with a certificate that is not valid yet.
    pub(crate) fn future_server(&self, host: &str) -> Arc<ServerConfig> {
        let mut params = params(host);
        params.not_before = date_time_ymd(2120, 1, 1);
        params.not_after = date_time_ymd(2121, 1, 1);
        self.server_with(params, rustls::ALL_VERSIONS)
    }

    /// The same, and the server's own certificate as PEM.
    pub(crate) fn server_and_certificate(&self, host: &str) -> (Arc<ServerConfig>, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(host).signed_by(&key, &self.issuer).expect("a certificate");
        (server_config(&certificate, &key, rustls::ALL_VERSIONS), certificate.pem())
    }

    /// The same for a foreign server: certificate and key as PEM files.
    pub(crate) fn server_files(&self, host: &str) -> [PathBuf; 2] {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(host).signed_by(&key, &self.issuer).expect("a certificate");
        let texts = [("server.pem", certificate.pem()), ("server.key", key.serialize_pem())];
        texts.map(|(name, text)| {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).expect("a writable directory");
            path
        })
    }

    fn server_with(
        &self,
        params: CertificateParams,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        server_config(&certificate, &key, versions)
    }
}

fn params(host: &str) -> CertificateParams {
    CertificateParams::new(vec![host.to_owned()]).expect("a host's name")
}

/// A server's self-signed certificate.
pub(crate) struct SelfSigned {
    params: CertificateParams,
}

impl SelfSigned {
    /// As `openssl req -x509` makes it for `host`; `is_authority` chooses between `CA:TRUE`, its
    /// default, and `CA:FALSE`.
    pub(crate) fn new(host: &str, is_authority: bool) -> SelfSigned {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a host's name");
        params.is_ca = match is_authority {
            true => IsCa::Ca(BasicConstraints::Unconstrained),
            false => IsCa::ExplicitNoCa,
        };
        SelfSigned { params }
    }

    /// An expired one.
    pub(crate) fn expired(mut self) -> SelfSigned {
        self.params.not_before = date_time_ymd(2001, 1, 1);
        self.params.not_after = date_time_ymd(2002, 1, 1);
        self
    }

    /// The TLS configuration of a server with it, and the certificate as PEM.
    pub(crate) fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> (Arc<ServerConfig>, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = self.params.self_signed(&key).expect("a certificate");
        (server_config(&certificate, &key, versions), certificate.pem())
    }
}

fn server_config(
    certificate: &rcgen::Certificate,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions that the provider has")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.expect("a key that fits its certificate"))
}
