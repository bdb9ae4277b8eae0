//! Resolves host names, off the workers' threads.
//!
//! A worker that waited for a name server would stall all its connections. Therefore the background
//! thread resolves names for all workers, every few seconds while they are in
//! use, and workers only read the addresses that it publishes.
//!
//! Names are resolved by getaddrinfo(3), which honours `/etc/hosts`, `nsswitch.conf` and local
//! caches. It does not report the TTL of records. S3's are valid for a few seconds, so a
//! lookup every few seconds follows a name about as fast as its records allow.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout, timeout_at};

use crate::sys::background::Background;
use crate::upstream::Origin;
use crate::upstream::lookup_history::LookupHistory;

/// Time between two lookups of a name that is in use.
const PERIOD: Duration = Duration::from_secs(5);

/// The same for a name without connections since the last lookup.
const UNUSED_PERIOD: Duration = Duration::from_secs(60);

/// Least time between two lookups of a name, and time until a failed one is repeated.
const MIN_PERIOD: Duration = Duration::from_secs(1);

/// A lookup that takes longer is reported as failed. It cannot be cancelled, so it is awaited
/// nevertheless: a name has one lookup in flight.
const OVERDUE: Duration = Duration::from_secs(10);

/// Lookups in flight at once. Each occupies a thread, for as long as a name server is silent.
const MAX_LOOKUPS: usize = 16;

/// How long the first addresses are waited for before the server starts without them.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// An origin and its current addresses.
pub(crate) struct ResolvedOrigin {
    /// The origin.
    pub origin: Arc<Origin>,
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// Addresses to which idle connections may be kept; at least those above.
    kept: ArcSwap<Vec<SocketAddr>>,
    /// How often `kept` has changed.
    changes: AtomicU64,
    /// Whether a connection was opened or checked since the last lookup.
    in_use: AtomicBool,
    failing: AtomicBool,
    wanted: Notify,
}

impl ResolvedOrigin {
    fn new(origin: Arc<Origin>) -> ResolvedOrigin {
        let literal = origin.host.parse::<IpAddr>().ok();
        let addresses = literal.map(|ip| SocketAddr::new(ip, origin.port));
        let addresses = Arc::new(addresses.into_iter().collect::<Vec<_>>());
        ResolvedOrigin {
            kept: ArcSwap::new(Arc::clone(&addresses)),
            addresses: ArcSwap::new(addresses),
            changes: AtomicU64::new(0),
            origin,
            in_use: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            wanted: Notify::new(),
        }
    }

    /// The current addresses; empty while the name cannot be resolved.
    pub(crate) fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// How often the addresses changed to which idle connections may be kept. It is called to open
    /// or check a connection, so it counts as use of the name.
    pub(crate) fn changes(&self) -> u64 {
        // Read first: workers share this cache line, and most calls find it set.
        if !self.in_use.load(Ordering::Relaxed) {
            self.in_use.store(true, Ordering::Relaxed);
        }
        self.changes.load(Ordering::Acquire)
    }

    /// Whether an idle connection to an address may be kept: the name has this address, or had it a
    /// moment ago.
    pub(crate) fn may_keep(&self, address: SocketAddr) -> bool {
        self.kept.load().contains(&address)
    }

    /// Asks for a lookup soon, since no address could be connected to.
    pub(crate) fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// Whether a lookup has ended, successful or not.
    pub(crate) fn is_resolved(&self) -> bool {
        !self.addresses.load().is_empty() || self.failing.load(Ordering::Relaxed)
    }

    /// Looks the name up now; `false` if that failed, and the last good addresses are kept.
    async fn resolve(&self, lookups: &Semaphore, history: &mut LookupHistory) -> bool {
        match self.look_up(lookups).await {
            Ok(addresses) => {
                self.publish(addresses, history);
                true
            }
            Err(error) => {
                self.note_failure(&error.to_string());
                false
            }
        }
    }

    async fn look_up(&self, lookups: &Semaphore) -> io::Result<Vec<SocketAddr>> {
        // The semaphore is never closed.
        let _permit = lookups.acquire().await.map_err(io::Error::other)?;
        let Origin { host, port, .. } = &*self.origin;
        if is_localhost(host) {
            let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            return Ok(loopback.map(|ip| SocketAddr::new(ip, *port)).into());
        }
        let mut lookup = pin!(tokio::net::lookup_host((host.as_str(), *port)));
        let found = loop {
            match timeout(OVERDUE, &mut lookup).await {
                Ok(found) => break found?,
                Err(_) => self.note_failure(&format!("no response in {} s", OVERDUE.as_secs())),
            }
        };
        let addresses: Vec<_> = found.collect();
        match addresses.is_empty() {
            false => Ok(addresses),
            true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
        }
    }

