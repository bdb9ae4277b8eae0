//! TLS on a socket, in either role: a [session](super::session) and the socket that it talks over.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::BufResult;
use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;

use crate::sys::stream::Stream;
use crate::transport::error_text::describe;
use crate::transport::session::{Session, State};

/// Largest record, in bytes: 2^14 of content, 256 of expansion and padding, the header (RFC 8446
/// §5.2); TLS 1.2 allows 2,048 of expansion, which no cipher suite of today needs.
const RECORD_BYTES: usize = CONTENT_BYTES + 256 + 5;

/// Largest content of a record, in bytes.
const CONTENT_BYTES: usize = 16 * 1024;

/// A TLS connection.
pub(crate) struct TlsStream {
    stream: Stream,
    session: Session,
}

/// A violation of TLS by the peer, or a failure of our own side of it. The text is for an operator.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.0))]
pub struct TlsError(#[from] rustls::Error);

/// On an open connection TLS fails as the socket does.
impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> io::Error {
        io::Error::other(error)
    }
}

/// The handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The socket failed, or nothing came in time.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server cannot prove its identity, or does not speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl TlsStream {
    /// Performs the handshake with a server that must authenticate as `name`.
    ///
    /// # Errors
    /// See [`HandshakeError`]; `TimedOut` after `timeout`.
    pub(crate) async fn connect(
        stream: Stream,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        timeout: Duration,
    ) -> Result<TlsStream, HandshakeError> {
        let session = Session::client(config, name)?;
        TlsStream { stream, session }.handshake(timeout).await
    }

    async fn handshake(mut self, timeout: Duration) -> Result<TlsStream, HandshakeError> {
        let deadline = Instant::now() + timeout;
        loop {
            let progress = self.session.process(&mut Vec::new(), 0);
            // After a failure too: the alert tells the peer why.
            self.flush(deadline).await?;
            progress?;
            match self.session.state {
                State::Handshake => self.receive_records(0, deadline, None).await?,
                State::Open => return Ok(self),
                State::Closed => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        }
    }

    /// The socket below.
    pub(crate) fn socket(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// As [`Stream::receive`].
    ///
    /// # Errors
    /// As [`Connection::receive`](super::Connection::receive).
    pub(crate) async fn receive(
        &mut self,
        buf: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> BufResult<usize, Vec<u8>> {
        self.receive_until(buf, limit, Instant::now() + timeout, None).await
    }

    /// As [`Stream::receive_idle`].
    ///
    /// # Errors
    /// As [`Connection::receive`](super::Connection::receive).
    pub(crate) async fn receive_idle(
        &mut self,
        buf: Vec<u8>,
        deadline: Instant,
        closable_from: Instant,
    ) -> BufResult<usize, Vec<u8>> {
        self.receive_until(buf, usize::MAX, deadline, Some(closable_from)).await
    }

    async fn receive_until(
        &mut self,
        mut buf: Vec<u8>,
        limit: usize,
        deadline: Instant,
        closable_from: Option<Instant>,
    ) -> BufResult<usize, Vec<u8>> {
        let room = limit.min(buf.capacity() - buf.len());
        let mut wanted = room;
        loop {
            match self.session.process(&mut buf, room) {
                Ok(0) if room > 0 && self.session.state != State::Closed => {}
                done => {
                    // Slow readers are many and hold their connection for long.
                    self.session.incoming.shrink_to_fit();
                    self.session.plain.shrink_to_fit();
                    return (done.map_err(io::Error::from), buf);
                }
            }
            let received = match self.flush(deadline).await {
                Ok(()) => self.receive_records(wanted, deadline, closable_from).await,
                failed => failed,
            };
            // The end of a record may be long in coming: no more memory than for that.
            wanted = 0;
            if let Err(error) = received {
                return (Err(error), buf);
            }
        }
    }

    /// As [`Stream::send`].
    ///
    /// # Errors
    /// As [`Connection::send`](super::Connection::send).
    pub(crate) async fn send(
        &mut self,
        buf: Vec<u8>,
        range: Range<usize>,
        timeout: Duration,
    ) -> BufResult<(), Vec<u8>> {
        let sent = match self.session.encrypt(&buf[range]) {
            Ok(()) => self.flush(Instant::now() + timeout).await,
            failed => failed,
        };
        (sent, buf)
    }

    /// As [`Stream::readable_soon`]. The mark counts bytes of records, which are larger than their
    /// content.
    ///
    /// # Errors
    /// As [`Stream::readable_soon`].
    pub(crate) async fn readable_soon(&mut self, low_water: u32) -> io::Result<bool> {
        match self.missing(low_water) {
            0 => Ok(true),
            missing => self.stream.readable_soon(missing).await,
        }
    }

    /// As [`Stream::readable`], in bytes of records too.
    ///
    /// # Errors
    /// As [`Stream::readable`].
    pub(crate) async fn readable(&mut self, low_water: u32, deadline: Instant) -> io::Result<()> {
        match self.missing(low_water) {
            0 => Ok(()),
            missing => self.stream.readable(missing, deadline).await,
        }
    }

    /// Bytes to receive before there are `low_water` of them; 0 if decrypted bytes are left.
    fn missing(&self, low_water: u32) -> u32 {
        match self.session.plain.is_empty() {
            true => low_water.saturating_sub(self.session.incoming.len() as u32),
            false => 0,
        }
    }

    /// Whether bytes of the peer have arrived that were not taken yet.
    pub(crate) fn has_unread_bytes(&self) -> bool {
        !self.session.plain.is_empty()
            || !self.session.incoming.is_empty()
            || self.stream.has_unread_bytes()
    }

    /// As [`Stream::is_quiet`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.session.state == State::Open
            && self.session.plain.is_empty()
            && self.session.incoming.is_empty()
            && self.stream.is_quiet()
    }

    /// Tells the peer that nothing follows, if it still takes bytes.
    pub(crate) async fn send_close_notify(&mut self, timeout: Duration) {
        if self.session.close().is_ok() {
            let _ = self.flush(Instant::now() + timeout).await;
        }
    }

    /// Sends the encrypted bytes.
    async fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        if self.session.outgoing.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.session.outgoing);
        let length = out.len();
        self.stream.send(out, 0..length, left_until(deadline)).await.0
    }

    /// Receives more encrypted bytes: as many records as have room in `room` bytes when decrypted,
    /// so that no plaintext has to be kept, but at least one.
    async fn receive_records(
        &mut self,
        room: usize,
        deadline: Instant,
        closable_from: Option<Instant>,
    ) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.session.incoming);
        let size = (room / CONTENT_BYTES).max(1) * RECORD_BYTES;
        incoming.shrink_to(size);
        incoming.reserve_exact(size.saturating_sub(incoming.len()).max(1));
        let (received, incoming) =
            self.stream.receive_until(incoming, usize::MAX, deadline, closable_from).await;
        self.session.incoming = incoming;
        match received? {
            // Without close_notify the data may be truncated (RFC 8446 §6.1).
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed without TLS's close_notify",
            )),
            _ => Ok(()),
        }
    }
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
