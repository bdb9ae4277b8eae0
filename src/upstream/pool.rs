//! The upstream connections of one core: counted, kept for reuse, and bounded.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys::stream::Ahead;
use crate::upstream::connection::{Connection, Connector};
use crate::upstream::error::ConnectError;
use crate::upstream::permits::{Permit, Queue};
use crate::upstream::proxy::{HttpProxy, Proxies, Route};
use crate::upstream::resolve::{ResolvedOrigin, Resolver};
use crate::upstream::{Origin, OriginId, Settings};

/// The connections of one core to all its origins.
pub struct Pool {
    settings: Settings,
    connector: Connector,
    resolver: Resolver,
    proxies: Arc<Proxies>,
    /// The servers that connections are opened to: the origins, or proxies on the way to them. An
    /// [`OriginId`] is a position in it.
    origins: RefCell<Vec<Arc<ResolvedOrigin>>>,
    /// What each of them leads to.
    routes: RefCell<Vec<Rc<Route>>>,
    queue: Rc<Queue>,
    /// Idle connections by [`shelf`], the longest idle first.
    idle: RefCell<Vec<VecDeque<Idle>>>,
    idle_count: Cell<usize>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// This core has as many connections as it may, and none became free in time.
    #[error("all {0} upstream connections of this core are busy")]
    Exhausted(usize),
    /// None could be opened.
    #[error("cannot connect to {origin}: {error}")]
    Connect {
        /// The server.
        origin: String,
        /// Why.
        error: ConnectError,
    },
}

/// A connection in use. Dropped, it is closed; [`put_back`](Self::put_back) keeps it.
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
    ) -> Rc<Pool> {
        Rc::new(Pool {
            queue: Queue::new(settings.max_connections, settings.max_waiting),
            settings,
            connector,
            resolver,
            proxies,
            origins: RefCell::default(),
            routes: RefCell::default(),
            idle: RefCell::default(),
            idle_count: Cell::new(0),
        })
    }

    /// The name of an origin in this pool.
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

    /// The proxy that requests for an origin are written for: it has none where their bytes reach
    /// the origin as they are.
    pub fn forwarder(&self, origin: OriginId) -> Option<Arc<HttpProxy>> {
        let routes = self.routes.borrow();
        let Route { origin, via } = &*routes[origin.0];
        via.as_ref().filter(|_| !origin.tls).map(Arc::clone)
    }

    /// The right to use a connection, waited for where all are in use.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`].
    pub async fn permit(&self) -> Result<Permit, PoolError> {
        let permit = self.queue.acquire(self.settings.wait_timeout).await;
        permit.map_err(|_| PoolError::Exhausted(self.settings.max_connections))
    }

    /// The connection that became idle last, if there is one that S3 has left alone. One on which
    /// S3 may send far ahead is of no use to a request whose client may go away after a few bytes;
    /// the other kind is to all.
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
            self.idle_count.update(|count| count - 1);
            if self.is_current(origin, &mut connection) && connection.stream.is_quiet() {
                let (connection, pool) = (Some(connection), Rc::clone(self));
                return Ok(Lease { connection, origin, pool, _permit: permit });
            }
        }
    }

    /// A new connection.
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
                    // A socket is closed when its task has had its turn.
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

    /// Closes what has been idle for too long, and what leads to where an origin was before its
    /// name moved.
    pub fn sweep(&self, now: Instant) {
        let timeout = self.settings.idle_timeout;
        for (shelf, idle) in self.idle.borrow_mut().iter_mut().enumerate() {
            let before = idle.len();
            idle.retain_mut(|idle| {
                self.is_current(OriginId(shelf / ORIGIN_SHELVES), &mut idle.connection)
            });
            self.idle_count.update(|count| count - (before - idle.len()));
            while idle.front().is_some_and(|idle| now.duration_since(idle.since) >= timeout) {
                idle.pop_front();
                self.idle_count.update(|count| count - 1);
            }
        }
    }

    /// Connections that are open, busy or idle.
    pub fn open_connections(&self) -> usize {
        self.busy_connections() + self.idle_count.get()
    }

    /// Connections in use or about to be.
    pub fn busy_connections(&self) -> usize {
        self.queue.in_use()
    }

    /// Requests that wait for one to become free.
    pub fn waiting_requests(&self) -> usize {
        self.queue.waiting()
    }

    fn is_current(&self, origin: OriginId, connection: &mut Connection) -> bool {
        connection.is_current(&self.origins.borrow()[origin.0])
    }

    /// Makes room for another connection; `false` where none is idle.
    pub fn close_one_idle(&self) -> bool {
        let is_one = self.idle.borrow_mut().iter_mut().find_map(VecDeque::pop_front).is_some();
        self.idle_count.update(|count| count - usize::from(is_one));
        is_one
    }
}

/// Times that a connection is tried to be opened by a process without descriptors. What it gives up
/// for it may be taken by a new client first.
const DESCRIPTOR_TRIES: usize = 8;

/// Time for a connection that is given up to be closed.
pub const CLOSING_TIME: Duration = Duration::from_millis(1);

/// Shelves of one origin, by how far S3 may send ahead on the connections.
const ORIGIN_SHELVES: usize = 2;

/// Where idle connections of an origin lie, by how far S3 may send ahead on them.
fn shelf(origin: OriginId, ahead: Ahead) -> usize {
    ORIGIN_SHELVES * origin.0 + usize::from(ahead == Ahead::Freely)
}

impl Lease {
    /// Gives the connection back for the next request. Only to be called when the last answer
    /// has been read to its end and S3 keeps the connection open.
    pub fn put_back(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.pool.idle_count.get() >= self.pool.settings.max_idle_connections
            || !self.pool.is_current(self.origin, &mut connection)
        {
            return;
        }
        let shelf = shelf(self.origin, connection.stream.socket().receives_ahead());
        self.pool.idle.borrow_mut()[shelf].push_back(Idle { connection, since: Instant::now() });
        self.pool.idle_count.update(|count| count + 1);
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
