//! Background work on behalf of the live settings: credentials are refreshed, names resolved.

use std::sync::Arc;
use std::time::Duration;

use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::credentials::refresh;
use crate::server::live::Live;
use crate::server::worker::Shared;
use crate::sys::background::{Background, Task};
use crate::transport::trust::{Trust, TrustError};
use crate::upstream::Origin;

/// Longest wait for the first credentials. Those that take longer come while serving.
const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(5);

/// The work that is going on. Names need no end: the resolver forgets those that no worker holds.
pub(super) struct Upkeep {
    background: Background,
    refreshers: Vec<(Arc<CredentialsHandle>, Task)>,
}

impl Upkeep {
    pub(super) fn new(background: Background) -> Upkeep {
        Upkeep { background, refreshers: Vec::new() }
    }

    /// Begins what `live` needs and waits a moment for first results, so that its first requests
    /// find them.
    pub(super) fn begin(&mut self, live: &Live, shared: &Shared) -> Result<(), TrustError> {
        let origins = origins(live);
        if origins.iter().any(|origin| origin.tls) && shared.trust.get().is_none() {
            let trust = Trust::load(&shared.settings.trust)?;
            // What cannot be set up is better known now than at the first connection.
            trust.client()?;
            let _ = shared.trust.set(trust);
        }
        warn_of_exposed_keys(live);
        let mut sources = sources(live);
        sources
            .retain(|source| !self.refreshers.iter().any(|(known, _)| Arc::ptr_eq(known, source)));
        let tasks = refresh::start(&self.background, &sources, CREDENTIALS_PATIENCE);
        self.refreshers.extend(sources.into_iter().zip(tasks));
        // Behind a proxy only the proxy's own name is resolved here.
        let server = |origin: &Arc<Origin>| {
            let proxy = shared.settings.proxies.of(origin);
            Arc::clone(proxy.map_or(origin, |proxy| &proxy.origin))
        };
        shared.resolver.start(&origins.iter().map(server).collect::<Vec<_>>());
        Ok(())
    }

    /// Ends the refreshing of credentials that `live` does not use.
    pub(super) fn end_all_but(&mut self, live: &Live) {
        let used = sources(live);
        self.refreshers.retain(|(known, _)| used.iter().any(|source| Arc::ptr_eq(known, source)));
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
        let is_known = sources.iter().any(|known| Arc::ptr_eq(known, source));
        if source.needs_refreshing() && !is_known {
            sources.push(Arc::clone(source));
        }
    }
    sources
}

/// The operator may know a network better than we do, so it is no error.
fn warn_of_exposed_keys(live: &Live) {
    for mount in live.mounts.iter().filter(|mount| mount.bucket.exposes_customer_key()) {
        log::warn!(
            "{}: its encryption key ('sse_customer_key_file') travels to {} unencrypted, \
             and AWS would refuse it; use an https:// endpoint",
            mount.path,
            mount.bucket.location().origin
        );
    }
}
