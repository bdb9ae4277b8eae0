//! One worker: a thread on a core of its own, with its event loop, listeners and connections.

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

/// What a worker is started with.
pub(crate) struct WorkerThread {
    /// What it shares with the others.
    pub shared: Arc<Shared>,
    /// Its listening sockets.
    pub listeners: Vec<OwnedFd>,
    /// The core it stays on.
    pub core: Option<usize>,
    /// What it counts in.
    pub metrics: Arc<Metrics>,
    /// Ends (reads as closed) when the worker is to drain.
    pub drain: UnixStream,
    /// Told once the event loop runs: its description, or why there is none.
    pub started: Sender<io::Result<String>>,
}

/// Time between two looks at the deadlines, while there are sockets that may have one.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);

/// The same while there is none.
const IDLE_SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// Connections accepted before other tasks have their turn.
const ACCEPT_BURST: usize = 64;

/// How long accepting pauses when the process or machine has run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

impl WorkerThread {
    /// Runs until drained; the number of connections that were cut then. To be called on the
    /// worker's own thread.
    pub(crate) fn run(self) -> usize {
        if let Some(core) = self.core
            && let Err(error) = cpu::pin_thread(core)
        {
            log::warn!("cannot stay on core {core}: {error}");
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
        // A runtime that is dropped with operations in flight waits for them in vain; the process
        // ends when all workers have come to this point.
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

/// Serves until told to end, then drains. The number of connections that did not end in time.
async fn serve(worker: &Rc<Worker>, listeners: Vec<Rc<Listener>>, drain: Stream) -> usize {
    for listener in &listeners {
        monoio::spawn(accept(Rc::clone(worker), Rc::clone(listener)));
    }
    monoio::spawn(sweep(Rc::clone(worker)));
    wait_for_end(drain).await;

    let deadline = Instant::now() + worker.live().clients.drain_timeout;
    worker.draining.set(true);
    for listener in &listeners {
        accept_the_rest(worker, listener, deadline).await;
        listener.close();
        accept_the_rest(worker, listener, deadline).await;
    }
    worker.deadlines.close_idle();
    while worker.metrics.client_connections.get() > 0 && Instant::now() < deadline {
        monoio::time::sleep(Duration::from_millis(10)).await;
        worker.deadlines.close_idle();
    }
    worker.metrics.client_connections.get()
}

/// Accepts what waits to be accepted when the listener is closed.
async fn accept_the_rest(worker: &Rc<Worker>, listener: &Listener, deadline: Instant) {
    // More cannot wait; whoever comes meanwhile must not keep the process from its end.
    for _ in 0..socket::BACKLOG {
        match listener.accept() {
            Ok(accepted) => start(worker, accepted),
            Err(error) if is_about_one_connection(&error) => {}
            // Idle clients are let go anyway.
            Err(error) if process::is_out_of_descriptors(&error) && Instant::now() < deadline => {
                worker.deadlines.close_idle();
                monoio::time::sleep(pool::CLOSING_TIME).await;
            }
            Err(_) => return,
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    // The client gave up before it was accepted.
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// Waits until the other end of a socket is closed.
async fn wait_for_end(mut socket: Stream) {
    const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
    let _ = socket.receive(Vec::with_capacity(1), 1, FOR_EVER).await;
}

/// Has the deadlines of the worker's sockets kept, for as long as it runs.
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
                    log::info!("connections are accepted again");
                }
            }
            Err(error) if process::is_out_of_descriptors(&error) && worker.give_up_idle() => {
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

/// Accepts the connections that are there.
///
/// # Errors
/// Those of `accept4(2)` that are about this process or machine, not about one connection.
fn accept_burst(worker: &Rc<Worker>, listener: &Listener) -> io::Result<()> {
    for _ in 0..ACCEPT_BURST {
        match listener.accept() {
            Ok(accepted) => start(worker, accepted),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                _ if is_about_one_connection(&error) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

fn start(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { socket, peer } = accepted;
    let most = worker.live().clients.max_connections;
    if worker.metrics.client_connections.get() >= most + limits::REFUSED_CONNECTIONS {
        // Closed at once: even to say so would hold too many.
        return;
    }
    // Who is idle may come again; who has just come wants something now.
    let is_full = worker.metrics.client_connections.get() >= most;
    let refused = is_full && !worker.deadlines.close_longest_idle(Instant::now());
    match Stream::from_std(socket, &worker.deadlines) {
        Ok(stream) => {
            let stream = Connection::Plain(stream);
            let worker = Rc::clone(worker);
            worker.metrics.client_connections.increment();
            monoio::spawn(async move {
                // Pinned where it is made: moved, it would take its place twice per connection.
                let served = match refused {
                    false => {
                        caught(pin!(connection::serve(Rc::clone(&worker), stream, peer))).await
                    }
                    true => caught(pin!(connection::refuse(&worker, stream, peer))).await,
                };
                if let Err(panic) = served {
                    log::error!("a connection ended by a defect of s3proxy: {}", words(&*panic));
                }
                worker.metrics.client_connections.decrement();
            });
        }
        Err(error) => log::error!("cannot watch a new connection: {error}"),
    }
}

/// Runs a future and catches its panics: one that reached the event loop would end the core.
async fn caught<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Box<dyn Any + Send>> {
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

fn words(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}
