//! One response of S3: its head, the first bytes of its body, and the [`Body`] that receives the
//! rest.
//!
//! The body can be relayed ([`into_parts`](Response::into_parts)), read into memory
//! ([`read_all`](Response::read_all)), or skipped ([`dismiss`](Response::dismiss)).

use std::io;
use std::ops::Range;

use monoio::BufResult;

use crate::http1::framing::BodyLength;
use crate::http1::response::{Field, ResponseHead};
use crate::limits;
use crate::s3::body::Body;
use crate::sys::stream::Ahead;

/// A response whose head was read. Dropping it closes its connection.
pub(crate) struct Response {
    head: ResponseHead,
    /// [`limits::HEADROOM_BYTES`] to write into, the head, the first bytes of the body.
    buf: Vec<u8>,
    body_start: usize,
    body: Body,
    ahead: Ahead,
}

impl Response {
    /// `received` is the receive buffer, and where the body starts in it.
    pub(super) fn new(
        head: ResponseHead,
        received: (Vec<u8>, usize),
        body: Body,
        ahead: Ahead,
    ) -> Response {
        let (buf, body_start) = received;
        Response { head, buf, body_start, body, ahead }
    }

    /// The head.
    pub(crate) fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The bytes that the head was parsed from.
    pub(crate) fn head_bytes(&self) -> &[u8] {
        &self.buf[limits::HEADROOM_BYTES..self.body_start]
    }

    /// The value of a header field.
    pub(crate) fn field(&self, field: Field) -> Option<&[u8]> {
        self.head.field(self.head_bytes(), field)
    }

    /// How far S3 may send ahead of the body's reader.
    pub(crate) fn ahead(&self) -> Ahead {
        self.ahead
    }

    /// Skips the first `count` bytes of a whole object of `size` bytes, to read the `length` bytes
    /// after them.
    ///
    /// # Errors
    /// As `recv(2)`; `UnexpectedEof` if S3 has closed the connection.
    pub(crate) async fn skip(&mut self, count: u64, length: u64, size: u64) -> io::Result<()> {
        self.body.tail = size - count - length;
        self.body.begin(&mut self.buf, self.body_start)?;
        let received = self.received_bytes();
        if count <= received {
            // Less than what is in memory, so it fits.
            self.buf.drain(self.body_start..self.body_start + count as usize);
            return Ok(());
        }
        let mut left = count - received;
        while left > 0 {
            self.buf.truncate(self.body_start);
            self.receive_more(left).await?;
            left -= self.received_bytes();
        }
        self.buf.truncate(self.body_start);
        Ok(())
    }

    /// Receives the first bytes of a body of `length` bytes, and all of a small one unless that
    /// takes long. Returns how many are still to be received.
    ///
    /// # Errors
    /// As `recv(2)` or for an invalid chunked coding, but only if no byte was received: a later error
    /// occurs again when the rest is read.
    pub(crate) async fn begin_body(&mut self, length: u64) -> io::Result<u64> {
        if let Err(error) = self.receive_first_bytes(length).await
            && self.received_bytes() == 0
        {
            return Err(error);
        }
        let beyond = self.received_bytes().saturating_sub(length);
        // Smaller than what is in memory, so it fits.
        self.buf.truncate(self.buf.len() - beyond as usize);
        if beyond > self.body.tail {
            self.body.prevent_reuse();
        }
        self.body.tail = self.body.tail.saturating_sub(beyond);
        Ok(self.missing(length))
    }

    async fn receive_first_bytes(&mut self, length: u64) -> io::Result<()> {
        self.body.begin(&mut self.buf, self.body_start)?;
        if self.missing(length) > 0 && self.received_bytes() == 0 {
            self.receive_more(length).await?;
        }
        let missing = self.missing(length);
        let room = (self.buf.capacity() - self.buf.len()) as u64;
        let is_small = missing <= room && length <= limits::GATHERED_BODY_BYTES;
        // Below the bound just compared with, so it fits.
        if missing > 0 && is_small && self.body.readable_soon(missing as u32).await? {
            self.receive_more(missing).await?;
        }
        Ok(())
    }

    /// The receive buffer; the range of it that holds `before` and right behind it the first bytes
    /// of the body, so that both leave in one send; the source of the rest. `before` overwrites the
    /// head and the headroom in front of it, and must not be longer.
    pub(crate) fn into_parts(mut self, before: &[u8]) -> (Vec<u8>, Range<usize>, Body) {
        let start = self.body_start - before.len();
        self.buf[start..self.body_start].copy_from_slice(before);
        let range = start..self.buf.len();
        (self.buf, range, self.body)
    }

    /// Reads the body into memory and puts the connection back. An error returns the bytes before
    /// it too.
    ///
    /// # Errors
    /// As `recv(2)` or for an invalid chunked coding; `UnexpectedEof` if the body was cut short,
    /// `FileTooLarge` if it has not ended after `limit` bytes.
    pub(crate) async fn read_all(&mut self, limit: usize) -> BufResult<(), Vec<u8>> {
        let mut text = Vec::new();
        if let Err(error) = self.body.begin(&mut self.buf, self.body_start) {
            return (Err(error), text);
        }
        text.extend_from_slice(&self.buf[self.body_start..]);
        self.buf.truncate(self.body_start);
        let read = self.body.read_to_end(&mut text, limit).await;
        (read, text)
    }

    /// Ends the response without reading its body: discards a short rest to keep the connection, or
    /// closes it.
    pub(crate) async fn dismiss(self) {
        let remaining = match self.body.length() {
            BodyLength::Known(length) => length.checked_sub(self.received_bytes()),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        let mut body = self.recycle();
        if let Some(remaining) = remaining {
            body.finish(remaining).await;
        }
    }

    /// Puts the receive buffer back into its pool.
    pub(super) fn recycle(self) -> Body {
        self.body.buffers().put_back(self.buf);
        self.body
    }

    /// Body bytes in the buffer.
    fn received_bytes(&self) -> u64 {
        (self.buf.len() - self.body_start) as u64
    }

    /// Bytes of a body of `length` bytes that were not received yet.
    fn missing(&self, length: u64) -> u64 {
        length.saturating_sub(self.received_bytes())
    }

    async fn receive_more(&mut self, limit: u64) -> io::Result<()> {
        let buf = std::mem::take(&mut self.buf);
        let (received, buf) = self.body.receive_more(buf, limit).await;
        self.buf = buf;
        received
    }
}
