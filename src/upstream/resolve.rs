//! Names to addresses, off the core threads.
//!
//! A core that waits for a name server stalls every connection on it. The side thread resolves
//! each origin's name, again when its DNS records expire, and publishes what it finds; cores only
//! read. Names are asked for in the DNS, whose answers say how long they hold (after `/etc/hosts`,
//! as hickory does); names that only the C library knows, by `nsswitch.conf`, are looked up there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

use crate::sys::background::Background;
use crate::upstream::Origin;
use crate::upstream::named::Named;

/// How long addresses are used that came without a time to live.
const PERIOD: Duration = Duration::from_secs(30);

/// Shortest and longest time until a name is looked up again, whatever its records say. S3's own
/// hold for a few seconds.
const PERIODS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How long the first addresses are waited for before the server starts without them.
const START_TIMEOUT: Duration = Duration::from_secs(3);

/// An origin and the addresses it has at the moment.
pub struct ResolvedOrigin {
    /// The origin.
    pub origin: Arc<Origin>,
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// Addresses that idle connections may be kept to; at least those above.
    kept: ArcSwap<Vec<SocketAddr>>,
    /// How often they have changed.
    changes: AtomicU64,
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
            failing: AtomicBool::new(false),
            wanted: Notify::new(),
        }
    }

    /// The addresses at the moment; empty while the name cannot be resolved.
    pub fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// How often the addresses changed that idle connections may be kept to.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether an idle connection to an address may be kept: the name stands for it, or did so a
    /// moment ago.
    pub fn may_keep(&self, address: SocketAddr) -> bool {
        self.kept.load().contains(&address)
    }

    /// Asks for the name to be looked up soon, since no address could be connected to.
    pub fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// Whether the name was looked up already, with whatever result.
    pub fn is_answered(&self) -> bool {
        !self.addresses.load().is_empty() || self.failing.load(Ordering::Relaxed)
    }

    /// Looks the name up and answers with how long that holds. Keeps the last good addresses
    /// when that fails; says so once per change.
    async fn resolve(&self, named: &mut Named) -> Duration {
        let Origin { host, port, .. } = &*self.origin;
        match look_up(host).await {
            Ok((ips, period)) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    log::info!("endpoint {host}: the name resolves again");
                }
                let addresses: Vec<_> =
                    ips.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect();
                let kept = named.answer(&addresses, Instant::now());
                if **self.addresses.load() != addresses {
                    self.addresses.store(Arc::new(addresses));
                }
                if **self.kept.load() != kept {
                    self.kept.store(Arc::new(kept));
                    self.changes.fetch_add(1, Ordering::Release);
                }
                period.clamp(PERIODS.0, PERIODS.1)
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    log::warn!("endpoint {host}: the name cannot be resolved: {error}");
                }
                PERIODS.0
            }
        }
    }

    /// Looks the name up, and again whenever that does not hold any more.
    async fn keep(self: Arc<Self>) {
        let mut named = Named::default();
        loop {
            let period = self.resolve(&mut named).await;
            let until = tokio::time::Instant::now() + period;
            // A burst of failed connections is one question.
            sleep(PERIODS.0).await;
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.wanted.notified() => {}
            }
        }
    }
}

/// Addresses of a name and how long they hold.
async fn look_up(host: &str) -> io::Result<(Vec<IpAddr>, Duration)> {
    // Made anew each time: it costs two small files, and it sees when they change.
    let dns = async {
        let mut builder = TokioResolver::builder_tokio().ok()?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let found = builder.build().ok()?.lookup_ip(host).await.ok()?;
        let ips: Vec<_> = found.iter().collect();
        let holds = found.valid_until().saturating_duration_since(Instant::now());
        (!ips.is_empty()).then_some((ips, holds))
    };
    if let Some(found) = dns.await {
        return Ok(found);
    }
    let ips: Vec<_> = tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect();
    match ips.is_empty() {
        false => Ok((ips, PERIOD)),
        true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
    }
}

/// All origins that any core has asked for.
#[derive(Clone)]
pub struct Resolver {
    background: Background,
    known: Arc<Mutex<Vec<Arc<ResolvedOrigin>>>>,
}

impl Resolver {
    /// Resolves names on the side thread.
    pub fn new(background: Background) -> Resolver {
        Resolver { background, known: Arc::default() }
    }

    /// An origin's addresses from now on; where it is new its name is being looked up.
    pub fn origin(&self, origin: &Arc<Origin>) -> Arc<ResolvedOrigin> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(|known| known.origin == *origin) {
            return Arc::clone(found);
        }
        let resolved = Arc::new(ResolvedOrigin::new(Arc::clone(origin)));
        known.push(Arc::clone(&resolved));
        if !resolved.is_answered() {
            self.background.spawn(Arc::clone(&resolved).keep());
        }
        resolved
    }

    /// The same for all origins that are known at start-up, waiting a moment for their addresses.
    pub fn start(&self, origins: &[Arc<Origin>]) {
        let resolved: Vec<_> = origins.iter().map(|origin| self.origin(origin)).collect();
        let deadline = Instant::now() + START_TIMEOUT;
        while !resolved.iter().all(|one| one.is_answered()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_name_has_addresses_at_start_and_the_same_ones_for_whoever_asks() {
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
    fn a_name_that_nobody_knows_has_no_addresses() {
        let (resolver, origin) = resolver_of("no-such-host.invalid");
        resolver.start(std::slice::from_ref(&origin));
        let resolved = resolver.origin(&origin);
        assert!(resolved.addresses().is_empty() && resolved.failing.load(Ordering::Relaxed));
    }
}
