//! The connections of one worker to S3: bounded in number, and kept for reuse.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::sys::stream::Ahead;
use crate::upstream::connection::{Connector, UpstreamConnection};
use crate::upstream::error::ConnectError;
use crate::upstream::permits::{Permit, Queue};
use crate::upstream::proxy::{HttpProxy, Proxies, Route};
use crate::upstream::resolve::{ResolvedOrigin, Resolver};
use crate::upstream::{Origin, Settings};

/// The connections of one worker to all its origins.
pub(crate) struct Pool {
    settings: Settings,
    connector: Connector,
    resolver: Resolver,
    proxies: Arc<Proxies>,
    destinations: RefCell<Vec<Rc<Destination>>>,
    queue: Rc<Queue>,
    metrics: Arc<Metrics>,
}

/// A server that connections are opened to: an origin, or the proxy on the way to it.
pub(crate) struct Destination {
    resolved: Arc<ResolvedOrigin>,
    route: Route,
    /// Idle connections, the longest idle first: those on which S3 may send little ahead, then the
    /// others.
    idle: RefCell<[VecDeque<Idle>; 2]>,
}

struct Idle {
    connection: Box<UpstreamConnection>,
    since: Instant,
}

/// A request got no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// All connections are in use, and none was released in time.
    #[error("all {0} connections to S3 of this worker are busy")]
    Exhausted(usize),
    /// No connection could be opened.
    #[error("cannot connect to {origin}: {error}")]
    Connect {
        /// The server.
        origin: String,
        /// Why.
        error: ConnectError,
    },
}

/// A connection in use. Dropping it closes the connection; [`put_back`](Self::put_back) keeps it.
pub(crate) struct Lease {
    /// In a box from the start: it is handed on several times in each request.
    connection: Option<Box<UpstreamConnection>>,
    destination: Rc<Destination>,
    pool: Rc<Pool>,
    _permit: Permit,
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(
        settings: Settings,
        connector: Connector,
        resolver: Resolver,
        proxies: Arc<Proxies>,
        metrics: Arc<Metrics>,
    ) -> Rc<Pool> {
        Rc::new(Pool {
            queue: Queue::new(settings.max_connections, settings.max_waiting, Arc::clone(&metrics)),
            settings,
            connector,
            resolver,
            proxies,
            destinations: RefCell::default(),
            metrics,
        })
    }

    /// The destination of an origin's connections. [`sweep`](Self::sweep) removes it after the last
    /// other reference is dropped and its idle connections are closed.
    pub(crate) fn destination(&self, origin: &Arc<Origin>) -> Rc<Destination> {
        let mut destinations = self.destinations.borrow_mut();
        if let Some(found) = destinations.iter().find(|one| one.route.origin == *origin) {
            return Rc::clone(found);
        }
        let via = self.proxies.of(origin).map(Arc::clone);
        let server = via.as_ref().map_or(origin, |proxy| &proxy.origin);
        let destination = Rc::new(Destination {
            resolved: self.resolver.origin(server),
            route: Route { origin: Arc::clone(origin), via },
            idle: RefCell::default(),
        });
        destinations.push(Rc::clone(&destination));
        destination
    }

    /// Permission to use a connection; waits if all are in use.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`].
    pub(crate) async fn permit(&self) -> Result<Permit, PoolError> {
        let permit = self.queue.acquire(self.settings.wait_timeout).await;
        permit.map_err(|_| PoolError::Exhausted(self.settings.max_connections))
    }

    /// The connection that became idle last and that S3 has not closed. A request whose client may
    /// leave after a few bytes cannot use one on which S3 may send far ahead; any request can use
    /// the other kind.
    pub(crate) fn reuse(
        self: &Rc<Self>,
        permit: Permit,
        destination: &Rc<Destination>,
        ahead: Ahead,
    ) -> Result<Lease, Permit> {
        loop {
            let mut idle = destination.idle.borrow_mut();
            let mut found = idle[idle_list(ahead)].pop_back();
            if found.is_none() && ahead == Ahead::Freely {
                found = idle[idle_list(Ahead::Little)].pop_back();
            }
            drop(idle);
            let Some(Idle { mut connection, .. }) = found else { return Err(permit) };
            self.metrics.s3_connections_idle.decrement();
            if connection.is_current(&destination.resolved) && connection.stream.is_quiet() {
                let (connection, pool) = (Some(connection), Rc::clone(self));
                let destination = Rc::clone(destination);
                return Ok(Lease { connection, destination, pool, _permit: permit });
            }
        }
    }