    fn publish(&self, addresses: Vec<SocketAddr>, history: &mut LookupHistory) {
        if self.failing.swap(false, Ordering::Relaxed) {
            log::info!("endpoint {}: the name resolves again", self.origin.host);
        }
        let kept = history.update(&addresses, Instant::now());
        if **self.addresses.load() != addresses {
            self.addresses.store(Arc::new(addresses));
        }
        if **self.kept.load() != kept {
            self.kept.store(Arc::new(kept));
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Logs the first of several failures in a row.
    fn note_failure(&self, reason: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            log::warn!("endpoint {}: cannot resolve the name: {reason}", self.origin.host);
        }
    }

    /// Waits after a failed lookup; `false` if the name was not used meanwhile.
    async fn retry(&self) -> bool {
        sleep(MIN_PERIOD).await;
        self.in_use.swap(false, Ordering::Relaxed)
    }

    /// Waits after a successful lookup until the next one is due; `false` if the name was not used
    /// meanwhile.
    async fn next_lookup(&self) -> bool {
        let looked_up = tokio::time::Instant::now();
        // A burst of failed connections causes one lookup.
        sleep(MIN_PERIOD).await;
        let mut due = looked_up + PERIOD;
        while due <= looked_up + UNUSED_PERIOD {
            let is_wanted = timeout_at(due, self.wanted.notified()).await.is_ok();
            if self.in_use.swap(false, Ordering::Relaxed) || is_wanted {
                return true;
            }
            due += PERIOD;
        }
        false
    }
}

/// All origins that workers have asked for.
#[derive(Clone)]
pub(crate) struct Resolver {
    background: Background,
    origins: Arc<Mutex<Vec<Arc<ResolvedOrigin>>>>,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    /// A resolver whose lookups run on the background thread.
    pub(crate) fn new(background: Background) -> Resolver {
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Resolver { background, origins: Arc::default(), lookups }
    }

    /// An origin whose addresses are kept up to date while it is referenced. A new one starts a
    /// lookup.
    pub(crate) fn origin(&self, origin: &Arc<Origin>) -> Arc<ResolvedOrigin> {
        let mut origins = self.lock_origins();
        if let Some(found) = origins.iter().find(|known| known.origin == *origin) {
            return Arc::clone(found);
        }
        let resolved = Arc::new(ResolvedOrigin::new(Arc::clone(origin)));
        origins.push(Arc::clone(&resolved));
        if !resolved.is_resolved() {
            self.background.spawn(self.clone().keep_resolved(Arc::clone(&resolved)));
        }
        resolved
    }

    /// Begins to resolve all `origins` and waits a moment for their addresses.
    pub(crate) fn start(&self, origins: &[Arc<Origin>]) {
        let resolved: Vec<_> = origins.iter().map(|origin| self.origin(origin)).collect();
        let deadline = Instant::now() + START_TIMEOUT;
        while !resolved.iter().all(|one| one.is_resolved()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    async fn keep_resolved(self, resolved: Arc<ResolvedOrigin>) {
        let mut history = LookupHistory::default();
        loop {
            let is_in_use = match resolved.resolve(&self.lookups, &mut history).await {
                true => resolved.next_lookup().await,
                false => resolved.retry().await,
            };
            if !is_in_use && self.forget_unheld(&resolved) {
                return;
            }
        }
    }

    /// Removes an origin that no worker references any more; `false` if one does.
    fn forget_unheld(&self, resolved: &Arc<ResolvedOrigin>) -> bool {
        let mut origins = self.lock_origins();
        // The list and the task that keeps it resolved.
        let is_unheld = Arc::strong_count(resolved) <= 2;
        if is_unheld {
            origins.retain(|known| !Arc::ptr_eq(known, resolved));
        }
        is_unheld
    }

    fn lock_origins(&self) -> MutexGuard<'_, Vec<Arc<ResolvedOrigin>>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a name always means this machine (RFC 6761 §6.3). getaddrinfo(3) finds only names in
/// `/etc/hosts`, which usually lacks the `bucket.localhost` of a test server.
fn is_localhost(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_localhost_are_this_machine() {
        for host in ["localhost", "LocalHost.", "lab.localhost"] {
            assert!(is_localhost(host), "{host}");
        }
        for host in ["", "localhost.example.org", "mylocalhost", "127.0.0.1"] {
            assert!(!is_localhost(host), "{host}");
        }
    }

    fn resolver_of(host: &str) -> (Resolver, Arc<Origin>) {
        let origin = Origin { tls: false, host: host.to_owned(), port: 9000 };
        (Resolver::new(Background::start().unwrap()), Arc::new(origin))
    }

    #[test]
    fn a_literal_address_is_known_without_looking_it_up() {
        let (resolver, origin) = resolver_of("::1");
        let resolved = resolver.origin(&origin);
        let address = "[::1]:9000".parse().unwrap();
        assert_eq!(*resolved.addresses(), [address]);
        assert!(resolved.may_keep(address));
    }

    #[test]
    fn a_name_has_addresses_at_start_and_is_resolved_once_for_all_callers() {
        let (resolver, origin) = resolver_of("localhost");
        resolver.start(std::slice::from_ref(&origin));
        let resolved = resolver.origin(&origin);
        let addresses = resolved.addresses();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(Arc::ptr_eq(&resolved, &resolver.origin(&origin)));
        resolved.refresh();
    }

    #[test]
    fn an_origin_is_removed_with_its_last_reference() {
        let (resolver, origin) = resolver_of("::1");
        let (held, key) = (resolver.origin(&origin), Arc::clone(&origin));
        // The task that keeps a name resolved holds it as well.
        let task = Arc::clone(&held);
        assert!(!resolver.forget_unheld(&task));
        drop(held);
        assert!(resolver.forget_unheld(&task));
        assert!(!Arc::ptr_eq(&task, &resolver.origin(&key)));
    }

    #[test]
    fn a_name_that_does_not_exist_has_no_addresses() {
        let (resolver, origin) = resolver_of("no-such-host.invalid");
        resolver.start(std::slice::from_ref(&origin));
        let resolved = resolver.origin(&origin);
        assert!(resolved.addresses().is_empty() && resolved.failing.load(Ordering::Relaxed));
    }
}
