//! Starts the workers, replaces their live settings, and drains them.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;

use crate::cache::latest::LatestResponses;
use crate::logging::LogWriter;
use crate::metrics::Metrics;
use crate::server::accept::WorkerThread;
use crate::server::live::Live;
use crate::server::settings::Settings;
use crate::server::upkeep::Upkeep;
use crate::server::worker::Shared;
use crate::sys::background::Background;
use crate::sys::cpu;
use crate::sys::socket::{self, ListenAddress};
use crate::transport::trust::TrustError;
use crate::upstream::resolve::Resolver;

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another socket listens on the address.
    #[error(
        "cannot listen on {0}: the address is already in use; stop the other program, or choose \
         another address with 'listen' or --listen (port 0 is any free one)"
    )]
    AddressInUse(ListenAddress),
    /// Another error of `bind(2)` or `listen(2)`.
    #[error("cannot listen on {0}: {1}")]
    Listen(ListenAddress, io::Error),
    /// The log file cannot be opened.
    #[error("cannot write log_file {path}: {error}")]
    LogFile {
        /// As configured.
        path: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The trusted certificate authorities cannot be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A worker's event loop or sockets cannot be set up.
    #[error("cannot start a worker: {0}")]
    WorkerThread(io::Error),
    /// A thread cannot be created.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A server that is running.
pub struct Running {
    /// The addresses it listens on; port 0 is replaced by the actual port.
    pub addresses: Vec<ListenAddress>,
    /// The description of each worker's event loop.
    pub drivers: Vec<String>,
    metrics: Vec<Arc<Metrics>>,
    drains: Vec<UnixStream>,
    workers: Vec<JoinHandle<usize>>,
    shared: Arc<Shared>,
    upkeep: Upkeep,
}

/// Listens, starts the workers, and returns when all of them accept connections. The access log, if
/// enabled, goes to `log`.
///
/// # Errors
/// See [`StartError`]. Threads that were started already then run on, without listeners.
pub fn start(settings: Settings, live: Live, log: &LogWriter) -> Result<Running, StartError> {
    let count = settings.workers.unwrap_or_else(cpu::usable_cores);
    let unsent = settings.upstream.read_ahead;
    let mut listeners = Vec::new();
    for address in &settings.listen {
        listeners.push(socket::listen(address, count, unsent).map_err(
            |error| match error.kind() {
                io::ErrorKind::AddrInUse => StartError::AddressInUse(address.clone()),
                _ => StartError::Listen(address.clone(), error),
            },
        )?);
    }
    let addresses = listeners.iter().map(|listener| listener.address.clone()).collect();
    let (shared, upkeep) = build_shared(settings, live, Some(log.clone()))?;

    let (sender, receiver) = mpsc::channel();
    let cores = cores_for(count);
    let mut running = Running {
        addresses,
        drivers: Vec::new(),
        metrics: (0..count).map(|_| Arc::default()).collect(),
        drains: Vec::new(),
        workers: Vec::new(),
        shared: Arc::clone(&shared),
        upkeep,
    };
    for index in 0..count {
        let (ours, theirs) = UnixStream::pair().map_err(StartError::Thread)?;
        theirs.set_nonblocking(true).map_err(StartError::Thread)?;
        let worker = WorkerThread {
            shared: Arc::clone(&shared),
            listeners: listeners.iter_mut().filter_map(|listener| listener.sockets.pop()).collect(),
            core: cores.get(index).copied(),
            metrics: Arc::clone(&running.metrics[index]),
            drain: theirs,
            started: sender.clone(),
        };
        let thread = thread::Builder::new().name(format!("worker-{index}"));
        running.workers.push(thread.spawn(|| worker.run()).map_err(StartError::Thread)?);
        running.drains.push(ours);
    }
    drop(sender);
    for started in receiver.iter().take(count) {
        running.drivers.push(started.map_err(StartError::WorkerThread)?);
    }
    Ok(running)
}

/// Builds the state that the workers share, and starts the background work.
pub(super) fn build_shared(
    settings: Settings,
    live: Live,
    access_log: Option<LogWriter>,
) -> Result<(Arc<Shared>, Upkeep), StartError> {
    let background = Background::start().map_err(StartError::Thread)?;
    let latest = Arc::new(LatestResponses::new(settings.metadata.max_entries));
    let shared = Arc::new(Shared {
        settings,
        live: Arc::new(ArcSwap::from_pointee(live)),
        resolver: Resolver::new(background.clone()),
        trust: Arc::default(),
        latest,
        access_log,
        descriptors_wanted: AtomicBool::new(false),
    });
    let mut upkeep = Upkeep::new(background);
    upkeep.start(&shared.live.load(), &shared)?;
    Ok((shared, upkeep))
}

/// Opens the configured log: `log_file`, or standard error.
///
/// # Errors
/// [`StartError::LogFile`], [`StartError::Thread`].
pub fn open_log(settings: &Settings) -> Result<LogWriter, StartError> {
    let path = settings.log_file.as_deref();
    LogWriter::start(path).map_err(|error| match path {
        Some(path) => StartError::LogFile { path: path.display().to_string(), error },
        None => StartError::Thread(error),
    })
}

/// The cores to pin `count` workers to. With fewer workers than cores, the process id selects the
/// first one, so that several containers on one host do not all use core 0.
fn cores_for(count: usize) -> Vec<usize> {
    let cores = cpu::affinity().unwrap_or_default();
    if cores.is_empty() {
        return cores;
    }
    let first = if count < cores.len() { std::process::id() as usize } else { 0 };
    (0..count).map(|index| cores[(first + index) % cores.len()]).collect()
}

impl Running {
    /// Replaces the live settings. Requests in progress finish with the old ones. Waits a few
    /// seconds at most for new credentials and addresses.
    ///
    /// # Errors
    /// [`StartError::Trust`]; the old settings then stay.
    pub fn replace(&mut self, live: Live) -> Result<(), StartError> {
        self.upkeep.start(&live, &self.shared)?;
        self.upkeep.stop_unused(&live);
        self.shared.live.store(Arc::new(live));
        Ok(())
    }

    /// The metrics of all workers, summed.
    pub fn metrics(&self) -> Metrics {
        Metrics::sum(self.metrics.iter().map(Arc::as_ref))
    }

    /// Stops listening, lets responses in progress finish, and joins the workers. Returns the
    /// number of connections that were cut at the end of `drain_timeout`.
    pub fn drain(&mut self) -> usize {
        for drain in &self.drains {
            // Fails only if the worker has panicked.
            let _ = drain.shutdown(Shutdown::Both);
        }
        for address in &self.addresses {
            if let ListenAddress::Unix(path) = address {
                let _ = std::fs::remove_file(path);
            }
        }
        let ends = self.workers.drain(..).map(|worker| {
            worker.join().unwrap_or_else(|_| {
                log::error!("bug: a worker panicked");
                0
            })
        });
        ends.sum()
    }
}
