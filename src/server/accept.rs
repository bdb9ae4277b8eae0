//! The thread of one worker, pinned to a core: builds the event loop, accepts connections until the
//! shutdown, then drains.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::limits;
use crate::metrics::Metrics;
use crate::server::connection;
use crate::server::worker::{Shared, Worker};
use crate::sys::cpu;
use crate::sys::event_loop;
use crate::sys::process;
use crate::sys::socket::{self, Accepted, Listener};
use crate::sys::stream::Stream;
use crate::transport::Connection;
use crate::upstream::pool;

/// The arguments of a worker's thread.
pub(crate) struct WorkerThread {
    pub shared: Arc<Shared>,
    pub listeners: Vec<OwnedFd>,
    /// The core to pin the thread to.
    pub core: Option<usize>,
    pub metrics: Arc<Metrics>,
    /// Its peer is shut down when the worker is to drain.
    pub drain: UnixStream,
    /// Receives the description of the event loop once it runs, or the error.
    pub started: Sender<io::Result<String>>,
}

/// Time between two sweeps of the worker while it has open connections.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);

/// The same while it has none.
const IDLE_SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// Connections accepted in a row before other tasks run.
const ACCEPT_BURST: usize = 64;

/// How long accepting pauses when the process or machine has run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

impl WorkerThread {
    /// Serves until drained and returns the number of connections that were cut. Blocks the thread.
    pub(crate) fn run(self) -> usize {
        if let Some(core) = self.core
            && let Err(error) = cpu::pin_thread(core)
        {
            log::warn!("cannot pin a worker to core {core}: {error}");
        }
        let mut event_loop = match event_loop::build(self.shared.settings.driver) {
            Ok(event_loop) => event_loop,
            Err(error) => {
                let _ = self.started.send(Err(error));
                return 0;
            }
        };
        let cut = event_loop.runtime.block_on(async {
            let worker = Worker::new(Arc::clone(&self.shared), Arc::clone(&self.metrics));
            match self.register(&worker) {
                Ok((listeners, drain)) => {
                    let _ = self.started.send(Ok(event_loop.description));
                    let cut = serve(&worker, listeners, drain).await;
                    worker.sweep(Instant::now());
                    cut
                }
                Err(error) => {
                    let _ = self.started.send(Err(error));
                    0
                }
            }
        });
        // Dropping the runtime would wait for operations in flight that never complete. The process
        // exits when all workers have come this far.
        std::mem::forget(event_loop.runtime);
        cut
    }

    /// Registers the worker's sockets with its event loop.
    fn register(&self, worker: &Worker) -> io::Result<(Vec<Rc<Listener>>, Stream)> {
        let listeners =
            self.listeners.iter().map(|socket| Ok(Rc::new(Listener::new(socket.try_clone()?)?)));
        let drain = std::net::TcpStream::from(OwnedFd::from(self.drain.try_clone()?));
        Ok((listeners.collect::<io::Result<_>>()?, Stream::from_std(drain, &worker.deadlines)?))
    }
}

/// Serves until the shutdown, then drains. Returns the number of connections still open at the end
/// of `drain_timeout`.
async fn serve(worker: &Rc<Worker>, listeners: Vec<Rc<Listener>>, drain: Stream) -> usize {
    for listener in &listeners {
        monoio::spawn(accept(Rc::clone(worker), Rc::clone(listener)));
    }
    monoio::spawn(sweep(Rc::clone(worker)));
    wait_for_shutdown(drain).await;

    let deadline = Instant::now() + worker.live().clients.drain_timeout;
    worker.draining.set(true);
    for listener in &listeners {
        accept_backlog(worker, listener, deadline).await;
        listener.close();
        accept_backlog(worker, listener, deadline).await;
    }
    worker.deadlines.close_idle();
    while worker.metrics.client_connections.get() > 0 && Instant::now() < deadline {
        monoio::time::sleep(Duration::from_millis(10)).await;
        worker.deadlines.close_idle();
    }
    worker.metrics.client_connections.get()
}

