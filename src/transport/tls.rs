//! TLS on a socket, as the client of it.
//!
//! rustls does the cryptography and never touches the socket. A record is received into `incoming`
//! and decrypted in its place there; rustls hands its plaintext out in memory of its own, and from
//! there it is copied once, behind what the caller's buffer holds, to be sent from that buffer.
//! Between two answers no memory is held but that of the session itself.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::BufResult;
use rustls::client::{ClientConfig, ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};

use crate::sys::stream::Stream;
use crate::transport::error_text::words;

/// Largest record, in bytes: 2^14 of content, 256 of expansion and padding, the header (RFC 8446
/// §5.2); TLS 1.2 allows 2,048 of expansion, which no cipher suite of today needs.
const RECORD_BYTES: usize = CONTENT_BYTES + 256 + 5;

/// Largest content of a record, in bytes.
const CONTENT_BYTES: usize = 16 * 1024;

/// A TLS connection.
pub struct TlsStream {
    stream: Stream,
    session: UnbufferedClientConnection,
    /// Received, not decrypted yet: less than a record, or more than the caller had room for.
    incoming: Vec<u8>,
    /// Decrypted, not taken yet.
    plain: Vec<u8>,
    /// Encrypted, not sent yet.
    outgoing: Vec<u8>,
    state: State,
}

/// A violation of TLS by the peer, or a failure of our own side of it. The text is for an operator.
#[derive(Debug, thiserror::Error)]
#[error("{}", words(.0))]
pub struct TlsError(#[from] rustls::Error);

/// On an open connection TLS fails as the socket does.
impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> io::Error {
        io::Error::other(error)
    }
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket failed, or nothing came in time.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server cannot prove its identity, or does not speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake,
    Open,
    /// The peer has said that nothing follows.
    Closed,
}

