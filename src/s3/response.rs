//! One answer of S3: what its head says, and the ways to deal with its body.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use monoio::BufResult;

use crate::http1::chunked;
use crate::http1::framing::BodyLength;
use crate::http1::response::{Field, ResponseHead};
use crate::limits;
use crate::relay::{self, Relay, Terms};
use crate::s3::request::Operation;
use crate::sys::stream::{Ahead, Stream};
use crate::transport::Transport;
use crate::upstream::Settings;
use crate::upstream::pool::Lease;

/// An answer of S3: its head read, its body not yet.
///
/// Dropped, it closes its connection; each of the methods that consume it gives the connection
/// back to the pool where the body was read to its end and S3 keeps it open.
pub struct Response {
    operation: Operation,
    ahead: Ahead,
    pub(super) head: ResponseHead,
    /// Where the body bytes that came with the head start in `buf`.
    pub(super) body_start: usize,
    pub(super) buf: Vec<u8>,
    /// `None` once it was given up.
    lease: Option<Lease>,
    relay: Rc<Relay>,
    stall_timeout: Duration,
    read_ahead: usize,
    /// Bytes of the body behind those that the client wants.
    tail: u64,
    /// Of a chunked body, once it has begun.
    decoder: Option<Box<chunked::Decoder>>,
}

/// How a body's way to the client ended.
#[derive(Debug)]
pub struct Sent {
    /// How it ended.
    pub end: relay::End,
    /// Bytes that the client was sent, its head included; 0 where S3 failed before that.
    pub bytes: u64,
    /// Bytes of the body that it was not sent.
    pub remaining: u64,
}

impl Response {
    /// An answer of which `received` was read: the head, where the body starts in the buffer, and
    /// the buffer.
    pub(super) fn new(
        operation: Operation,
        ahead: Ahead,
        received: (ResponseHead, usize, Vec<u8>),
        lease: Lease,
        relay: &Rc<Relay>,
        settings: &Settings,
    ) -> Response {
        let (head, body_start, buf) = received;
        let (stall_timeout, read_ahead) = (settings.stall_timeout, settings.read_ahead);
        let (lease, relay) = (Some(lease), Rc::clone(relay));
        let tail = 0;
        Response {
            operation,
            ahead,
            head,
            body_start,
            buf,
            lease,
            relay,
            stall_timeout,
            read_ahead,
            tail,
            decoder: None,
        }
    }

    /// The head.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The bytes that the head was parsed from.
    pub fn head_bytes(&self) -> &[u8] {
        &self.buf[limits::HEADROOM_BYTES..self.body_start]
    }

    /// The value of a header field.
    pub fn field(&self, field: Field) -> Option<&[u8]> {
        self.head.field(self.head_bytes(), field)
    }

    /// Sends `client_head` and the body of `length` bytes, which the head must have declared, to
    /// `client`. If the rest can be asked for again, the connection is given up while the client
    /// takes nothing.
    pub async fn send_to(
        mut self,
        client: &mut Stream,
        client_head: &[u8],
        length: u64,
        client_stall: Duration,
        is_resumable: bool,
    ) -> Sent {
        // Head and body leave in one send where the buffer holds them, and otherwise the head with
        // the body's first bytes; where those never come, the client can still be told so. When
        // only later ones do not come, the relay will find that out.
        if let Err(error) = self.begin_body(length).await
            && self.buf.len() == self.body_start
        {
            self.finish(None).await;
            let end = relay::End::SourceFailed(error);
            return Sent { end, bytes: 0, remaining: length };
        }
        // S3's head has been read out of the buffer; the client's takes its place, right before
        // the body. It fits: its fields came with S3's head, and the rest fits the head room.
        let start = self.body_start - client_head.len();
        self.buf[start..self.body_start].copy_from_slice(client_head);
        let too_much = self.truncate_body(length);
        let remaining = length - (self.buf.len() - self.body_start) as u64;
        let (source_stall, ahead) = (self.stall_timeout, self.ahead);
        let read_ahead = self.read_ahead;
        let sink_stall = client_stall;
        let terms = Terms { source_stall, sink_stall, ahead, read_ahead, is_resumable };
        let buf = std::mem::take(&mut self.buf);
        let prefix = start..buf.len();
        if too_much {
            self.head.keep_alive = false;
        }
        let relay = Rc::clone(&self.relay);
        let report = relay.run(&mut self, client, buf, prefix, remaining, terms).await;
        let source_is_sound = !matches!(report.end, relay::End::SourceFailed(_)) && !too_much;
        self.finish(source_is_sound.then_some(report.remaining)).await;
        Sent { end: report.end, bytes: report.sent, remaining: report.remaining }
    }

