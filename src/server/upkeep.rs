//! The background work that the live settings need: refreshing credentials and resolving names.

use std::sync::Arc;
use std::time::Duration;

use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::credentials::refresh;
use crate::server::live::Live;
use crate::server::worker::Shared;
use crate::sys::background::{Background, Task};
use crate::transport::trust::{Trust, TrustError};
use crate::upstream::Origin;

/// Longest wait for the first credentials. If they take longer, serving starts without them.
const FIRST_CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5);

/// The running background work. Only refreshers must be stopped: the resolver forgets names that no
/// worker uses.
pub(super) struct Upkeep {
    background: Background,
    refreshers: Vec<(Arc<CredentialsHandle>, Task)>,
}

impl Upkeep {
    pub(super) fn new(background: Background) -> Upkeep {
        Upkeep { background, refreshers: Vec::new() }
    }

    /// Starts the work that `live` needs. Waits up to a few seconds for the first results, which
    /// the first requests need.
    pub(super) fn start(&mut self, live: &Live, shared: &Shared) -> Result<(), TrustError> {
        let origins = origins(live);
        if origins.iter().any(|origin| origin.tls) && shared.trust.get().is_none() {
            let trust = Trust::load(&shared.settings.trust)?;
            // Reports an invalid TLS setup now rather than at the first connection.
            trust.client()?;
            let _ = shared.trust.set(trust);
        }
        warn_of_exposed_keys(live);
        let mut sources = sources(live);
        sources.retain(|source| {
            !self.refreshers.iter().any(|(running, _)| Arc::ptr_eq(running, source))
        });
        let tasks = refresh::start(&self.background, &sources, FIRST_CREDENTIALS_TIMEOUT);
        self.refreshers.extend(sources.into_iter().zip(tasks));
        // With an HTTP proxy, the proxy resolves the origin's name.
        let server = |origin: &Arc<Origin>| {
            let proxy = shared.settings.proxies.of(origin);
            Arc::clone(proxy.map_or(origin, |proxy| &proxy.origin))
        };
        shared.resolver.start(&origins.iter().map(server).collect::<Vec<_>>());
        Ok(())
    }

    /// Stops the refresh of credentials that `live` does not use.
    pub(super) fn stop_unused(&mut self, live: &Live) {
        let used = sources(live);
        self.refreshers
            .retain(|(running, _)| used.iter().any(|source| Arc::ptr_eq(running, source)));
    }
}

/// The origins of the mounts, each once.
fn origins(live: &Live) -> Vec<Arc<Origin>> {
    let mut origins = Vec::new();
    for mount in &live.mounts {
        let origin = Arc::clone(&mount.bucket.location().origin);
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    origins
}

/// The credentials that must be refreshed, each once.
fn sources(live: &Live) -> Vec<Arc<CredentialsHandle>> {
    let mut sources: Vec<Arc<CredentialsHandle>> = Vec::new();
    for source in live.mounts.iter().filter_map(|mount| mount.bucket.credentials.as_ref()) {
        let is_listed = sources.iter().any(|listed| Arc::ptr_eq(listed, source));
        if source.needs_refreshing() && !is_listed {
            sources.push(Arc::clone(source));
        }
    }
    sources
}

/// Warns of customer keys sent over plain HTTP. Not an error, since the network may be trusted.
fn warn_of_exposed_keys(live: &Live) {
    for mount in live.mounts.iter().filter(|mount| mount.bucket.exposes_customer_key()) {
        log::warn!(
            "{}: the encryption key ('sse_customer_key_file') is sent to {} unencrypted, \
             which AWS rejects; use an https:// endpoint",
            mount.path,
            mount.bucket.location().origin
        );
    }
}
