//! The zero-copy relay: source → pipe → sink, without the bytes ever entering this process.
//!
//! `splice(2)` is called on the worker's thread: through the ring it would be handed to a worker
//! thread of the kernel, which costs more than a copy. The event loop only waits. A wait for the
//! source is for many bytes at once, since each wake-up costs two system calls for any number of
//! bytes.
//!
//! Per wake-up: one wait, one splice in, one or more splices out; no allocation, no byte copied.

use std::io;
use std::time::Instant;

use crate::limits::TURN_BYTES;
use crate::metrics::Metrics;
use crate::relay::pipes::PipeLease;
use crate::relay::{End, Report, Terms};
use crate::sys::pipe::Moved;
use crate::sys::stalls::Watch;
use crate::sys::stream::Stream;
use crate::transport::Source;

/// Bytes worth waiting for before the source is looked at again. Larger marks save wake-ups but
/// hold bytes back and let the source's window fill.
const LOW_WATER_BYTES: u64 = 256 * 1024;

/// Moves `length` bytes of `source`, whose connection must be a socket of the kernel, to `sink`.
pub(crate) async fn splice<S: Source>(
    source: &mut S,
    sink: &mut Stream,
    lease: &mut PipeLease,
    length: u64,
    terms: Terms,
    metrics: &Metrics,
) -> Report {
    let watch = sink.watch();
    let mut relay =
        Relay { source, sink, watch, lease, terms, remaining: length, sent: 0, turn: 0 };
    let end = relay.run().await;
    let Relay { remaining, sent, .. } = relay;
    metrics.bytes_spliced.add(sent);
    Report { end, remaining, sent }
}

struct Relay<'a, S> {
    source: &'a mut S,
    sink: &'a mut Stream,
    watch: Watch,
    lease: &'a mut PipeLease,
    terms: Terms,
    remaining: u64,
    sent: u64,
    /// Bytes moved since other tasks had their turn.
    turn: u64,
}

impl<S: Source> Relay<'_, S> {
    async fn run(&mut self) -> End {
        while self.remaining > 0 {
            if let Err(end) = self.fill().await {
                return end;
            }
            if let Err(error) = self.drain().await {
                return End::SinkFailed(error);
            }
            self.terms.apply(self.source, self.sink, self.sent);
        }
        End::Complete
    }

    /// Waits for bytes of the source and moves them into the pipe.
    async fn fill(&mut self) -> Result<(), End> {
        let Some(socket) = self.source.kernel_socket() else { return Err(End::SourceGivenUp) };
        let deadline = Instant::now() + self.terms.source_stall;
        loop {
            let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX);
            match self.lease.pipe().fill(socket, limit).map_err(End::SourceFailed)? {
                Moved::Bytes(0) => {
                    return Err(End::SourceFailed(io::ErrorKind::UnexpectedEof.into()));
                }
                Moved::Bytes(count) => {
                    self.remaining -= count as u64;
                    return Ok(());
                }
                Moved::Blocked => {
                    // The kernel limits it to the size of the receive buffer.
                    let low_water = self.remaining.min(LOW_WATER_BYTES) as u32;
                    socket.readable(low_water, deadline).await.map_err(End::SourceFailed)?;
                    self.turn = 0;
                }
            }
        }
    }

    /// Moves the pipe's bytes into the sink.
    async fn drain(&mut self) -> io::Result<()> {
        // From the last byte that was taken: a wakeup without one does not extend it.
        let mut since = Instant::now();
        while !self.lease.pipe().is_empty() {
            match self.lease.pipe().drain(self.sink, self.remaining > 0)? {
                Moved::Bytes(count) => {
                    self.sent += count as u64;
                    self.turn += count as u64;
                    since = Instant::now();
                }
                Moved::Blocked => {
                    let wait = self.sink.writable(&mut since, self.terms.sink_stall);
                    let on_stall = self.terms.on_stall(self.source, self.remaining);
                    self.watch.during(wait, on_stall).await?;
                    self.turn = 0;
                }
            }
            if self.turn >= TURN_BYTES {
                self.turn = 0;
                self.sink.yield_now().await;
            }
        }
        Ok(())
    }
}