    /// Reads over the first bytes of a whole object, of which only the `length` bytes behind them are
    /// wanted; `size` is that of the object.
    ///
    /// # Errors
    /// As `recv(2)`; `UnexpectedEof` where S3 has closed the connection.
    pub async fn skip(&mut self, count: u64, length: u64, size: u64) -> io::Result<()> {
        self.tail = size - count - length;
        self.begin_decoding()?;
        let came = (self.buf.len() - self.body_start) as u64;
        if count <= came {
            // Less than what is in memory, so it fits.
            self.buf.drain(self.body_start..self.body_start + count as usize);
            return Ok(());
        }
        let mut left = count - came;
        while left > 0 {
            self.buf.truncate(self.body_start);
            self.receive_more(left).await?;
            left -= (self.buf.len() - self.body_start) as u64;
        }
        self.buf.truncate(self.body_start);
        Ok(())
    }

    /// Decodes what came of the body with the head, and [gathers](Self::gather) more.
    async fn begin_body(&mut self, length: u64) -> io::Result<()> {
        self.begin_decoding()?;
        self.gather(length).await
    }

    /// From here on a chunked body is decoded, that of it included which came with the head.
    fn begin_decoding(&mut self) -> io::Result<()> {
        if self.head.body_length == BodyLength::Chunked && self.decoder.is_none() {
            let mut decoder = Box::<chunked::Decoder>::default();
            decode_behind(&mut decoder, &mut self.buf, self.body_start)?;
            self.decoder = Some(decoder);
        }
        Ok(())
    }

    /// Receives the first bytes of the body, and where the body of `length` bytes is small all of
    /// it, unless that takes long.
    ///
    /// # Errors
    /// As [`receive_more`](Self::receive_more).
    async fn gather(&mut self, length: u64) -> io::Result<()> {
        if self.missing(length) > 0 && self.buf.len() == self.body_start {
            self.receive_more(length).await?;
        }
        let missing = self.missing(length);
        let room = (self.buf.capacity() - self.buf.len()) as u64;
        if missing > 0 && missing <= room && length <= limits::GATHERED_BODY_BYTES {
            // Below the bound just compared with, so it fits.
            let Some(lease) = &mut self.lease else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            if lease.stream.readable_soon(missing as u32).await? {
                self.receive_more(missing).await?;
            }
        }
        Ok(())
    }

    /// How many bytes of a body of `length` bytes have not been received.
    fn missing(&self, length: u64) -> u64 {
        length.saturating_sub((self.buf.len() - self.body_start) as u64)
    }

    /// Receives up to `limit` bytes behind what the buffer holds.
    ///
    /// # Errors
    /// As `recv(2)`; `UnexpectedEof` where S3 has closed the connection.
    pub(super) async fn receive_more(&mut self, limit: u64) -> io::Result<()> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (buf, timeout) = (std::mem::take(&mut self.buf), self.stall_timeout);
        let (received, buf) = relay::Source::receive(self, buf, limit, timeout).await;
        self.buf = buf;
        match received? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Cuts what came with the head to `length` body bytes; `true` where more came, after which
    /// the connection cannot be believed any more.
    fn truncate_body(&mut self, length: u64) -> bool {
        let came = (self.buf.len() - self.body_start) as u64;
        if came > length {
            // Smaller than what is in memory, so it fits.
            self.buf.truncate(self.body_start + length as usize);
        }
        let beyond = came.saturating_sub(length);
        let too_much = beyond > self.tail;
        self.tail = self.tail.saturating_sub(beyond);
        too_much
    }

