//! Names to addresses, off the core threads.
//!
//! `getaddrinfo(3)` blocks, and a core that blocks stalls every connection on it. One side thread
//! resolves all origins, again and again, and publishes what it finds; cores only read.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::upstream::Origin;

/// Time between two rounds, in the absence of the DNS records' own.
const PERIOD: Duration = Duration::from_secs(30);

/// Least time between two rounds, however often cores ask.
const LEAST_PERIOD: Duration = Duration::from_secs(1);

/// An origin and the addresses it has at the moment.
pub struct ResolvedOrigin {
    /// The origin.
    pub origin: Arc<Origin>,
    addresses: ArcSwap<Vec<SocketAddr>>,
    failing: AtomicBool,
}

impl ResolvedOrigin {
    /// The addresses at the moment; empty while the name cannot be resolved.
    pub fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    fn new(origin: Arc<Origin>) -> ResolvedOrigin {
        let addresses = ArcSwap::default();
        ResolvedOrigin { origin, addresses, failing: AtomicBool::new(false) }
    }

    fn is_literal(&self) -> bool {
        self.origin.host.parse::<IpAddr>().is_ok()
    }

    /// Keeps the last good addresses when the name server fails; says so once per change.
    fn resolve(&self) {
        let Origin { host, port } = &*self.origin;
        match (host.as_str(), *port).to_socket_addrs().map(Vec::from_iter) {
            Ok(addresses) if !addresses.is_empty() => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    log::info!("endpoint {host}: the name resolves again");
                }
                if **self.addresses.load() != addresses {
                    self.addresses.store(Arc::new(addresses));
                }
            }
            failed => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let reason = failed.err().map_or("no address".to_owned(), |e| e.to_string());
                    log::warn!("endpoint {host}: the name cannot be resolved: {reason}");
                }
            }
        }
    }
}

/// The side thread's handle.
#[derive(Clone)]
pub struct Resolver {
    thread: Option<Thread>,
}

impl Resolver {
    /// Resolves each origin once, then keeps doing so on a thread of its own where one of them
    /// is a name.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn start(origins: &[Arc<Origin>]) -> std::io::Result<(Resolver, Vec<Arc<ResolvedOrigin>>)> {
        let resolved: Vec<_> = origins
            .iter()
            .map(|origin| Arc::new(ResolvedOrigin::new(Arc::clone(origin))))
            .collect();
        resolved.iter().for_each(|origin| origin.resolve());
        let names: Vec<_> =
            resolved.iter().filter(|origin| !origin.is_literal()).cloned().collect();
        if names.is_empty() {
            return Ok((Resolver { thread: None }, resolved));
        }
        let thread = thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            loop {
                thread::sleep(LEAST_PERIOD);
                thread::park_timeout(PERIOD - LEAST_PERIOD);
                names.iter().for_each(|origin| origin.resolve());
            }
        })?;
        Ok((Resolver { thread: Some(thread.thread().clone()) }, resolved))
    }

    /// Asks for a round soon, since no address could be connected to.
    pub fn refresh(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(host: &str) -> (Resolver, Arc<Vec<SocketAddr>>) {
        let origin = Arc::new(Origin { host: host.to_owned(), port: 9000 });
        let (resolver, resolved) = Resolver::start(&[origin]).unwrap();
        (resolver, resolved[0].addresses())
    }

    #[test]
    fn a_literal_address_needs_no_thread() {
        let (resolver, addresses) = resolve("::1");
        assert_eq!(*addresses, ["[::1]:9000".parse().unwrap()]);
        assert!(resolver.thread.is_none());
    }

    #[test]
    fn a_name_has_addresses_at_once_and_a_thread_that_refreshes_them() {
        let (resolver, addresses) = resolve("localhost");
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(!addresses.is_empty() && resolver.thread.is_some());
        resolver.refresh();
    }
}
