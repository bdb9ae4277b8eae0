//! A TCP relay between the proxy and S3 that injects faults at random: it refuses, resets and
//! closes connections, stalls, and sends in very small pieces.
//!
//! It knows neither HTTP nor TLS, only that requests and responses alternate. The fault of a
//! response is chosen when it begins, so changed chances apply at once, also on open connections.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Chances of faults, from 0 to 1. Those of a response add up to 1 at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// A new connection is reset.
    pub(crate) refused: f64,
    /// The connection is closed before a response or inside its head.
    pub(crate) cut_in_head: f64,
    /// The connection is closed after some bytes of a response.
    pub(crate) closed: f64,
    /// The connection is reset after some bytes of a response, the last of which may be lost.
    pub(crate) reset: f64,
    /// A response pauses for `stall` after some bytes.
    pub(crate) stalled: f64,
    pub(crate) stall: Duration,
    /// Some bytes of a response come in very small pieces.
    pub(crate) trickled: f64,
    /// How long the proxy may read nothing before its connection is reset; `None` is no limit.
    pub(crate) patience: Option<Duration>,
}

impl Faults {
    /// Bytes pass unchanged and at once.
    pub(crate) const NONE: Faults = Faults {
        refused: 0.0,
        cut_in_head: 0.0,
        closed: 0.0,
        reset: 0.0,
        stalled: 0.0,
        stall: Duration::ZERO,
        trickled: 0.0,
        patience: None,
    };
}

/// Counts of connections and of injected faults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
    /// Inside a head or a body.
    pub(crate) closed: usize,
    pub(crate) reset: usize,
    pub(crate) stalled: usize,
    pub(crate) trickled: usize,
    /// Reset because the proxy read nothing.
    pub(crate) given_up: usize,
    /// Bytes sent to the proxy.
    pub(crate) bytes: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done { accepted, refused, closed, reset, stalled, trickled, given_up, bytes } = self;
        write!(
            f,
            "accepted={accepted} refused={refused} closed={closed} reset={reset} \
             stalled={stalled} trickled={trickled} given_up={given_up} bytes={bytes}"
        )
    }
}

/// A running relay; dropping it cuts all its connections.
pub(crate) struct FaultRelay {
    endpoint: String,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    chances: Mutex<(Faults, Rng)>,
    open: AtomicUsize,
    accepted: AtomicUsize,
    refused: AtomicUsize,
    closed: AtomicUsize,
    reset: AtomicUsize,
    stalled: AtomicUsize,
    trickled: AtomicUsize,
    given_up: AtomicUsize,
    bytes: AtomicU64,
}

impl FaultRelay {
    /// Relays to the server at `endpoint` on the loopback device, at first without faults. `seed`
    /// determines the faults and their order.
    pub(crate) fn start(endpoint: &str, seed: u64) -> FaultRelay {
        let (origin, port) = endpoint.rsplit_once(':').expect("an endpoint with its port");
        let server = (Ipv4Addr::LOCALHOST, port.parse::<u16>().expect("a port")).into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("an event loop");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let shared = Arc::new(Shared::new(seed));
        runtime.spawn(accept(listener, server, Arc::clone(&shared)));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            // Ends when the sender is dropped; the connections end with the runtime.
            let _ = runtime.block_on(stopped);
        });
        let endpoint = format!("{origin}:{port}");
        FaultRelay { endpoint, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The value of `endpoint:` in place of the server's own.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Changes the faults of new connections and responses.
    pub(crate) fn set(&self, faults: Faults) {
        self.shared.chances.lock().unwrap_or_else(PoisonError::into_inner).0 = faults;
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub(crate) fn done(&self) -> Done {
        let Shared { accepted, refused, closed, reset, stalled, trickled, given_up, bytes, .. } =
            &*self.shared;
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        Done {
            accepted: count(accepted),
            refused: count(refused),
            closed: count(closed),
            reset: count(reset),
            stalled: count(stalled),
            trickled: count(trickled),
            given_up: count(given_up),
            bytes: bytes.load(Ordering::SeqCst),
        }
    }
}

impl Drop for FaultRelay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already, and a drop must not panic.
            let _ = thread.join();
        }
    }
}

/// The fault of a response, and how many bytes pass before it.
struct Lot {
    left: u64,
    strike: Strike,
}

#[derive(Clone, Copy)]
enum Strike {
    Nothing,
    Close,
    Reset,
    Stall(Duration),
    Trickle,
}

/// How a connection ends.
#[derive(PartialEq, Eq)]
enum End {
    Close,
    Reset,
}

/// Bytes of a response that certainly belong to its head: S3's heads are twice as long.
const HEAD_BYTES: u64 = 200;

/// A fault comes after at most two to this power of bytes. All smaller powers are equally likely,
/// since most responses are small.
const MOST_BYTES_LOG2: f64 = 23.0;

/// Length of a very small piece, in bytes, and the time between two.
const PIECE_BYTES: usize = 499;
const PIECE_PAUSE: Duration = Duration::from_millis(1);

impl Lot {
    const NOTHING: Lot = Lot { left: u64::MAX, strike: Strike::Nothing };
}

