//! Checks after all keys are read: keys that depend on others, and the files that settings name.

use rustls::pki_types::CertificateDer;

use crate::config::diagnostic::{Diagnostic, Fault, quoted};
use crate::config::files::Files;
use crate::config::key::Marks;
use crate::config::settings::TopLevel;
use crate::transport::trust;

/// Largest `ca_file`, in bytes. All authorities that browsers trust take a quarter of a MiB.
const CA_FILE_BYTES: usize = 16 << 20;

/// Loads the certificates, and reports conflicts and unusable files.
pub(super) fn finish(
    top: &mut TopLevel,
    marks: &Marks,
    files: Files,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut report = |key: &str, fault: Fault| {
        diagnostics.extend(marks.location(key).map(|location| location.diagnostic(fault)));
    };
    if let Some(path) = &top.ca_file {
        match certificates(path, files) {
            Ok(certificates) => top.settings.trust.certificates = certificates,
            Err(fault) => report("ca_file", fault),
        }
    }
    if let Some(path) = &top.settings.log_file
        && let Err(error) = (files.try_append)(path)
    {
        let path = quoted(&path.to_string_lossy());
        let problem = format!("{path} cannot be written to: {error}");
        report("log_file", Fault::new(problem, "name a file in a directory that exists"));
    }
    let metadata = &mut top.settings.metadata;
    if metadata.negative_ttl > metadata.ttl {
        let fault = Fault::new("is longer than metadata_ttl", "write the same or less");
        report("metadata_negative_ttl", fault);
        metadata.negative_ttl = metadata.ttl;
    }
    let upstream = &mut top.settings.upstream;
    upstream.max_idle_connections = upstream.max_idle_connections.min(upstream.max_connections);
}

fn certificates(
    path: &std::path::Path,
    files: Files,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let path_shown = quoted(&path.to_string_lossy());
    let certificates = match (files.read)(path, CA_FILE_BYTES) {
        Ok(bytes) if bytes.len() > CA_FILE_BYTES => {
            Err(format!("{path_shown} is larger than {} MiB", CA_FILE_BYTES >> 20))
        }
        Ok(bytes) => trust::certificates(&bytes).map_err(|what| format!("{path_shown} {what}")),
        Err(error) => Err(format!("{path_shown} cannot be read: {error}")),
    };
    let help = "name a PEM file with the certificates of your authority";
    certificates.map_err(|problem| Fault::new(problem, help))
}
