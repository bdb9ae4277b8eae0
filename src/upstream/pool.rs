//! The upstream connections of one core: counted, kept for reuse, and bounded.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::sys::stream::{Ahead, Deadlines};
use crate::upstream::conn::{self, Connection};
use crate::upstream::resolve::{ResolvedOrigin, Resolver};
use crate::upstream::{OriginId, Settings};

/// The connections of one core to all its origins.
pub struct Pool {
    settings: Settings,
    origins: Vec<Arc<ResolvedOrigin>>,
    resolver: Resolver,
    deadlines: Rc<Deadlines>,
    /// Idle connections by [`shelf`], the longest idle first.
    idle: RefCell<Vec<VecDeque<Idle>>>,
    open: Cell<usize>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// This core has as many connections as it may.
    #[error("all {0} upstream connections of this core are busy")]
    Exhausted(usize),
    /// None could be opened.
    #[error("cannot connect to {origin}: {error}")]
    Connect {
        /// Host and port.
        origin: String,
        /// Why.
        error: io::Error,
    },
}

/// A connection in use. Dropped, it is closed; [`put_back`](Self::put_back) keeps it.
pub struct Lease {
    connection: Option<Connection>,
    origin: OriginId,
    pool: Rc<Pool>,
}

impl Pool {
    /// An empty pool. An [`OriginId`] is a position in `origins`.
    pub fn new(
        settings: Settings,
        origins: Vec<Arc<ResolvedOrigin>>,
        resolver: Resolver,
        deadlines: Rc<Deadlines>,
    ) -> Rc<Pool> {
        let idle = (0..2 * origins.len()).map(|_| VecDeque::new()).collect();
        let idle = RefCell::new(idle);
        Rc::new(Pool { settings, origins, resolver, deadlines, idle, open: Cell::new(0) })
    }

    /// The connection that became idle last, if there is one that S3 has left alone. One on which
    /// S3 may send far ahead is of no use to a request whose client may go away after a few bytes;
    /// the other kind is to all.
    pub fn reuse(self: &Rc<Self>, origin: OriginId, ahead: Ahead) -> Option<Lease> {
        loop {
            let mut idle = self.idle.borrow_mut();
            let mut found = idle[shelf(origin, ahead)].pop_back();
            if found.is_none() && ahead == Ahead::Freely {
                found = idle[shelf(origin, Ahead::Little)].pop_back();
            }
            drop(idle);
            let Idle { connection, .. } = found?;
            if connection.stream.is_quiet() {
                return Some(self.lease(connection, origin));
            }
            self.open.update(|open| open - 1);
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub async fn connect(
        self: &Rc<Self>,
        origin: OriginId,
        ahead: Ahead,
    ) -> Result<Lease, PoolError> {
        if self.open.get() >= self.settings.max_connections && !self.close_one_idle() {
            return Err(PoolError::Exhausted(self.settings.max_connections));
        }
        // Counted from here on, so that a burst cannot open more than the bound.
        self.open.update(|open| open + 1);
        let mut lease = Lease { connection: None, origin, pool: Rc::clone(self) };
        let resolved = &self.origins[origin.0];
        let timeout = self.settings.connect_timeout;
        let connecting =
            conn::connect(resolved, &self.resolver, ahead, timeout, &self.deadlines).await;
        lease.connection = Some(connecting.map_err(|error| PoolError::Connect {
            origin: format!("{}:{}", resolved.origin, resolved.origin.port),
            error,
        })?);
        Ok(lease)
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self, now: Instant) {
        let timeout = self.settings.idle_timeout;
        for idle in self.idle.borrow_mut().iter_mut() {
            while idle.front().is_some_and(|idle| now.duration_since(idle.since) >= timeout) {
                idle.pop_front();
                self.open.update(|open| open - 1);
            }
        }
    }

    /// Connections that are open, busy or idle.
    pub fn open_connections(&self) -> usize {
        self.open.get()
    }

    /// Connections in use.
    pub fn busy_connections(&self) -> usize {
        self.open.get() - self.idle.borrow().iter().map(VecDeque::len).sum::<usize>()
    }

    /// Makes room for a connection to another origin.
    fn close_one_idle(&self) -> bool {
        let closed = self.idle.borrow_mut().iter_mut().find_map(VecDeque::pop_front).is_some();
        if closed {
            self.open.update(|open| open - 1);
        }
        closed
    }

    fn lease(self: &Rc<Self>, connection: Connection, origin: OriginId) -> Lease {
        Lease { connection: Some(connection), origin, pool: Rc::clone(self) }
    }
}

/// Where idle connections of an origin lie, by how far S3 may send ahead on them.
fn shelf(origin: OriginId, ahead: Ahead) -> usize {
    2 * origin.0 + usize::from(ahead == Ahead::Freely)
}

impl Lease {
    /// Gives the connection back for the next request. Only to be called when the last answer
    /// has been read to its end and S3 keeps the connection open.
    pub fn put_back(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        connection.reused = true;
        let mut idle = self.pool.idle.borrow_mut();
        let all_idle: usize = idle.iter().map(VecDeque::len).sum();
        if all_idle >= self.pool.settings.max_idle_connections {
            // Closed. The count goes down with the lease.
            return;
        }
        let shelf = shelf(self.origin, connection.stream.receives_ahead());
        idle[shelf].push_back(Idle { connection, since: Instant::now() });
        // Still open, now without a lease.
        self.pool.open.update(|open| open + 1);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.open.update(|open| open - 1);
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