/// Accepts the connections in the listener's backlog, which closing it would reset.
async fn accept_backlog(worker: &Rc<Worker>, listener: &Listener, deadline: Instant) {
    // Bounded, so that new connections cannot delay the shutdown.
    for _ in 0..socket::BACKLOG {
        match listener.accept() {
            Ok(accepted) => spawn_connection(worker, accepted),
            Err(error) if concerns_one_connection(&error) => {}
            // Draining closes idle connections anyway.
            Err(error) if process::is_out_of_descriptors(&error) && Instant::now() < deadline => {
                worker.deadlines.close_idle();
                monoio::time::sleep(pool::CLOSING_TIME).await;
            }
            Err(_) => return,
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    // The client gave up before it was accepted.
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// Waits until the peer of a socket shuts it down.
async fn wait_for_shutdown(mut socket: Stream) {
    const NO_TIMEOUT: Duration = Duration::from_secs(u32::MAX as u64);
    let _ = socket.receive(Vec::with_capacity(1), 1, NO_TIMEOUT).await;
}

/// Calls [`Worker::sweep`] periodically, for as long as the worker runs.
pub(crate) async fn sweep(worker: Rc<Worker>) {
    loop {
        let idle =
            worker.metrics.client_connections.get() == 0 && worker.pool.open_connections() == 0;
        let period = if idle { IDLE_SWEEP_PERIOD } else { SWEEP_PERIOD };
        monoio::time::sleep(period).await;
        worker.sweep(Instant::now());
    }
}

/// Accepts connections until the listener is closed.
async fn accept(worker: Rc<Worker>, listener: Rc<Listener>) {
    let mut out_of_resources = false;
    loop {
        if let Err(error) = listener.ready().await {
            log::error!("a listener failed: {error}");
            return;
        }
        if worker.draining.get() {
            return;
        }
        match accept_burst(&worker, &listener) {
            Ok(()) => {
                if std::mem::take(&mut out_of_resources) {
                    log::info!("accepting connections again");
                }
            }
            Err(error) if process::is_out_of_descriptors(&error) && worker.close_one_idle() => {
                monoio::time::sleep(pool::CLOSING_TIME).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut out_of_resources, true) {
                    log::error!("cannot accept connections for now: {error}");
                }
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts waiting connections, at most [`ACCEPT_BURST`].
///
/// # Errors
/// Those of `accept4(2)` that concern the process or the machine rather than one connection.
fn accept_burst(worker: &Rc<Worker>, listener: &Listener) -> io::Result<()> {
    for _ in 0..ACCEPT_BURST {
        match listener.accept() {
            Ok(accepted) => spawn_connection(worker, accepted),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                _ if concerns_one_connection(&error) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

/// Spawns the task of a connection. Above `max_connections` it responds 503 and closes.
fn spawn_connection(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { socket, peer } = accepted;
    let max = worker.live().clients.max_connections;
    let open = worker.metrics.client_connections.get();
    if open >= max + limits::REFUSED_CONNECTIONS {
        // Closed at once: a task that responds 503 would exceed this bound too.
        return;
    }
    // An idle client can reconnect; a new one is about to send a request.
    let is_full = open >= max;
    let refused = is_full && !worker.deadlines.close_longest_idle(Instant::now());
    match Stream::from_std(socket, &worker.deadlines) {
        Ok(stream) => {
            let stream = Connection::Plain(stream);
            let worker = Rc::clone(worker);
            worker.metrics.client_connections.increment();
            monoio::spawn(async move {
                // `pin!` builds the future in place; passed by value, it would be stored twice.
                let served = match refused {
                    false => {
                        catch_panic(pin!(connection::serve(Rc::clone(&worker), stream, peer))).await
                    }
                    true => catch_panic(pin!(connection::refuse(&worker, stream, peer))).await,
                };
                if let Err(panic) = served {
                    log::error!("bug: a panic closed a connection: {}", message(&*panic));
                }
                worker.metrics.client_connections.decrement();
            });
        }
        Err(error) => log::error!("cannot register a connection with the event loop: {error}"),
    }
}

/// Runs a future and catches its panics: one that reached the event loop would end the worker.
async fn catch_panic<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Box<dyn Any + Send>> {
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}
