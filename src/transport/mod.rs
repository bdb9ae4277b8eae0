//! A connection to send and receive over: a socket, with or without TLS on it.

pub mod error_text;
pub mod tls;
pub mod trust;
mod verifier;

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use monoio::BufResult;

use crate::sys::stream::Stream;
use crate::transport::tls::TlsStream;

/// A connection.
pub enum Transport {
    /// The bytes are those of the socket.
    Plain(Stream),
    /// The bytes are encrypted in this process.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// As [`Stream::receive`].
    ///
    /// # Errors
    /// As [`Stream::receive`], or a [`TlsError`](tls::TlsError) inside; the end of a TLS stream
    /// without a `close_notify` alert is `UnexpectedEof` (RFC 8446 §6.1).
    pub async fn receive(
        &mut self,
        buf: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> BufResult<usize, Vec<u8>> {
        match self {
            Transport::Plain(stream) => stream.receive(buf, limit, timeout).await,
            Transport::Tls(stream) => stream.receive(buf, limit, timeout).await,
        }
    }

    /// As [`Stream::send`].
    ///
    /// # Errors
    /// As [`Stream::send`], or a [`TlsError`](tls::TlsError) inside.
    pub async fn send(
        &mut self,
        buf: Vec<u8>,
        range: Range<usize>,
        timeout: Duration,
    ) -> BufResult<(), Vec<u8>> {
        match self {
            Transport::Plain(stream) => stream.send(buf, range, timeout).await,
            Transport::Tls(stream) => stream.send(buf, range, timeout).await,
        }
    }

    /// As [`Stream::readable`], where bytes that were received but not taken count too.
    ///
    /// # Errors
    /// As [`Stream::readable`].
    pub async fn readable(&mut self, low_water: u32, deadline: Instant) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.readable(low_water, deadline).await,
            Transport::Tls(stream) => stream.readable(low_water, deadline).await,
        }
    }

    /// As [`Stream::readable_soon`], where bytes that were received but not taken count too.
    ///
    /// # Errors
    /// As [`Stream::readable_soon`].
    pub async fn readable_soon(&mut self, low_water: u32) -> io::Result<bool> {
        match self {
            Transport::Plain(stream) => stream.readable_soon(low_water).await,
            Transport::Tls(stream) => stream.readable_soon(low_water).await,
        }
    }

    /// As [`Stream::is_quiet`].
    pub fn is_quiet(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_quiet(),
            Transport::Tls(stream) => stream.is_quiet(),
        }
    }

    /// The socket below, for its options.
    pub fn socket(&mut self) -> &mut Stream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.socket(),
        }
    }

    /// The socket, where its bytes are those of the connection, so that the kernel may move them
    /// by itself. With TLS they are not, unless the kernel does the TLS: the place to say so.
    pub fn kernel_socket(&mut self) -> Option<&mut Stream> {
        match self {
            Transport::Plain(stream) => Some(stream),
            Transport::Tls(_) => None,
        }
    }
}
