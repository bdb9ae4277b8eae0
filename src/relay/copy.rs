//! The copying relay: source → buffer → sink.
//!
//! A fast sink gets large buffers: each wake-up, receive and send has a fixed cost, and a TLS
//! source delivers records of 16 KiB. No buffer is held while the relay waits for either side, so
//! that slow readers hold almost no memory.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::limits::{
    LARGE_RELAY_BUFFER_BYTES, RELAY_BUFFER_BYTES, SMALL_RELAY_BUFFER_BYTES, TURN_BYTES,
};
use crate::relay::{End, Report, Terms};
use crate::sys::stalls::Watch;
use crate::transport::buffers::Buffers;
use crate::transport::{Connection, Source};

/// A sink that takes longer than this for one buffer gets small ones.
const SLOW: Duration = Duration::from_millis(100);

/// Copies `length` bytes of `source` to `sink`.
pub(crate) async fn copy<S: Source>(
    source: &mut S,
    sink: &mut Connection,
    buffers: &Rc<Buffers>,
    length: u64,
    terms: Terms,
) -> Report {
    let watch = sink.socket().watch();
    let mut relay = Relay {
        source,
        sink,
        watch,
        buffers,
        terms,
        remaining: length,
        sent: 0,
        turn: 0,
        slow: false,
    };
    let end = relay.run().await;
    Report { end, remaining: relay.remaining, sent: relay.sent }
}

struct Relay<'a, S> {
    source: &'a mut S,
    sink: &'a mut Connection,
    watch: Watch,
    buffers: &'a Rc<Buffers>,
    terms: Terms,
    remaining: u64,
    sent: u64,
    /// Bytes moved since other tasks had their turn.
    turn: u64,
    /// The sink took longer than [`SLOW`] for the last buffer.
    slow: bool,
}

impl<S: Source> Relay<'_, S> {
    async fn run(&mut self) -> End {
        while self.remaining > 0 {
            if let Err(end) = self.wait_for_source().await {
                return end;
            }
            let started = Instant::now();
            if let Err(error) = self.wait_for_sink(started).await {
                return End::SinkFailed(error);
            }
            if let Err(end) = self.pass_on().await {
                return end;
            }
            self.slow = started.elapsed() > SLOW;
            if self.turn >= TURN_BYTES {
                // With epoll, sockets that are always ready would starve the worker's other tasks.
                self.turn = 0;
                self.sink.socket().yield_now().await;
            }
            self.terms.apply(self.source, self.sink.socket(), self.sent);
        }
        End::Complete
    }

    /// How much to move at a time.
    fn buffer_bytes(&self) -> usize {
        match self.terms.wants_all(self.sent) {
            _ if self.slow => SMALL_RELAY_BUFFER_BYTES,
            // Bytes in the buffer were read in excess if the sink closes.
            false => RELAY_BUFFER_BYTES,
            true if self.remaining <= RELAY_BUFFER_BYTES as u64 => RELAY_BUFFER_BYTES,
            true => LARGE_RELAY_BUFFER_BYTES,
        }
    }

    /// Waits until a buffer can be filled.
    async fn wait_for_source(&mut self) -> Result<(), End> {
        // No more than the buffer, so it fits.
        let low_water = self.remaining.min(self.buffer_bytes() as u64) as u32;
        let Some(source) = self.source.connection() else { return Err(End::SourceGivenUp) };
        let deadline = Instant::now() + self.terms.source_stall;
        source.readable(low_water, deadline).await.map_err(End::SourceFailed)
    }

    /// Waits until the sink has room.
    async fn wait_for_sink(&mut self, mut since: Instant) -> io::Result<()> {
        let wait = self.sink.socket().writable(&mut since, self.terms.sink_stall);
        let on_stall = self.terms.on_stall(self.source, self.remaining);
        self.watch.during(wait, on_stall).await
    }

    /// Moves the bytes that are there through a buffer.
    async fn pass_on(&mut self) -> Result<(), End> {
        let buffer_bytes = self.buffer_bytes();
        if self.source.connection().is_none() {
            return Err(End::SourceGivenUp);
        }
        let (buf, _permit) = self.buffers.take_empty(buffer_bytes);
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let (received, buf) = self.source.receive(buf, limit, self.terms.source_stall).await;
        let (sent, buf) = match received {
            Ok(count @ 1..) => {
                self.remaining -= count as u64;
                let sending = self.sink.send(buf, 0..count, self.terms.sink_stall);
                let on_stall = self.terms.on_stall(self.source, self.remaining);
                let (sent, buf) = self.watch.during(sending, on_stall).await;
                (sent.map(|()| count as u64).map_err(End::SinkFailed), buf)
            }
            Ok(0) => (Err(End::SourceFailed(io::ErrorKind::UnexpectedEof.into())), buf),
            Err(error) => (Err(End::SourceFailed(error)), buf),
        };
        self.buffers.put_back(buf);
        let sent = sent?;
        self.sent += sent;
        self.turn += sent;
        Ok(())
    }
}