    /// Opens a new connection.
    ///
    /// # Errors
    /// [`PoolError::Connect`].
    pub(crate) async fn connect(
        self: &Rc<Self>,
        permit: Permit,
        destination: &Rc<Destination>,
        ahead: Ahead,
    ) -> Result<Lease, PoolError> {
        if self.open_connections() > self.settings.max_connections {
            self.close_one_idle();
        }
        let Destination { resolved, route, .. } = &**destination;
        let mut tries = DESCRIPTOR_TRIES;
        let connected = loop {
            let connected = self.connector.connect(resolved, route, ahead).await;
            tries -= 1;
            match connected {
                Err(ConnectError::OutOfDescriptors(_))
                    if tries > 0
                        && (self.close_one_idle() || self.connector.close_idle_client()) =>
                {
                    // The socket is closed by its task, which has to run first.
                    monoio::time::sleep(CLOSING_TIME).await;
                }
                connected => break connected,
            }
        };
        let connection =
            connected.map_err(|error| PoolError::Connect { origin: route.to_string(), error })?;
        let connection = Some(Box::new(connection));
        let destination = Rc::clone(destination);
        Ok(Lease { connection, destination, pool: Rc::clone(self), _permit: permit })
    }

    /// Closes connections that have been idle for too long or whose address is no longer one of the
    /// name's, and removes unused destinations.
    pub(crate) fn sweep(&self, now: Instant) {
        let timeout = self.settings.idle_timeout;
        self.destinations.borrow_mut().retain(|destination| {
            let mut is_empty = true;
            for idle in destination.idle.borrow_mut().iter_mut() {
                idle.retain_mut(|Idle { connection, since }| {
                    let is_kept = now.duration_since(*since) < timeout
                        && connection.is_current(&destination.resolved);
                    if !is_kept {
                        self.metrics.s3_connections_idle.decrement();
                    }
                    is_kept
                });
                is_empty &= idle.is_empty();
            }
            Rc::strong_count(destination) > 1 || !is_empty
        });
    }

    /// Connections that are open, busy or idle.
    pub(crate) fn open_connections(&self) -> usize {
        self.busy_connections() + self.metrics.s3_connections_idle.get()
    }

    /// Connections in use or being opened.
    pub(crate) fn busy_connections(&self) -> usize {
        self.metrics.s3_connections_busy.get()
    }

    /// Requests that wait for a connection.
    pub(crate) fn waiting_requests(&self) -> usize {
        self.metrics.s3_requests_waiting.get()
    }

    /// Makes room for another connection; `false` if none is idle.
    pub(crate) fn close_one_idle(&self) -> bool {
        let close_one = |destination: &Rc<Destination>| {
            destination.idle.borrow_mut().iter_mut().find_map(VecDeque::pop_front)
        };
        let closed = self.destinations.borrow().iter().find_map(close_one);
        if closed.is_some() {
            self.metrics.s3_connections_idle.decrement();
        }
        closed.is_some()
    }
}

/// Attempts to open a connection when the process is out of file descriptors. A new client may take
/// the descriptor that was released for it.
const DESCRIPTOR_TRIES: usize = 8;

/// Time for a released connection to be closed.
pub(crate) const CLOSING_TIME: Duration = Duration::from_millis(1);

/// The index into [`Destination::idle`], by how far S3 may send ahead.
fn idle_list(ahead: Ahead) -> usize {
    usize::from(ahead == Ahead::Freely)
}

impl Destination {
    /// The proxy that requests are written for; none if their bytes reach the origin as they are.
    pub(crate) fn forwarder(&self) -> Option<&HttpProxy> {
        let Route { origin, via } = &self.route;
        via.as_deref().filter(|_| !origin.tls)
    }
}

impl Lease {
    /// Keeps the connection for the next request. Call it only when the response was read to its
    /// end and S3 keeps the connection open.
    pub(crate) fn put_back(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.pool.metrics.s3_connections_idle.get() >= self.pool.settings.max_idle_connections
            || !connection.is_current(&self.destination.resolved)
        {
            return;
        }
        let idle_list = idle_list(connection.stream.socket().receives_ahead());
        self.destination.idle.borrow_mut()[idle_list]
            .push_back(Idle { connection, since: Instant::now() });
        self.pool.metrics.s3_connections_idle.increment();
    }
}

const HELD: &str = "a lease holds its connection until it is dropped or put back";

impl Deref for Lease {
    type Target = UpstreamConnection;

    fn deref(&self) -> &UpstreamConnection {
        self.connection.as_ref().expect(HELD)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut UpstreamConnection {
        self.connection.as_mut().expect(HELD)
    }
}
