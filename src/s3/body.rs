//! The body of an S3 response, which can be read into memory or relayed, also by the kernel.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use monoio::BufResult;

use crate::http1::chunked;
use crate::http1::framing::BodyLength;
use crate::http1::response::ResponseHead;
use crate::limits;
use crate::metrics::Metrics;
use crate::s3::request::Operation;
use crate::sys::stream::Stream;
use crate::transport::buffers::Buffers;
use crate::transport::{Connection, Source};
use crate::upstream::pool::Lease;

/// Most bytes received at a time if the length of the body is unknown.
const UNKNOWN_LENGTH_BYTES: usize = 8 * 1024;

/// Shared by all response bodies of one worker.
pub(super) struct Shared {
    pub(super) buffers: Rc<Buffers>,
    pub(super) metrics: Arc<Metrics>,
    /// Longest wait for more bytes in the middle of a body.
    pub(super) stall_timeout: Duration,
}

/// The part of a body that did not arrive with the head.
///
/// Dropping it closes its connection; [`finish`](Self::finish) puts the connection back into the
/// pool if that is possible and cheaper than opening another.
pub(crate) struct Body {
    /// `None` after the connection was put back or given up.
    lease: Option<Lease>,
    length: BodyLength,
    keep_alive: bool,
    /// Bytes of the body after those that the reader wants.
    pub(super) tail: u64,
    /// Set by [`begin`](Self::begin) for a chunked body.
    decoder: Option<Box<chunked::Decoder>>,
    shared: Rc<Shared>,
}

impl Body {
    pub(super) fn new(
        operation: Operation,
        head: &ResponseHead,
        lease: Lease,
        shared: &Rc<Shared>,
    ) -> Body {
        // HEAD, 204 and 304 have no body, whatever their head declares (RFC 9112 §6.3).
        let has_none = operation == Operation::Head
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Body {
            lease: Some(lease),
            length: if has_none { BodyLength::Known(0) } else { head.body_length },
            keep_alive: head.keep_alive,
            tail: 0,
            decoder: None,
            shared: Rc::clone(shared),
        }
    }

    pub(super) fn length(&self) -> BodyLength {
        self.length
    }

    pub(super) fn buffers(&self) -> &Buffers {
        &self.shared.buffers
    }

    /// Prevents the reuse of the connection, after S3 sent bytes that belong to no response.
    pub(super) fn prevent_reuse(&mut self) {
        self.keep_alive = false;
    }

    /// Starts to decode a chunked body with its first bytes, which arrived with the head and are in
    /// `buf[start..]`.
    pub(super) fn begin(&mut self, buf: &mut Vec<u8>, start: usize) -> io::Result<()> {
        if self.length == BodyLength::Chunked && self.decoder.is_none() {
            let mut decoder = Box::<chunked::Decoder>::default();
            decode_in_place(&mut decoder, buf, start)?;
            self.decoder = Some(decoder);
        }
        Ok(())
    }

