//! A connection to send and receive over: a socket, with or without TLS, to a server or a client.

pub(crate) mod buffers;
pub(crate) mod error_text;
mod session;
pub(crate) mod tls;
pub(crate) mod trust;
mod verifier;

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use monoio::BufResult;

use crate::sys::stream::Stream;
use crate::transport::tls::TlsStream;

pub(crate) enum Connection {
    /// The bytes are those of the socket.
    Plain(Stream),
    /// The bytes are encrypted in this process.
    Tls(Box<TlsStream>),
}

/// A source of body bytes for the relay.
pub(crate) trait Source {
    /// Its connection; `None` once it was given up.
    fn connection(&mut self) -> Option<&mut Connection>;

    /// The socket, if its bytes are those of the body, so that the kernel may move them.
    fn kernel_socket(&mut self) -> Option<&mut Stream>;

    /// Gives the connection up; `remaining` bytes of the body were not received.
    fn give_up(&mut self, remaining: u64);

    /// As [`Connection::receive`]. If the body is encoded on the connection, `limit` bounds the
    /// encoded bytes.
    fn receive(
        &mut self,
        buf: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> impl Future<Output = BufResult<usize, Vec<u8>>>;
}

impl Connection {
    /// As [`Stream::receive`].
    ///
    /// # Errors
    /// As [`Stream::receive`], or a [`TlsError`](tls::TlsError) inside; the end of a TLS stream
    /// without a `close_notify` alert is `UnexpectedEof` (RFC 8446 §6.1).
    pub(crate) async fn receive(
        &mut self,
        buf: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> BufResult<usize, Vec<u8>> {
        match self {
            Connection::Plain(stream) => stream.receive(buf, limit, timeout).await,
            // Boxed, here and below, or its state would be part of every idle plain connection.
            Connection::Tls(stream) => Box::pin(stream.receive(buf, limit, timeout)).await,
        }
    }

    /// As [`Stream::receive_idle`].
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(crate) async fn receive_idle(
        &mut self,
        buf: Vec<u8>,
        deadline: Instant,
        closable_from: Instant,
    ) -> BufResult<usize, Vec<u8>> {
        match self {
            Connection::Plain(stream) => stream.receive_idle(buf, deadline, closable_from).await,
            Connection::Tls(stream) => {
                Box::pin(stream.receive_idle(buf, deadline, closable_from)).await
            }
        }
    }

    /// As [`Stream::send`].
    ///
    /// # Errors
    /// As [`Stream::send`], or a [`TlsError`](tls::TlsError) inside.
    pub(crate) async fn send(
        &mut self,
        buf: Vec<u8>,
        range: Range<usize>,
        timeout: Duration,
    ) -> BufResult<(), Vec<u8>> {
        match self {
            Connection::Plain(stream) => stream.send(buf, range, timeout).await,
            Connection::Tls(stream) => Box::pin(stream.send(buf, range, timeout)).await,
        }
    }

    /// Tells the peer that no more bytes will be sent. Errors are ignored: they mean that the peer
    /// has closed already.
    pub(crate) async fn finish_sending(&mut self, timeout: Duration) {
        match self {
            Connection::Plain(_) => {}
            Connection::Tls(stream) => Box::pin(stream.send_close_notify(timeout)).await,
        }
        self.socket().finish_sending();
    }

    /// As [`Stream::readable`]; decrypted or received bytes inside TLS count too.
    ///
    /// # Errors
    /// As [`Stream::readable`].
    pub(crate) async fn readable(&mut self, low_water: u32, deadline: Instant) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.readable(low_water, deadline).await,
            Connection::Tls(stream) => stream.readable(low_water, deadline).await,
        }
    }

    /// As [`Stream::readable_soon`]; decrypted or received bytes inside TLS count too.
    ///
    /// # Errors
    /// As [`Stream::readable_soon`].
    pub(crate) async fn readable_soon(&mut self, low_water: u32) -> io::Result<bool> {
        match self {
            Connection::Plain(stream) => stream.readable_soon(low_water).await,
            Connection::Tls(stream) => stream.readable_soon(low_water).await,
        }
    }

    /// As [`Stream::has_unread_bytes`]; decrypted or received bytes inside TLS count too.
    pub(crate) fn has_unread_bytes(&self) -> bool {
        match self {
            Connection::Plain(stream) => stream.has_unread_bytes(),
            Connection::Tls(stream) => stream.has_unread_bytes(),
        }
    }

    /// As [`Stream::is_quiet`].
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Connection::Plain(stream) => stream.is_quiet(),
            Connection::Tls(stream) => stream.is_quiet(),
        }
    }

    /// The socket below, for its options and for waits until it takes more bytes.
    pub(crate) fn socket(&mut self) -> &mut Stream {
        match self {
            Connection::Plain(stream) => stream,
            Connection::Tls(stream) => stream.socket(),
        }
    }

    /// The socket, if its bytes are those of the connection, so that the kernel may move them by
    /// itself. With TLS they are not, unless the kernel does the TLS: this is the place to say so.
    pub(crate) fn kernel_socket(&mut self) -> Option<&mut Stream> {
        match self {
            Connection::Plain(stream) => Some(stream),
            Connection::Tls(_) => None,
        }
    }
}
