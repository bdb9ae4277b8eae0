//! Sends requests for objects to S3, with corrections and retries, and returns the responses.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use http::StatusCode;
use monoio::time::sleep;

use crate::http1::range::ByteRange;
use crate::http1::response::{ResponseError, ResponseHead};
use crate::limits;
use crate::metrics::Metrics;
use crate::s3::body::{Body, Shared};
use crate::s3::bucket::{Bucket, BucketId};
use crate::s3::corrections::Corrections;
use crate::s3::error::ServiceError;
use crate::s3::request::{NoCredentials, ObjectRequest, Operation, Signed};
use crate::s3::request_writer::RequestWriter;
use crate::s3::response::Response;
use crate::s3::retry::{self, Budget, NoRetry, Tries};
use crate::sys::stream::Ahead;
use crate::transport::buffers::Buffers;
use crate::upstream::Settings;
use crate::upstream::connection::HeadError;
use crate::upstream::pool::{Destination, Lease, Pool, PoolError};

/// The S3 client of one worker.
pub(crate) struct Client {
    /// By bucket, each added by its first request.
    targets: RefCell<HashMap<BucketId, Rc<Target>, RandomState>>,
    /// The buckets of the current settings; `None` until they are replaced for the first time.
    live: RefCell<Option<HashSet<BucketId>>>,
    pool: Rc<Pool>,
    shared: Rc<Shared>,
    first_byte_timeout: Duration,
    retries: Cell<retry::Settings>,
    budget: Budget,
}

/// A bucket, and how one worker sends requests for its objects.
pub(super) struct Target {
    pub(super) bucket: Arc<Bucket>,
    pub(super) writer: RefCell<RequestWriter>,
    destination: RefCell<Rc<Destination>>,
}

/// A response, by its status.
pub(crate) enum Reply {
    /// 200 or 206: the object, or a part of it.
    Object(Response),
    /// 304: by a condition of the request, the copy that it names is current.
    NotModified(Response),
    /// Any other status.
    Error(ServiceError),
}

/// No response was received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There are no valid credentials to sign with.
    #[error(transparent)]
    Credentials(#[from] NoCredentials),
    /// No connection is free, or none could be opened.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The request could not be sent.
    #[error("cannot send the request to S3: {0}")]
    Send(io::Error),
    /// No complete head was received.
    #[error("S3: {0}")]
    Head(#[from] HeadError),
    /// The head is not that of a valid HTTP response.
    #[error("invalid response from S3: {0}")]
    Response(#[from] ResponseError),
}

impl ClientError {
    /// Whether S3 may have closed an idle connection while the request was on its way (RFC 9112
    /// §9.3.1). The request is then sent again: GET and HEAD are safe to repeat.
    fn is_closed_idle_connection(&self) -> bool {
        matches!(self, ClientError::Send(_) | ClientError::Head(HeadError::NoResponse(_)))
    }

    /// Whether a retry may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            ClientError::Pool(PoolError::Connect { error, .. }) => error.is_transient(),
            ClientError::Send(_) => true,
            ClientError::Head(error) => error.is_transient(),
            ClientError::Credentials(_)
            | ClientError::Pool(PoolError::Exhausted(_))
            | ClientError::Response(_) => false,
        }
    }
}

impl Client {
    /// A client that sends over the connections of `pool` and receives into `buffers`.
    pub(crate) fn new(
        pool: Rc<Pool>,
        buffers: Rc<Buffers>,
        metrics: Arc<Metrics>,
        upstream: &Settings,
        retries: retry::Settings,
    ) -> Client {
        let stall_timeout = upstream.stall_timeout;
        Client {
            targets: RefCell::default(),
            live: RefCell::default(),
            pool,
            shared: Rc::new(Shared { buffers, metrics, stall_timeout }),
            first_byte_timeout: upstream.first_byte_timeout,
            budget: Budget::new(&retries),
            retries: Cell::new(retries),
        }
    }

    /// Takes over reloaded settings, and drops the signing keys and destinations of buckets that
    /// are no longer `live`. Requests in progress continue.
    pub(crate) fn adopt(&self, retries: retry::Settings, live: HashSet<BucketId>) {
        self.retries.set(retries);
        self.budget.adopt(&retries);
        self.targets.borrow_mut().retain(|id, _| live.contains(id));
        self.live.replace(Some(live));
    }

