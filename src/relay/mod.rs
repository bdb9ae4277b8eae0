//! Moves a body of known length from a source to a connection.
//!
//! The relay gets a prefix (bytes to send first, in a buffer), a source, a sink and a length, and
//! is independent of S3 and HTTP. It never reads past the length, never sends more or less than it
//! was given, and holds one buffer or one pipe at most, whatever the length. A reader that stops
//! stops the relay's reading: nothing is received before the last bytes were taken. If it stays
//! stopped, the source may be given up: the received bytes still go to the sink, and the caller
//! gets the rest from another source.

pub(crate) mod copy;
pub(crate) mod pipes;
pub(crate) mod splice;

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::STEADY_CLIENT_BYTES;
use crate::metrics::Metrics;
use crate::relay::pipes::Pipes;
use crate::sys::stream::{Ahead, Stream};
use crate::transport::buffers::Buffers;
use crate::transport::{Connection, Source};

/// When bodies are spliced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether bodies may be spliced at all.
    pub splice: bool,
    /// Bodies with fewer bytes than this are copied.
    pub splice_threshold: u64,
    /// Requested size of a pipe, in bytes.
    pub pipe_size: usize,
    /// Pipes that one worker may have. Further bodies are copied.
    pub max_pipes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            splice: true,
            splice_threshold: 128 * 1024,
            pipe_size: 1024 * 1024,
            max_pipes: 256,
        }
    }
}

/// The buffers and pipes through which one worker relays bodies.
pub(crate) struct Relay {
    /// The buffers of the copying relay.
    pub buffers: Rc<Buffers>,
    /// The pipes of the splicing one.
    pub pipes: Rc<Pipes>,
    /// Counts bytes and fallbacks.
    pub metrics: Arc<Metrics>,
}

/// Timeouts and read-ahead of the two sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Longest wait for the next bytes of the source.
    pub source_stall: Duration,
    /// Longest wait for the sink to take some.
    pub sink_stall: Duration,
    /// How far the source may send ahead of the sink from the beginning on; once the sink has
    /// taken [`STEADY_CLIENT_BYTES`](crate::limits::STEADY_CLIENT_BYTES), freely.
    pub ahead: Ahead,
    /// [`Ahead::Little`] in bytes, on either side.
    pub read_ahead: usize,
    /// Whether the caller can get the rest of the bytes from another source.
    pub is_resumable: bool,
}

impl Terms {
    /// Whether the sink is expected to read to the end, after it was sent `sent` bytes.
    fn wants_all(&self, sent: u64) -> bool {
        self.ahead == Ahead::Freely || sent >= STEADY_CLIENT_BYTES
    }

    /// The action for a stalled sink while `remaining` bytes are not received: gives the source up
    /// if no bytes are lost by that.
    fn on_stall<'s, S: Source>(
        &self,
        source: &'s mut S,
        remaining: u64,
    ) -> Option<impl FnOnce() + use<'s, S>> {
        let may_give_up = (self.is_resumable || remaining == 0) && source.connection().is_some();
        may_give_up.then_some(move || source.give_up(remaining))
    }

    /// Tells the kernel how far to go ahead, when `sent` bytes of the body have been sent.
    fn apply(&self, source: &mut impl Source, sink: &mut Stream, sent: u64) {
        if self.wants_all(sent) {
            if let Some(connection) = source.connection() {
                connection.socket().receive_ahead_freely();
            }
            sink.send_ahead(Ahead::Freely, self.read_ahead);
        } else {
            sink.send_ahead(Ahead::Little, self.read_ahead);
        }
    }
}

/// How a relay ended.
#[derive(Debug)]
pub(crate) enum End {
    /// All bytes were sent.
    Complete,
    /// The source ended, broke or fell silent.
    SourceFailed(io::Error),
    /// The source was given up since the sink took nothing. All that was received has been sent.
    SourceGivenUp,
    /// The sink closed, broke or stopped reading.
    SinkFailed(io::Error),
}

/// What a relay did.
#[derive(Debug)]
pub(crate) struct Report {
    /// How it ended.
    pub end: End,
    /// Bytes of the length that were not received from the source.
    pub remaining: u64,
    /// Bytes that the sink took, the prefix included; a part of a failed send is not
    /// counted.
    pub sent: u64,
}

impl Relay {
    /// Whether a body of `length` bytes is worth splicing, if both sides are sockets of the kernel
    /// and there is a pipe.
    pub(crate) fn splices(&self, length: u64) -> bool {
        self.pipes.is_worth_splicing(length)
    }

    /// Sends `buf[prefix]`, then `length` bytes of `source`, to `sink`, and takes the buffer back
    /// into its pool.
    pub(crate) async fn run(
        &self,
        source: &mut impl Source,
        sink: &mut Connection,
        buf: Vec<u8>,
        prefix: Range<usize>,
        length: u64,
        terms: Terms,
    ) -> Report {
        if length > terms.read_ahead as u64 {
            terms.apply(source, sink.socket(), 0);
        }
        let prefixed = prefix.len() as u64;
        let watch = sink.socket().watch();
        let sending = sink.send(buf, prefix, terms.sink_stall);
        let (sent, buf) = watch.during(sending, terms.on_stall(source, length)).await;
        self.buffers.put_back(buf);
        if let Err(error) = sent {
            return Report { end: End::SinkFailed(error), remaining: length, sent: 0 };
        }
        self.metrics.bytes_copied.add(prefixed);
        if length == 0 {
            return Report { end: End::Complete, remaining: 0, sent: prefixed };
        }
        let report = self.run_without_prefix(source, sink, length, terms).await;
        Report { sent: prefixed + report.sent, ..report }
    }

    /// The one place that decides between splicing and copying.
    async fn run_without_prefix(
        &self,
        source: &mut impl Source,
        sink: &mut Connection,
        length: u64,
        terms: Terms,
    ) -> Report {
        let may_splice = self.splices(length) && source.kernel_socket().is_some();
        if let (true, Some(sink)) = (may_splice, sink.kernel_socket())
            && let Some(mut lease) = self.pipes.take()
        {
            let report =
                splice::splice(source, sink, &mut lease, length, terms, &self.metrics).await;
            if report.sent > 0 || !self.is_refused(&report.end) {
                return report;
            }
            // The kernel refused to splice before the first byte, so none is lost.
            self.metrics.splice_refused.add(1);
        }
        let report = copy::copy(source, sink, &self.buffers, length, terms).await;
        self.metrics.bytes_copied.add(report.sent);
        report
    }

    /// Whether splicing failed because it is not allowed; remembered if so. Only a refusal to
    /// fill the pipe can be made good: bytes in a pipe are out of the copying relay's reach.
    fn is_refused(&self, end: &End) -> bool {
        let End::SourceFailed(error) = end else { return false };
        self.pipes.note_failure(error);
        crate::sys::pipe::is_refusal(error)
    }
}
