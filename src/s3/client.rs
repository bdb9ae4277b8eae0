//! Sends a request for an object to S3 and gives out the answer's head, then its body.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::http1::chunked;
use crate::http1::framing::BodyLength;
use crate::http1::range::ByteRange;
use crate::http1::response::{Field, ResponseError, ResponseHead};
use crate::limits;
use crate::relay::{self, Relay, Terms};
use crate::s3::bucket::Bucket;
use crate::s3::error::ServiceError;
use crate::s3::request::{NoCredentials, ObjectRequest, Operation, RequestWriter};
use crate::sys::stream::{Ahead, Stream};
use crate::upstream::conn::HeadError;
use crate::upstream::pool::{Lease, Pool, PoolError};
use crate::upstream::{OriginId, Settings};

/// A bucket's position in the list that was given to [`Client::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketId(pub usize);

/// The S3 client of one core.
pub struct Client {
    buckets: Vec<(RefCell<RequestWriter>, OriginId)>,
    pool: Rc<Pool>,
    relay: Rc<Relay>,
    settings: Settings,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing to sign with.
    #[error(transparent)]
    Credentials(#[from] NoCredentials),
    /// No connection.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The request could not be sent.
    #[error("the request could not be sent to S3: {0}")]
    Send(io::Error),
    /// No usable head came back.
    #[error("S3: {0}")]
    Head(#[from] HeadError),
    /// The head makes no sense.
    #[error("S3's answer makes no sense: {0}")]
    Response(#[from] ResponseError),
}

impl ClientError {
    /// Whether another try may succeed where nothing but the idle connection was at fault: S3
    /// closed it while the request was on its way (RFC 9112 §9.3.1). GET and HEAD are safe to
    /// repeat.
    fn is_closed_idle_connection(&self) -> bool {
        matches!(self, ClientError::Send(_) | ClientError::Head(HeadError::NoAnswer(_)))
    }
}

impl Client {
    /// A client for `buckets`, each with its origin's position in the pool.
    pub fn new(
        buckets: Vec<(Bucket, OriginId)>,
        pool: Rc<Pool>,
        relay: Rc<Relay>,
        settings: Settings,
    ) -> Client {
        let writer = |(bucket, origin)| (RefCell::new(RequestWriter::new(bucket)), origin);
        Client { buckets: buckets.into_iter().map(writer).collect(), pool, relay, settings }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// See [`ClientError`]. What S3 itself answers, errors included, is an [`Answer`].
    pub async fn send(
        &self,
        bucket: BucketId,
        request: &ObjectRequest<'_>,
    ) -> Result<Answer, ClientError> {
        let origin = self.buckets[bucket.0].1;
        let ahead = ahead(request);
        if let Some(lease) = self.pool.reuse(origin, ahead) {
            match self.send_over(lease, bucket, request).await {
                Err(error) if error.is_closed_idle_connection() => {
                    log::debug!("an idle connection had been closed by S3: trying a new one");
                }
                done => return done,
            }
        }
        let lease = self.pool.connect(origin, ahead).await?;
        self.send_over(lease, bucket, request).await
    }

    async fn send_over(
        &self,
        mut lease: Lease,
        bucket: BucketId,
        request: &ObjectRequest<'_>,
    ) -> Result<Answer, ClientError> {
        self.relay.counters.s3_requests.add(1);
        let crowded = self.pool.busy_connections() > limits::UNCROWDED_CONNECTIONS;
        let buffers = &self.relay.buffers;
        let mut buf = if crowded { buffers.take_small() } else { buffers.take() };
        if let Err(error) = self.buckets[bucket.0].0.borrow_mut().write(request, &mut buf) {
            buffers.put_back(buf);
            lease.put_back();
            return Err(error.into());
        }
        let request_bytes = limits::HEADROOM_BYTES..buf.len();
        let timeout = self.settings.first_byte_timeout;
        let (sent, mut buf) = lease.stream.send(buf, request_bytes, timeout).await;
        if let Err(error) = sent {
            self.relay.buffers.put_back(buf);
            return Err(ClientError::Send(error));
        }
        // The same buffer takes the answer, behind room for the client's head.
        buf.truncate(limits::HEADROOM_BYTES);
        let limit = match request.range {
            Some(ByteRange::Closed { first, last }) if self.relay.splices(last - first) => {
                limits::SPLICED_HEAD_BYTES
            }
            _ => usize::MAX,
        };
        let stall = self.settings.stall_timeout;
        let (received, buf) = lease.receive_head(buf, limit, timeout, stall).await;
        let parsed = received.map_err(ClientError::from).and_then(|length| {
            let start = limits::HEADROOM_BYTES;
            let head = ResponseHead::parse(&buf[start..start + length])?;
            Ok((head, start + length))
        });
        match parsed {
            Ok((head, body_start)) => Ok(Answer {
                operation: request.operation,
                ahead: ahead(request),
                head,
                body_start,
                buf,
                lease,
                relay: Rc::clone(&self.relay),
                stall_timeout: self.settings.stall_timeout,
            }),
            Err(error) => {
                self.relay.buffers.put_back(buf);
                Err(error)
            }
        }
    }
}

/// How far S3 may send ahead of the client. Whoever names the end of a range wants all of it; who
/// does not may leave any time.
fn ahead(request: &ObjectRequest<'_>) -> Ahead {
    match (request.operation, request.range) {
        (Operation::Head, _) => Ahead::Freely,
        (Operation::Get, Some(ByteRange::Closed { .. } | ByteRange::Suffix { .. })) => {
            Ahead::Freely
        }
        (Operation::Get, Some(ByteRange::From { .. }) | None) => Ahead::Little,
    }
}

/// An answer of S3: its head read, its body not yet.
///
/// Dropped, it closes its connection; each of the methods that consume it gives the connection
/// back to the pool where the body was read to its end and S3 keeps it open.
pub struct Answer {
    operation: Operation,
    ahead: Ahead,
    head: ResponseHead,
    /// Where the body bytes that came with the head start in `buf`.
    body_start: usize,
    buf: Vec<u8>,
    lease: Lease,
    relay: Rc<Relay>,
    stall_timeout: Duration,
}

/// How a body's way to the client ended.
#[derive(Debug)]
pub struct Sent {
    /// How it ended.
    pub end: relay::End,
    /// Bytes that the client was sent, its head included; 0 where S3 failed before that.
    pub bytes: u64,
}

impl Answer {
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
    /// `client`.
    pub async fn send_to(
        mut self,
        client: &mut Stream,
        client_head: &[u8],
        length: u64,
        client_stall: Duration,
    ) -> Sent {
        // Head and body leave in one send where the buffer holds them, and otherwise the head with
        // the body's first bytes; where those never come, the client can still be told so.
        if let Err(error) = self.gather(length).await {
            self.finish(None).await;
            return Sent { end: relay::End::SourceFailed(error), bytes: 0 };
        }
        // S3's head has been read out of the buffer; the client's takes its place, right before
        // the body. It fits: its fields came with S3's head, and the rest fits the head room.
        let start = self.body_start - client_head.len();
        self.buf[start..self.body_start].copy_from_slice(client_head);
        let too_much = self.truncate_body(length);
        let remaining = length - (self.buf.len() - self.body_start) as u64;
        let (source_stall, ahead) = (self.stall_timeout, self.ahead);
        let terms = Terms { source_stall, sink_stall: client_stall, ahead };
        let buf = std::mem::take(&mut self.buf);
        let prefix = start..buf.len();
        let source = &mut self.lease.stream;
        let report = self.relay.run(source, client, buf, prefix, remaining, terms).await;
        let source_is_sound = !matches!(report.end, relay::End::SourceFailed(_)) && !too_much;
        self.finish(source_is_sound.then_some(report.remaining)).await;
        Sent { end: report.end, bytes: report.sent }
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
            if self.lease.stream.readable_soon(missing as u32).await? {
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
    async fn receive_more(&mut self, limit: u64) -> io::Result<()> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let buf = std::mem::take(&mut self.buf);
        let (received, buf) = self.lease.stream.receive(buf, limit, self.stall_timeout).await;
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
        came > length
    }

    /// Reads the answer as an error of S3, body included.
    pub async fn into_error(mut self) -> ServiceError {
        let (body, remaining) = self.read_error_body().await;
        let error = ServiceError::parse(self.head.status, &body, self.field(Field::RequestId));
        self.finish(remaining).await;
        error
    }

    /// The body as far as it could be read, and how many bytes of it are still to come (`None`
    /// where that is not known, so that the connection must be closed).
    async fn read_error_body(&mut self) -> (Vec<u8>, Option<u64>) {
        if self.declares_no_body() {
            return (Vec::new(), Some(0));
        }
        let limit = self.body_start + limits::ERROR_BODY_BYTES;
        let mut decoded = Vec::new();
        loop {
            let came = &self.buf[self.body_start..];
            match self.head.body_length {
                BodyLength::Known(length) if came.len() as u64 >= length => {
                    let exact = came.len() as u64 == length;
                    return (came[..length as usize].to_vec(), exact.then_some(0));
                }
                BodyLength::Chunked => match chunked::decode(came, &mut decoded) {
                    Ok(chunked::Progress::Complete(length)) => {
                        let exact = came.len() == length;
                        return (decoded, exact.then_some(0));
                    }
                    Ok(chunked::Progress::Incomplete) => {}
                    Err(chunked::ChunkedError) => return (decoded, None),
                },
                BodyLength::Known(_) | BodyLength::UntilClose => {}
            }
            let room = limit.saturating_sub(self.buf.len()) as u64;
            if room == 0 || self.receive_more(room).await.is_err() {
                let body = match self.head.body_length {
                    BodyLength::Chunked => decoded,
                    _ => self.buf[self.body_start..].to_vec(),
                };
                return (body, None);
            }
        }
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

    /// HEAD, 204 and 304 have no body, whatever their head declares (RFC 9112 §6.3).
    fn declares_no_body(&self) -> bool {
        self.operation == Operation::Head || matches!(self.head.status, 204 | 304)
    }

    /// Puts the connection back, or drops it. `remaining` are the body bytes not yet read, `None`
    /// where the connection is not usable any more.
    async fn finish(mut self, remaining: Option<u64>) {
        let keep = |remaining: &u64| self.head.keep_alive && *remaining <= limits::DRAIN_BYTES;
        let mut buf = std::mem::take(&mut self.buf);
        if let Some(remaining) = remaining.filter(keep) {
            if remaining > 0 && buf.capacity() == 0 {
                buf = self.relay.buffers.take();
            }
            let (discarded, returned) =
                relay::copy::discard(&mut self.lease.stream, buf, remaining, self.stall_timeout)
                    .await;
            buf = returned;
            if discarded.is_ok() {
                self.lease.put_back();
            }
        }
        self.relay.buffers.put_back(buf);
    }
}