    fn target(&self, bucket: &Arc<Bucket>) -> Rc<Target> {
        let mut targets = self.targets.borrow_mut();
        if let Some(target) = targets.get(&bucket.id) {
            return Rc::clone(target);
        }
        let (writer, destination) = located(bucket, &self.pool);
        let (writer, destination) = (RefCell::new(writer), RefCell::new(destination));
        let target = Rc::new(Target { bucket: Arc::clone(bucket), writer, destination });
        // A request that began before a reload may be for a bucket that was removed by it.
        if self.live.borrow().as_ref().is_none_or(|live| live.contains(&bucket.id)) {
            targets.insert(bucket.id, Rc::clone(&target));
        }
        target
    }

    /// Sends a request, with retries, and waits for the head of the response.
    ///
    /// # Errors
    /// See [`ClientError`]. An error response of S3 is [`Reply::Error`].
    pub(crate) async fn send(
        &self,
        bucket: &Arc<Bucket>,
        request: &ObjectRequest<'_>,
    ) -> Result<Reply, ClientError> {
        let mut tries = Tries::default();
        let outcome = self.send_within(&mut tries, bucket, request).await;
        if min_retry_wait(&outcome).is_none() {
            self.budget.earn();
            tries.succeed(&self.budget);
        }
        outcome
    }

    /// Reserves a retry of a failed request and returns the wait before it, at least `at_least`.
    /// The retry counts against the worker's budget only if `is_paid`.
    ///
    /// # Errors
    /// [`NoRetry`].
    pub(crate) fn next_try(
        &self,
        tries: &mut Tries,
        at_least: Duration,
        is_paid: bool,
    ) -> Result<Duration, NoRetry> {
        let budget = is_paid.then_some(&self.budget);
        tries.next(&self.retries.get(), budget, Instant::now(), at_least, fastrand::f64())
    }

    /// Notes that the last try succeeded, so that a later failure has all retries again.
    pub(crate) fn note_success(&self, tries: &mut Tries) {
        tries.succeed(&self.budget);
    }

    /// As [`send`](Self::send), with as many retries as `tries` has left.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn send_within(
        &self,
        tries: &mut Tries,
        bucket: &Arc<Bucket>,
        request: &ObjectRequest<'_>,
    ) -> Result<Reply, ClientError> {
        let target = &*self.target(bucket);
        let (mut corrections, mut signed) = (Corrections::default(), Signed::default());
        loop {
            let outcome = self.try_once(target, request, &mut signed).await;
            if corrections.may_help(&outcome) {
                // In a box: rare, and its state would be part of every request's.
                let corrected = Box::pin(corrections.make(target, &outcome, signed)).await;
                if corrected {
                    note_retry(target, request, &outcome);
                    continue;
                }
            }
            if let (Ok(Reply::Object(_) | Reply::NotModified(_)), Some(handle)) =
                (&outcome, &target.bucket.credentials)
            {
                handle.note_accepted(signed.generation);
            }
            let Some(at_least) = min_retry_wait(&outcome) else { return outcome };
            let wait = match self.next_try(tries, at_least, true) {
                Ok(wait) => wait,
                // The failure itself is logged when it is reported to the client.
                Err(reason) => {
                    log::debug!("no more retries {reason}");
                    return outcome;
                }
            };
            note_retry(target, request, &outcome);
            // Frees the memory of the failed try during the wait.
            drop(outcome);
            self.shared.metrics.s3_retries.add(1);
            // In a box: rare, and its state would be part of every request's.
            Box::pin(sleep(wait)).await;
        }
    }

    /// Sends a request once, and a second time if S3 had just closed the idle connection.
    async fn try_once(
        &self,
        target: &Target,
        request: &ObjectRequest<'_>,
        signed: &mut Signed,
    ) -> Result<Reply, ClientError> {
        target.follow_location(&self.pool);
        target.writer.borrow().check_credentials()?;
        let (destination, ahead) = (Rc::clone(&target.destination.borrow()), ahead(request));
        let mut permit = self.pool.permit().await?;
        match self.pool.reuse(permit, &destination, ahead) {
            Ok(lease) => match self.send_over(lease, target, request, signed).await {
                Err(error) if error.is_closed_idle_connection() => {
                    log::debug!("S3 closed an idle connection: opening another");
                    permit = self.pool.permit().await?;
                }
                done => return done,
            },
            Err(unused) => permit = unused,
        }
        // In a box: its timers would enlarge the state of every request several times.
        let lease = Box::pin(self.pool.connect(permit, &destination, ahead)).await?;
        self.send_over(lease, target, request, signed).await
    }

    async fn send_over(
        &self,
        mut lease: Lease,
        target: &Target,
        request: &ObjectRequest<'_>,
        signed: &mut Signed,
    ) -> Result<Reply, ClientError> {
        let Shared { buffers, metrics, stall_timeout } = &*self.shared;
        metrics.s3_requests.add(1);
        let crowded = self.pool.busy_connections() > limits::BUSY_CONNECTIONS_FOR_SMALL_BUFFERS;
        let mut buf = if crowded { Buffers::new_small() } else { buffers.take() };
        let written = target.writer.borrow_mut().write(request, &mut buf);
        match written {
            Ok(with) => *signed = with,
            Err(error) => {
                buffers.put_back(buf);
                lease.put_back();
                return Err(error.into());
            }
        }
        let request_bytes = limits::HEADROOM_BYTES..buf.len();
        let timeout = self.first_byte_timeout;
        let (sent, mut buf) = lease.stream.send(buf, request_bytes, timeout).await;
        if let Err(error) = sent {
            buffers.put_back(buf);
            return Err(ClientError::Send(error));
        }
        // The response is received into the same buffer, after the headroom.
        buf.truncate(limits::HEADROOM_BYTES);
        let leaves_body = request.leave_body_in_socket && lease.stream.kernel_socket().is_some();
        let limit = if leaves_body { limits::SPLICED_HEAD_BYTES } else { usize::MAX };
        let (received, buf) = lease.receive_head(buf, limit, timeout, *stall_timeout).await;
        let parsed = received.map_err(ClientError::from).and_then(|length| {
            let start = limits::HEADROOM_BYTES;
            let head = ResponseHead::parse(&buf[start..start + length])?;
            Ok((head, start + length))
        });
        let (head, body_start) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                buffers.put_back(buf);
                return Err(error);
            }
        };
        let body = Body::new(request.operation, &head, lease, &self.shared);
        let response = Response::new(head, (buf, body_start), body, ahead(request));
        match response.head().status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Reply::Object(response)),
            StatusCode::NOT_MODIFIED => Ok(Reply::NotModified(response)),
            // In a box: rare, and its state would be part of every request's.
            _ => Ok(Reply::Error(Box::pin(response.into_error()).await)),
        }
    }
}

