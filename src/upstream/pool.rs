//! The connections of one worker to S3: bounded in number, and kept for reuse.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::sys::stream::Ahead;
use crate::upstream::connection::{Connection, Connector};
use crate::upstream::error::ConnectError;
use crate::upstream::permits::{Permit, Queue};
use crate::upstream::proxy::{HttpProxy, Proxies, Route};
use crate::upstream::resolve::{ResolvedOrigin, Resolver};
use crate::upstream::{Origin, OriginId, Settings};

/// The connections of one worker to all its origins.
pub struct Pool {
    settings: Settings,
    connector: Connector,
    resolver: Resolver,
    proxies: Arc<Proxies>,
    /// The servers that connections are opened to: the origins, or the proxies in front of them.
    /// Indexed by [`OriginId`], as is `routes`.
    origins: RefCell<Vec<Arc<ResolvedOrigin>>>,
    routes: RefCell<Vec<Rc<Route>>>,
    queue: Rc<Queue>,
    /// Idle connections by [`shelf`], the longest idle first.
    idle: RefCell<Vec<VecDeque<Idle>>>,
    metrics: Arc<Metrics>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Why a request gets no connection.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
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
pub struct Lease {
    /// In a box from the start: it is handed on several times in each request.
    connection: Option<Box<Connection>>,
    origin: OriginId,
    pool: Rc<Pool>,
    _permit: Permit,
}

impl Pool {
    /// An empty pool.
    pub fn new(
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
            origins: RefCell::default(),
            routes: RefCell::default(),
            idle: RefCell::default(),
            metrics,
        })
    }

    /// The id of an origin in this pool.
    pub fn origin(&self, origin: &Arc<Origin>) -> OriginId {
        let mut origins = self.origins.borrow_mut();
        let mut routes = self.routes.borrow_mut();
        let known = routes.iter().position(|known| known.origin == *origin);
        OriginId(known.unwrap_or_else(|| {
            let via = self.proxies.of(origin).map(Arc::clone);
            let server = via.as_ref().map_or(origin, |proxy| &proxy.origin);
            origins.push(self.resolver.origin(server));
            routes.push(Rc::new(Route { origin: Arc::clone(origin), via }));
            self.idle.borrow_mut().resize_with(ORIGIN_SHELVES * origins.len(), VecDeque::new);
            origins.len() - 1
        }))
    }

    /// The proxy that forwards requests to an origin; `None` if they reach it directly or through a
    /// tunnel.
    pub fn forwarder(&self, origin: OriginId) -> Option<Arc<HttpProxy>> {
        let routes = self.routes.borrow();
        let Route { origin, via } = &*routes[origin.0];
        via.as_ref().filter(|_| !origin.tls).map(Arc::clone)
    }

    /// Permission to use a connection; waits if all are in use.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`].
    pub async fn permit(&self) -> Result<Permit, PoolError> {
        let permit = self.queue.acquire(self.settings.wait_timeout).await;
        permit.map_err(|_| PoolError::Exhausted(self.settings.max_connections))
    }

    /// The connection that became idle last and that S3 has not closed. A request whose client may
    /// leave after a few bytes cannot use one on which S3 may send far ahead; any request can use the
    /// other kind.
    pub fn reuse(
        self: &Rc<Self>,
        permit: Permit,
        origin: OriginId,
        ahead: Ahead,
    ) -> Result<Lease, Permit> {
        loop {
            let mut idle = self.idle.borrow_mut();
            let mut found = idle[shelf(origin, ahead)].pop_back();
            if found.is_none() && ahead == Ahead::Freely {
                found = idle[shelf(origin, Ahead::Little)].pop_back();
            }
            drop(idle);
            let Some(Idle { mut connection, .. }) = found else { return Err(permit) };
            self.metrics.s3_connections_idle.decrement();
            if self.is_current(origin, &mut connection) && connection.stream.is_quiet() {
                let (connection, pool) = (Some(connection), Rc::clone(self));
                return Ok(Lease { connection, origin, pool, _permit: permit });
            }
        }
    }

    /// Opens a new connection.
    ///
    /// # Errors
    /// [`PoolError::Connect`].
    pub async fn connect(
        self: &Rc<Self>,
        permit: Permit,
        origin: OriginId,
        ahead: Ahead,
    ) -> Result<Lease, PoolError> {
        if self.open_connections() > self.settings.max_connections {
            self.close_one_idle();
        }
        let resolved = Arc::clone(&self.origins.borrow()[origin.0]);
        let route = Rc::clone(&self.routes.borrow()[origin.0]);
        let mut tries = DESCRIPTOR_TRIES;
        let connected = loop {
            let connected = self.connector.connect(&resolved, &route, ahead).await;
            tries -= 1;
            match connected {
                Err(ConnectError::OutOfDescriptors(_))
                    if tries > 0
                        && (self.close_one_idle() || self.connector.give_up_idle_client()) =>
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
        Ok(Lease { connection, origin, pool: Rc::clone(self), _permit: permit })
    }

    /// Closes connections that have been idle for too long, and those to addresses that the origin's
    /// name no longer has.
    pub fn sweep(&self, now: Instant) {
        let timeout = self.settings.idle_timeout;
        for (shelf, idle) in self.idle.borrow_mut().iter_mut().enumerate() {
            idle.retain_mut(|Idle { connection, since }| {
                let is_kept = now.duration_since(*since) < timeout
                    && self.is_current(OriginId(shelf / ORIGIN_SHELVES), connection);
                if !is_kept {
                    self.metrics.s3_connections_idle.decrement();
                }
                is_kept
            });
        }
    }

    /// Connections that are open, busy or idle.
    pub fn open_connections(&self) -> usize {
        self.busy_connections() + self.metrics.s3_connections_idle.get()
    }

    /// Connections in use or being opened.
    pub fn busy_connections(&self) -> usize {
        self.metrics.s3_connections_busy.get()
    }

    /// Requests that wait for a connection.
    pub fn waiting_requests(&self) -> usize {
        self.metrics.s3_requests_waiting.get()
    }

    fn is_current(&self, origin: OriginId, connection: &mut Connection) -> bool {
        connection.is_current(&self.origins.borrow()[origin.0])
    }

    /// Closes an idle connection to make room for another; `false` if none is idle.
    pub fn close_one_idle(&self) -> bool {
        let closed = self.idle.borrow_mut().iter_mut().find_map(VecDeque::pop_front);
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
pub const CLOSING_TIME: Duration = Duration::from_millis(1);

/// Lists of idle connections per origin, by how far S3 may send ahead on them.
const ORIGIN_SHELVES: usize = 2;

/// The index of an origin's list of idle connections on which S3 may send so far ahead.
fn shelf(origin: OriginId, ahead: Ahead) -> usize {
    ORIGIN_SHELVES * origin.0 + usize::from(ahead == Ahead::Freely)
}

impl Lease {
    /// Keeps the connection for the next request. Call it only when the response was read to its end
    /// and S3 keeps the connection open.
    pub fn put_back(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.pool.metrics.s3_connections_idle.get() >= self.pool.settings.max_idle_connections
            || !self.pool.is_current(self.origin, &mut connection)
        {
            return;
        }
        let shelf = shelf(self.origin, connection.stream.socket().receives_ahead());
        self.pool.idle.borrow_mut()[shelf].push_back(Idle { connection, since: Instant::now() });
        self.pool.metrics.s3_connections_idle.increment();
    }
}

const HELD: &str = "a lease holds its connection until it is dropped or put back";

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect(HELD)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect(HELD)
    }
}