    /// Appends the next bytes to `buf`, at most `limit` and within its capacity.
    ///
    /// # Errors
    /// As `recv(2)`; `UnexpectedEof` if S3 closed the connection, `TimedOut` after the stall timeout.
    pub(super) async fn receive_more(
        &mut self,
        buf: Vec<u8>,
        limit: u64,
    ) -> BufResult<(), Vec<u8>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let timeout = self.shared.stall_timeout;
        let (received, buf) = self.receive(buf, limit, timeout).await;
        let received = match received {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            received => received.map(|_| ()),
        };
        (received, buf)
    }

    /// As [`Connection::readable_soon`].
    pub(super) async fn readable_soon(&mut self, count: u32) -> io::Result<bool> {
        match &mut self.lease {
            Some(lease) => lease.stream.readable_soon(count).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Appends the rest of the body to `text` and puts the connection back.
    ///
    /// # Errors
    /// As [`receive_more`](Self::receive_more); `FileTooLarge` if `text` reaches `limit` bytes
    /// before the body ends.
    pub(super) async fn read_to_end(&mut self, text: &mut Vec<u8>, limit: usize) -> io::Result<()> {
        while !self.has_ended(text) {
            let room = limit.saturating_sub(text.len());
            if room == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let wanted = match self.length {
                BodyLength::Known(length) => {
                    usize::try_from(length - text.len() as u64).unwrap_or(usize::MAX).min(room)
                }
                BodyLength::Chunked | BodyLength::UntilClose => room.min(UNKNOWN_LENGTH_BYTES),
            };
            text.reserve(wanted);
            let timeout = self.shared.stall_timeout;
            let (received, returned) = self.receive(std::mem::take(text), wanted, timeout).await;
            *text = returned;
            match (received?, self.length) {
                (1.., _) => {}
                (0, BodyLength::UntilClose) => return Ok(()),
                (0, _) if self.has_ended(text) => {}
                (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        self.finish(0).await;
        Ok(())
    }

    /// Whether `text` is the whole body; truncates bytes after its end.
    fn has_ended(&mut self, text: &mut Vec<u8>) -> bool {
        match (self.length, &self.decoder) {
            (BodyLength::Known(length), _) if text.len() as u64 >= length => {
                if text.len() as u64 > length {
                    text.truncate(length as usize);
                    self.prevent_reuse();
                }
                true
            }
            (_, Some(decoder)) => decoder.is_done(),
            _ => false,
        }
    }

    /// Puts the connection back if it can be reused. `remaining` bytes that the reader wanted were
    /// not received; up to [`limits::DRAIN_BYTES`] are received and discarded.
    pub(crate) async fn finish(&mut self, remaining: u64) {
        let remaining = remaining + self.tail;
        // The remaining bytes of a chunked body do not include its framing.
        let most = if self.decoder.is_some() { 0 } else { limits::DRAIN_BYTES };
        if !self.keep_alive || remaining > most || !self.reaches_its_end().await {
            return;
        }
        if let Some(mut lease) = self.lease.take()
            && (remaining == 0 || self.discard(&mut lease, remaining).await.is_ok())
        {
            lease.put_back();
        }
    }

    /// Whether the body ends after the bytes that the reader wanted. Receives the last chunk of a
    /// chunked body.
    async fn reaches_its_end(&mut self) -> bool {
        /// Bytes received at a time; the last chunk is five bytes without trailers.
        const END_BYTES: usize = 1024;
        let Some(decoder) = &mut self.decoder else { return self.length != BodyLength::UntilClose };
        while !decoder.is_done() {
            let Some(lease) = &mut self.lease else { return false };
            if !lease.stream.readable_soon(1).await.unwrap_or(false) {
                return false;
            }
            let buf = Vec::with_capacity(END_BYTES);
            let timeout = self.shared.stall_timeout;
            let (received, mut buf) = lease.stream.receive(buf, END_BYTES, timeout).await;
            let ends = matches!(received, Ok(1..)) && decoder.decode(&mut buf) == Ok(0);
            if !ends {
                return false;
            }
        }
        true
    }

    async fn discard(&self, lease: &mut Lease, count: u64) -> io::Result<()> {
        let Shared { buffers, stall_timeout, .. } = &*self.shared;
        let mut buf = buffers.take();
        let mut remaining = count;
        while remaining > 0 {
            buf.clear();
            let limit = usize::try_from(remaining).unwrap_or(usize::MAX);
            let (received, returned) = lease.stream.receive(buf, limit, *stall_timeout).await;
            buf = returned;
            match received? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => remaining -= count as u64,
            }
        }
        buffers.put_back(buf);
        Ok(())
    }
}

impl Source for Body {
    fn connection(&mut self) -> Option<&mut Connection> {
        self.lease.as_mut().map(|lease| &mut lease.stream)
    }

    fn kernel_socket(&mut self) -> Option<&mut Stream> {
        match self.decoder {
            None => self.connection()?.kernel_socket(),
            Some(_) => None,
        }
    }

    fn give_up(&mut self, remaining: u64) {
        self.shared.metrics.s3_pauses.add(1);
        log::debug!("the client has paused: its S3 connection is given up");
        let is_complete = match &self.decoder {
            Some(decoder) => decoder.is_done(),
            None => self.length != BodyLength::UntilClose,
        };
        if let Some(lease) = self.lease.take()
            && remaining == 0
            && self.tail == 0
            && is_complete
            && self.keep_alive
        {
            lease.put_back();
        }
    }

    async fn receive(
        &mut self,
        mut buf: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> BufResult<usize, Vec<u8>> {
        let Body { lease, decoder, .. } = self;
        let Some(lease) = lease else { return (Err(io::ErrorKind::NotConnected.into()), buf) };
        let Some(decoder) = decoder else { return lease.stream.receive(buf, limit, timeout).await };
        let start = buf.len();
        loop {
            if decoder.is_done() {
                return (Ok(0), buf);
            }
            let (received, returned) = lease.stream.receive(buf, limit, timeout).await;
            buf = returned;
            match received {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buf),
                Ok(_) => {}
                Err(error) => return (Err(error), buf),
            }
            // Zero if only chunk sizes were received.
            match decode_in_place(decoder, &mut buf, start) {
                Ok(0) => {}
                decoded => return (decoded, buf),
            }
        }
    }
}

/// Decodes `buf[start..]` in place and truncates the buffer after the decoded bytes. Returns their
/// number.
fn decode_in_place(
    decoder: &mut chunked::Decoder,
    buf: &mut Vec<u8>,
    start: usize,
) -> io::Result<usize> {
    let decoded = decoder.decode(&mut buf[start..]);
    buf.truncate(start + decoded.unwrap_or(0));
    decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