/// A writer of requests for a bucket's current location, and the origin to connect to.
fn located(bucket: &Arc<Bucket>, pool: &Pool) -> (RequestWriter, Rc<Destination>) {
    let writer = RequestWriter::new(Arc::clone(bucket));
    let destination = pool.destination(&writer.location().origin);
    (writer.forwarded_by(destination.forwarder()), destination)
}

impl Target {
    /// Follows the bucket if a worker learned another region from S3.
    fn follow_location(&self, pool: &Pool) {
        if self.has_moved() {
            let (writer, destination) = located(&self.bucket, pool);
            self.destination.replace(destination);
            self.writer.replace(writer);
        }
    }

    /// Whether the next request would be sent to a former location of the bucket.
    pub(super) fn has_moved(&self) -> bool {
        !Arc::ptr_eq(&self.bucket.location(), self.writer.borrow().location())
    }
}

/// Logs a failure that is retried.
fn note_retry(target: &Target, request: &ObjectRequest<'_>, outcome: &Result<Reply, ClientError>) {
    match outcome {
        Ok(Reply::Error(error)) => log::info!(
            target: &error.log_target(&target.bucket.name),
            "{:?}: {error}; retrying",
            request.key
        ),
        Err(error) => log::debug!("{error}"),
        Ok(Reply::Object(_) | Reply::NotModified(_)) => {}
    }
}

/// The shortest wait before a retry after this outcome; `None` if a retry would not help.
fn min_retry_wait(outcome: &Result<Reply, ClientError>) -> Option<Duration> {
    match outcome {
        Ok(Reply::Error(error)) if error.is_transient() => {
            Some(Duration::from_secs(error.retry_after.unwrap_or(0)))
        }
        Err(error) if error.is_transient() => Some(Duration::ZERO),
        _ => None,
    }
}

/// How far S3 may send ahead of the body's reader. A client that names the end of a range usually
/// reads all of it; without an end it may stop at any byte.
fn ahead(request: &ObjectRequest<'_>) -> Ahead {
    match (request.operation, request.range) {
        (Operation::Head, _) => Ahead::Freely,
        (Operation::Get, Some(ByteRange::Closed { .. } | ByteRange::Suffix { .. })) => {
            Ahead::Freely
        }
        (Operation::Get, Some(ByteRange::From { .. }) | None) => Ahead::Little,
    }
}