    /// Reads nothing more of the answer: the rest is thrown away or the connection closed,
    /// whichever costs less.
    pub async fn dismiss(self) {
        let remaining = match self.head.body_length {
            _ if self.declares_no_body() => (self.buf.len() == self.body_start).then_some(0),
            BodyLength::Known(length) => {
                length.checked_sub((self.buf.len() - self.body_start) as u64)
            }
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        self.finish(remaining).await;
    }

    /// Whether nothing of the body is left once the bytes that the client wants were received: a
    /// chunked one ends behind them, with its last chunk.
    async fn is_read_to_its_end(&mut self) -> bool {
        /// Bytes received at a time; the last chunk has five.
        const END_BYTES: usize = 1024;
        let Some(decoder) = &mut self.decoder else {
            return self.declares_no_body() || self.head.body_length != BodyLength::UntilClose;
        };
        while !decoder.is_done() {
            let Some(lease) = &mut self.lease else { return false };
            if !lease.stream.readable_soon(1).await.unwrap_or(false) {
                return false;
            }
            let buf = Vec::with_capacity(END_BYTES);
            let (received, mut buf) =
                lease.stream.receive(buf, END_BYTES, self.stall_timeout).await;
            let ends = matches!(received, Ok(1..)) && decoder.decode(&mut buf) == Ok(0);
            if !ends {
                return false;
            }
        }
        true
    }

    /// HEAD, 204 and 304 have no body, whatever their head declares (RFC 9112 §6.3).
    pub(super) fn declares_no_body(&self) -> bool {
        self.operation == Operation::Head
            || matches!(self.head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// Puts the connection back, or drops it. `remaining` are the body bytes not yet read, `None`
    /// where the connection is not usable any more.
    pub(super) async fn finish(mut self, remaining: Option<u64>) {
        let remaining = remaining.map(|remaining| remaining + self.tail);
        let keep = |remaining: &u64| {
            // What is left of a chunked body is not counted in bytes of the connection.
            let most = if self.decoder.is_some() { 0 } else { limits::DRAIN_BYTES };
            self.head.keep_alive && *remaining <= most
        };
        let mut buf = std::mem::take(&mut self.buf);
        if let Some(remaining) = remaining.filter(keep)
            && self.is_read_to_its_end().await
            && let Some(mut lease) = self.lease.take()
        {
            if remaining > 0 && buf.capacity() == 0 {
                buf = self.relay.buffers.take();
            }
            let (discarded, returned) =
                relay::copy::discard(&mut lease.stream, buf, remaining, self.stall_timeout).await;
            buf = returned;
            if discarded.is_ok() {
                lease.put_back();
            }
        }
        self.relay.buffers.put_back(buf);
    }
}

impl relay::Source for Response {
    fn transport(&mut self) -> Option<&mut Transport> {
        self.lease.as_mut().map(|lease| &mut lease.stream)
    }

    fn give_up(&mut self, remaining: u64) {
        self.relay.counters.s3_pauses.add(1);
        log::debug!("a client takes nothing: its connection to S3 is given up");
        let is_read = match &self.decoder {
            Some(decoder) => decoder.is_done(),
            None => self.head.body_length != BodyLength::UntilClose,
        };
        if let Some(lease) = self.lease.take()
            && remaining == 0
            && self.tail == 0
            && is_read
            && self.head.keep_alive
        {
            lease.put_back();
        }
    }

    fn is_plain(&self) -> bool {
        self.decoder.is_none()
    }

    async fn receive(
        &mut self,
        mut buf: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> BufResult<usize, Vec<u8>> {
        let Response { lease, decoder, .. } = self;
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
            // What came may have been framing alone.
            match decode_behind(decoder, &mut buf, start) {
                Ok(0) => {}
                decoded => return (decoded, buf),
            }
        }
    }
}

/// Decodes `buf[start..]` in its place and cuts the buffer behind it; returns the bytes that are left.
fn decode_behind(
    decoder: &mut chunked::Decoder,
    buf: &mut Vec<u8>,
    start: usize,
) -> io::Result<usize> {
    let decoded = decoder.decode(&mut buf[start..]);
    buf.truncate(start + decoded.unwrap_or(0));
    decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
