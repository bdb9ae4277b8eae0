//! The event loop of a worker: io_uring with the best flags that the kernel grants, or epoll.
//!
//! The ring flags matter more than anything else for small requests: the default ring costs half
//! as much again per request as one with `SINGLE_ISSUER|DEFER_TASKRUN` (Linux 6.1). A kernel that
//! does not know a flag refuses the ring, so several sets of flags are tried. Container runtimes
//! block io_uring with seccomp by default, so epoll is a first-class driver, not a last resort.

use std::io;

use io_uring::{IoUring, Probe, opcode};
use monoio::time::TimeDriver;
use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};

/// The event loop that the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// io_uring if the kernel and its seccomp filter allow it, otherwise epoll.
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// An event loop for the thread that built it.
pub(crate) struct EventLoop {
    /// monoio's runtime.
    pub runtime: FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>,
    /// For the start-up message: `io_uring (single_issuer, defer_taskrun)`.
    pub description: String,
}

/// Entries of a submission queue. A worker rarely queues more between two rounds; a full queue is
/// just submitted early.
const RING_ENTRIES: u32 = 1024;

/// A name, and how to set up the ring.
type Ring = (&'static str, fn(&mut io_uring::Builder));

/// The sets of ring flags to try, best first.
const RINGS: [Ring; 3] = [
    ("io_uring (single_issuer, defer_taskrun)", |ring| {
        ring.setup_single_issuer().setup_defer_taskrun();
    }),
    ("io_uring (coop_taskrun)", |ring| {
        ring.setup_coop_taskrun();
    }),
    ("io_uring (no flags)", |_| {}),
];

/// Builds the event loop of the calling thread.
///
/// # Errors
/// The kernel's refusal for [`Choice::IoUring`], otherwise epoll's error.
pub(crate) fn build(choice: Choice) -> io::Result<EventLoop> {
    if choice == Choice::Epoll {
        return epoll("epoll".to_owned());
    }
    match ring() {
        Ok(event_loop) => Ok(event_loop),
        Err(error) if choice == Choice::IoUring => Err(io::Error::new(
            error.kind(),
            format!(
                "the kernel refuses io_uring ({error}); write 'driver: auto' for epoll instead"
            ),
        )),
        Err(error) => epoll(format!("epoll (io_uring refused: {error})")),
    }
}

fn ring() -> io::Result<EventLoop> {
    probe()?;
    let mut refusal = io::Error::from(io::ErrorKind::Unsupported);
    for (description, set_flags) in RINGS {
        let mut builder = IoUring::builder();
        set_flags(&mut builder);
        let built = RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(builder)
            .with_entries(RING_ENTRIES)
            .enable_timer()
            .build();
        match built {
            Ok(runtime) => {
                return Ok(EventLoop {
                    runtime: runtime.into(),
                    description: description.to_owned(),
                });
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Checks that the kernel supports the operations in use; before Linux 5.6, io_uring lacks some of
/// them. Then runs one operation: a seccomp filter may allow setting up a ring but not entering it,
/// and an event loop on such a ring would spin without ever seeing a socket.
fn probe() -> io::Result<()> {
    let mut ring = IoUring::new(2)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::Connect::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
    ];
    if !needed.into_iter().all(|code| probe.is_supported(code)) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel's io_uring is too old",
        ));
    }
    run_one_operation(&mut ring)
}

fn run_one_operation(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: a no-op refers to no memory that would have to outlive it.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    match ring.completion().next() {
        Some(done) if done.result() == 0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "the ring does not run operations")),
    }
}

fn epoll(description: String) -> io::Result<EventLoop> {
    let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    Ok(EventLoop { runtime: runtime.into(), description })
}