impl Shared {
    fn new(seed: u64) -> Shared {
        Shared {
            chances: Mutex::new((Faults::NONE, Rng::with_seed(seed))),
            open: AtomicUsize::default(),
            accepted: AtomicUsize::default(),
            refused: AtomicUsize::default(),
            closed: AtomicUsize::default(),
            reset: AtomicUsize::default(),
            stalled: AtomicUsize::default(),
            trickled: AtomicUsize::default(),
            given_up: AtomicUsize::default(),
            bytes: AtomicU64::default(),
        }
    }

    /// Whether a new connection is refused.
    fn refuses(&self) -> bool {
        let (faults, rng) = &mut *self.chances.lock().unwrap_or_else(PoisonError::into_inner);
        rng.f64() < faults.refused
    }

    fn patience(&self) -> Option<Duration> {
        self.chances.lock().unwrap_or_else(PoisonError::into_inner).0.patience
    }

    /// Chooses the fault of a response that begins.
    fn draw(&self) -> Lot {
        let (faults, rng) = &mut *self.chances.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chance = rng.f64();
        if chance < faults.cut_in_head {
            return Lot { left: rng.u64(..HEAD_BYTES), strike: Strike::Close };
        }
        chance -= faults.cut_in_head;
        let left = (MOST_BYTES_LOG2 * rng.f64()).exp2() as u64;
        for (likely, strike) in [
            (faults.closed, Strike::Close),
            (faults.reset, Strike::Reset),
            (faults.stalled, Strike::Stall(faults.stall)),
            (faults.trickled, Strike::Trickle),
        ] {
            if chance < likely {
                return Lot { left, strike };
            }
            chance -= likely;
        }
        Lot::NOTHING
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::SeqCst);
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    // An error of `accept` concerns one connection that has already ended: accept the next one.
    loop {
        if let Ok((proxy, _)) = listener.accept().await {
            count(&shared.accepted);
            if shared.refuses() {
                count(&shared.refused);
                reset(proxy);
            } else {
                tokio::spawn(relay(proxy, server, Arc::clone(&shared)));
            }
        }
    }
}

/// Closes the connection with a reset.
fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

async fn relay(mut proxy: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let end = match TcpStream::connect(server).await {
        Ok(mut s3) => {
            // Without this, small requests and pieces wait for delayed acknowledgements.
            let _ = (proxy.set_nodelay(true), s3.set_nodelay(true));
            let asked = AtomicBool::new(false);
            let ((from_proxy, to_proxy), (from_s3, to_s3)) = (proxy.split(), s3.split());
            tokio::select! {
            // If one side closes, the other is closed too.
                            _ = carry_requests(from_proxy, to_s3, &asked) => End::Close,
                            end = carry_responses(from_s3, to_proxy, &asked, &shared) => {
                                end.unwrap_or(End::Reset)
                            }
                        }
        }
        Err(_) => End::Reset,
    };
    match end {
        End::Close => drop(proxy),
        End::Reset => reset(proxy),
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

async fn carry_requests(
    mut from_proxy: ReadHalf<'_>,
    mut to_s3: WriteHalf<'_>,
    asked: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        match from_proxy.read(&mut buffer).await? {
            0 => return Ok(()),
            length => {
                asked.store(true, Ordering::SeqCst);
                to_s3.write_all(&buffer[..length]).await?;
            }
        }
    }
}

/// # Errors
/// When S3 or the proxy resets its connection.
async fn carry_responses(
    mut from_s3: ReadHalf<'_>,
    mut to_proxy: WriteHalf<'_>,
    asked: &AtomicBool,
    shared: &Shared,
) -> io::Result<End> {
    let mut buffer = vec![0; 64 * 1024];
    let mut lot = Lot::NOTHING;
    loop {
        let length = from_s3.read(&mut buffer).await?;
        if length == 0 {
            return Ok(End::Close);
        }
        if asked.swap(false, Ordering::SeqCst) {
            lot = shared.draw();
        }
        let mut bytes = &buffer[..length];
        let passing = usize::try_from(lot.left).unwrap_or(usize::MAX).min(length);
        if passing < length {
            let (before, after) = bytes.split_at(passing);
            send(&mut to_proxy, before, shared).await?;
            bytes = after;
            match std::mem::replace(&mut lot, Lot::NOTHING).strike {
                Strike::Nothing => {}
                Strike::Close => {
                    count(&shared.closed);
                    return Ok(End::Close);
                }
                Strike::Reset => {
                    count(&shared.reset);
                    return Ok(End::Reset);
                }
                Strike::Stall(time) => {
                    count(&shared.stalled);
                    sleep(time).await;
                }
                Strike::Trickle => {
                    count(&shared.trickled);
                    for piece in bytes.chunks(PIECE_BYTES) {
                        send(&mut to_proxy, piece, shared).await?;
                        sleep(PIECE_PAUSE).await;
                    }
                    bytes = &[];
                }
            }
        } else {
            lot.left -= length as u64;
        }
        send(&mut to_proxy, bytes, shared).await?;
    }
}

/// # Errors
/// When the proxy disconnects, or reads nothing for too long.
async fn send(to_proxy: &mut WriteHalf<'_>, bytes: &[u8], shared: &Shared) -> io::Result<()> {
    let sending = to_proxy.write_all(bytes);
    match shared.patience() {
        None => sending.await?,
        Some(patience) => timeout(patience, sending).await.unwrap_or_else(|late| {
            count(&shared.given_up);
            Err(late.into())
        })?,
    }
    shared.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    Ok(())
}