impl TlsStream {
    /// Shakes hands with the server that is to prove itself to be `name`.
    ///
    /// # Errors
    /// See [`HandshakeError`]; `TimedOut` after `timeout`.
    pub async fn connect(
        stream: Stream,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        timeout: Duration,
    ) -> Result<TlsStream, HandshakeError> {
        let deadline = Instant::now() + timeout;
        let mut tls = TlsStream {
            stream,
            session: UnbufferedClientConnection::new(Arc::clone(config), name).map_err(TlsError)?,
            incoming: Vec::new(),
            plain: Vec::new(),
            outgoing: Vec::new(),
            state: State::Handshake,
        };
        loop {
            let progress = tls.process(&mut Vec::new(), 0);
            // What the server is to be told even where the handshake has failed: the alert.
            tls.flush(deadline).await?;
            progress?;
            match tls.state {
                State::Handshake => tls.receive_records(0, deadline, None).await?,
                State::Open => return Ok(tls),
                State::Closed => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        }
    }

    /// The socket below.
    pub fn socket(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// As [`Stream::receive`].
    ///
    /// # Errors
    /// As [`Connection::receive`](super::Connection::receive).
    pub async fn receive(
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
    pub async fn receive_idle(
        &mut self,
        buf: Vec<u8>,
        deadline: Instant,
        yields_from: Instant,
    ) -> BufResult<usize, Vec<u8>> {
        self.receive_until(buf, usize::MAX, deadline, Some(yields_from)).await
    }

    async fn receive_until(
        &mut self,
        mut buf: Vec<u8>,
        limit: usize,
        deadline: Instant,
        yields_from: Option<Instant>,
    ) -> BufResult<usize, Vec<u8>> {
        let room = limit.min(buf.capacity() - buf.len());
        let mut wanted = room;
        loop {
            match self.process(&mut buf, room) {
                Ok(0) if room > 0 && self.state != State::Closed => {}
                done => {
                    // Slow readers are many and hold their connection for long.
                    self.incoming.shrink_to_fit();
                    self.plain.shrink_to_fit();
                    return (done.map_err(io::Error::from), buf);
                }
            }
            let received = match self.flush(deadline).await {
                Ok(()) => self.receive_records(wanted, deadline, yields_from).await,
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
    pub async fn send(
        &mut self,
        buf: Vec<u8>,
        range: Range<usize>,
        timeout: Duration,
    ) -> BufResult<(), Vec<u8>> {
        let sent = match self.encrypt(&buf[range]) {
            Ok(()) => self.flush(Instant::now() + timeout).await,
            failed => failed,
        };
        (sent, buf)
    }

    /// As [`Stream::readable_soon`]. Records are larger than what is in them, so as many bytes of
    /// them are awaited.
    ///
    /// # Errors
    /// As [`Stream::readable_soon`].
    pub async fn readable_soon(&mut self, low_water: u32) -> io::Result<bool> {
        match self.missing(low_water) {
            0 => Ok(true),
            missing => self.stream.readable_soon(missing).await,
        }
    }

    /// As [`Stream::readable`], in bytes of records too.
    ///
    /// # Errors
    /// As [`Stream::readable`].
    pub async fn readable(&mut self, low_water: u32, deadline: Instant) -> io::Result<()> {
        match self.missing(low_water) {
            0 => Ok(()),
            missing => self.stream.readable(missing, deadline).await,
        }
    }

    /// Bytes to be received before there are `low_water` of them, or 0 where some can be taken
    /// without.
    fn missing(&self, low_water: u32) -> u32 {
        match self.plain.is_empty() {
            true => low_water.saturating_sub(self.incoming.len() as u32),
            false => 0,
        }
    }

    /// Whether bytes of the peer have arrived that were not taken yet.
    pub fn has_unread_bytes(&self) -> bool {
        !self.plain.is_empty() || !self.incoming.is_empty() || self.stream.has_unread_bytes()
    }

    /// As [`Stream::is_quiet`].
    pub fn is_quiet(&self) -> bool {
        self.state == State::Open
            && self.plain.is_empty()
            && self.incoming.is_empty()
            && self.stream.is_quiet()
    }

    /// Tells the peer that nothing follows, as far as it still takes bytes.
    pub async fn send_close_notify(&mut self, timeout: Duration) {
        let status = self.session.process_tls_records(&mut []);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
            let queued = encode(&mut self.outgoing, |out| {
                traffic.queue_close_notify(out).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => Ok(size.required_size),
                    error @ EncryptError::EncryptExhausted => Err(error.to_string()),
                })
            });
            if queued.is_ok() {
                let _ = self.flush(Instant::now() + timeout).await;
            }
        }
    }

    /// Decrypts into `buf` what was received, as far as that has `room`, and lets the session
    /// answer what is to be answered. Answers with the bytes that came to `buf`.
    fn process(&mut self, buf: &mut Vec<u8>, room: usize) -> Result<usize, TlsError> {
        let taken = room.min(self.plain.len());
        buf.extend(self.plain.drain(..taken));
        let mut left = room - taken;
        let mut consumed = 0;
        let result = loop {
            if self.state == State::Open && left == 0 {
                break Ok(room - left);
            }
            let TlsStream { session, incoming, plain, outgoing, state, .. } = self;
            let UnbufferedStatus { mut discard, state: event, .. } =
                session.process_tls_records(&mut incoming[consumed..]);
            let mut waits = false;
            match event {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let fits = left.min(record.payload.len());
                        buf.extend_from_slice(&record.payload[..fits]);
                        plain.extend_from_slice(&record.payload[fits..]);
                        left -= fits;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode_handshake(outgoing, &mut data)?;
                }
                // Sent by the caller before anything is waited for.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(_)) => {
                    *state = State::Open;
                    waits = true;
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    *state = State::Closed;
                    waits = true;
                }
                Ok(_) => waits = true,
                Err(error) => {
                    self.encode_alert(consumed + discard);
                    return Err(error.into());
                }
            }
            consumed += discard;
            if waits {
                break Ok(room - left);
            }
        };
        self.incoming.drain(..consumed);
        result
    }

    /// After an error: takes the alert that the session has for the peer, if there is one.
    fn encode_alert(&mut self, consumed: usize) {
        self.incoming.drain(..consumed.min(self.incoming.len()));
        let status = self.session.process_tls_records(&mut []);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state {
            // It has no other use than to be helpful.
            let _ = encode_handshake(&mut self.outgoing, &mut data);
        }
    }

    /// Encrypts `bytes` behind what is to be sent.
    fn encrypt(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Whatever came meanwhile is dealt with first; what it brings is kept.
        let mut plain = std::mem::take(&mut self.plain);
        let came = self.process(&mut plain, usize::MAX);
        self.plain = plain;
        came?;
        let status = self.session.process_tls_records(&mut []);
        match status.state.map_err(TlsError)? {
            ConnectionState::WriteTraffic(mut traffic) => Ok(encode(&mut self.outgoing, |out| {
                traffic.encrypt(bytes, out).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => Ok(size.required_size),
                    error @ EncryptError::EncryptExhausted => Err(error.to_string()),
                })
            })?),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Sends what is to be sent.
    async fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.outgoing);
        let length = out.len();
        self.stream.send(out, 0..length, left_until(deadline)).await.0
    }

    /// Receives more of what the peer encrypted: as many records as `room` bytes hold the content
    /// of, so that none of it has to be kept, but at least one.
    async fn receive_records(
        &mut self,
        room: usize,
        deadline: Instant,
        yields_from: Option<Instant>,
    ) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let size = (room / CONTENT_BYTES).max(1) * RECORD_BYTES;
        incoming.shrink_to(size);
        incoming.reserve_exact(size.saturating_sub(incoming.len()).max(1));
        let (received, incoming) =
            self.stream.receive_until(incoming, usize::MAX, deadline, yields_from).await;
        self.incoming = incoming;
        match received? {
            // Somebody between us may have cut the connection: not the end that the peer meant.
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

/// Takes what the session has to say of itself.
fn encode_handshake(
    out: &mut Vec<u8>,
    data: &mut EncodeTlsData<'_, ClientConnectionData>,
) -> Result<(), TlsError> {
    encode(out, |out| {
        data.encode(out).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Ok(size.required_size),
            error @ EncodeError::AlreadyEncoded => Err(error.to_string()),
        })
    })
}

/// Has `write` append to `out`. It says either how many bytes it wrote, how many it needs, or what
/// is wrong.
fn encode(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Result<usize, String>>,
) -> Result<(), TlsError> {
    let start = out.len();
    let mut room = 0;
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Ok(needed)) if needed > room => room = needed,
            Err(Ok(_)) => return Err(general("TLS cannot say what room it needs")),
            Err(Err(reason)) => return Err(general(reason)),
        }
    }
}

fn general(reason: impl Into<String>) -> TlsError {
    TlsError(rustls::Error::General(reason.into()))
}
