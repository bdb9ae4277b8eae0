//! Starts the workers and ends them.

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
    /// The address is taken.
    #[error(
        "cannot listen on {0}: something else listens there already; stop it, or choose another \
         address with 'listen' or --listen (port 0 takes any free one)"
    )]
    AddressInUse(ListenAddress),
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {0}: {1}")]
    Listen(ListenAddress, io::Error),
    /// The log file cannot be opened.
    #[error("cannot write log_file {path}: {error}")]
    LogFile {
        /// The file's path.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is not known whose certificates to believe.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The event loop was refused.
    #[error("cannot start a worker: {0}")]
    WorkerThread(io::Error),
    /// A thread was refused.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A server that is running.
pub struct Running {
    /// The addresses it listens on, with real port numbers.
    pub addresses: Vec<ListenAddress>,
    /// The event loop of each worker, in words.
    pub drivers: Vec<String>,
    metrics: Vec<Arc<Metrics>>,
    drains: Vec<UnixStream>,
    workers: Vec<JoinHandle<usize>>,
    shared: Arc<Shared>,
    upkeep: Upkeep,
}

/// Listens, starts the workers, and comes back when all of them accept connections. Requests are
/// logged to `log`, where the configuration wants that.
///
/// # Errors
/// See [`StartError`]; nothing is left running then but threads that nobody can reach.
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
    let (shared, upkeep) = share(settings, live, Some(log.clone()))?;

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

/// Sets up what the workers share, and the background work on their behalf.
pub(super) fn share(
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
    upkeep.begin(&shared.live.load(), &shared)?;
    Ok((shared, upkeep))
}

/// Opens the log where the configuration has it.
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

/// The cores that `count` workers stay on. With fewer workers than cores the first is chosen by
/// process id, so that several containers on one host do not all crowd on core 0.
fn cores_for(count: usize) -> Vec<usize> {
    let cores = cpu::affinity().unwrap_or_default();
    if cores.is_empty() {
        return cores;
    }
    let first = if count < cores.len() { std::process::id() as usize } else { 0 };
    (0..count).map(|index| cores[(first + index) % cores.len()]).collect()
}

impl Running {
    /// Serves other live settings from now on. Requests that are under way finish with those they
    /// began with. Waits a moment for the credentials and addresses that are new.
    ///
    /// # Errors
    /// [`StartError::Trust`]; nothing is replaced then.
    pub fn replace(&mut self, live: Live) -> Result<(), StartError> {
        self.upkeep.begin(&live, &self.shared)?;
        self.upkeep.end_all_but(&live);
        self.shared.live.store(Arc::new(live));
        Ok(())
    }

    /// What all workers have counted so far.
    pub fn metrics(&self) -> Metrics {
        Metrics::sum(self.metrics.iter().map(Arc::as_ref))
    }

    /// Stops listening, lets running answers finish, and waits for the workers' end. The number of
    /// connections that were cut because they did not finish in time.
    pub fn drain(&mut self) -> usize {
        for drain in &self.drains {
            // It fails only where the worker has ended by itself.
            let _ = drain.shutdown(Shutdown::Both);
        }
        for address in &self.addresses {
            if let ListenAddress::Unix(path) = address {
                let _ = std::fs::remove_file(path);
            }
        }
        let ends = self.workers.drain(..).map(|worker| {
            worker.join().unwrap_or_else(|_| {
                log::error!("a worker ended by a defect of s3proxy");
                0
            })
        });
        ends.sum()
    }
}
