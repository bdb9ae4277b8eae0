//! Sends a GET to S3 and its response to the client. Conditions and ranges are evaluated again on
//! S3's response, since S3 servers differ in how much of HTTP they implement.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::http1::conditional::{IfRange, Verdict};
use crate::http1::range::{ByteRange, ContentRange, Extent};
use crate::http1::response::Field;
use crate::limits;
use crate::policy::route::Mount;
use crate::relay::End;
use crate::s3::client::Reply;
use crate::s3::object::{Metadata, Shown, content_range};
use crate::s3::object_name::ObjectName;
use crate::s3::request::{ObjectRequest, Operation};
use crate::s3::response::Response;
use crate::server::context::Context;
use crate::server::delivery::Delivery;
use crate::server::error_mapping::{
    log_unsatisfiable_range, map_body_error, map_client_error, map_service_error,
};
use crate::server::failure::Failure;
use crate::server::lookup::{cached_metadata, invalidate};
use crate::server::response::{Head, Outcome};
use crate::server::worker::Scratch;
use crate::transport::Connection;

/// A GET of an object, over one or more requests to S3.
pub(crate) struct Get<'a> {
    pub context: &'a Context<'a>,
    pub mount: &'a Mount,
    /// Starts as the client's range; `None` serves the whole object.
    pub range: Option<ByteRange>,
    pub if_range: Option<IfRange<'a>>,
    /// Cached metadata of the object. It clamps the range and supplies a size that S3 omits.
    pub cached: Option<Rc<Metadata>>,
}

/// The part of the object to send.
struct Part {
    /// `None` is the whole object, with status 200.
    extent: Option<Extent>,
    /// Bytes to skip before the part, if S3 ignored the range and sends the whole object.
    skip: Option<u64>,
}

/// The result of one request to S3.
pub(crate) enum Step {
    /// The response was sent to the client.
    Done(Outcome),
    /// `If-Range` does not hold: request the whole object.
    WithoutRange,
    /// The cached size is outdated, so the range was clamped wrongly.
    Changed,
    /// Neither S3's response nor the cache has the object's size.
    UnknownSize,
    /// S3 responded 416. The client gets one only if its conditions hold, which the object's
    /// metadata decides.
    Unsatisfiable,
}

impl Get<'_> {
    /// Evaluates the conditions of the request.
    pub(crate) fn evaluate(&self, object: &Metadata) -> Verdict {
        self.context.request.preconditions.evaluate(object.validators())
    }

    /// Whether the response would be 412 or 416, or the whole object instead of the range.
    pub(crate) fn would_refuse(&self, object: &Metadata) -> bool {
        match self.evaluate(object) {
            Verdict::NotModified => false,
            Verdict::Proceed => !self.if_range_holds(object) || self.is_outside(object),
            Verdict::PreconditionFailed => true,
        }
    }

    /// Whether the response would be 304 for an object whose copies S3 itself must validate
    /// (`no-cache` or `max-age=0`).
    pub(crate) fn needs_validation(&self, object: &Metadata) -> bool {
        self.evaluate(object) == Verdict::NotModified && object.is_always_validated()
    }

    /// Whether `If-Range` allows the range; also `true` without a range.
    pub(crate) fn if_range_holds(&self, object: &Metadata) -> bool {
        let holds = |condition: IfRange<'_>| condition.is_true(object.validators());
        self.range.is_none() || self.if_range.is_none_or(holds)
    }

    /// Whether the range cannot be satisfied.
    pub(crate) fn is_outside(&self, object: &Metadata) -> bool {
        self.range.is_some_and(|range| range.resolve(object.size).is_none())
    }

    /// Sends one request to S3 and, unless another one is needed, the response to the client.
    pub(crate) async fn send(
        &self,
        client: &mut Connection,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let sent_at = Instant::now();
        let s3_request = self.s3_request(&scratch.object);
        let sent = self.context.worker.s3.send(&self.mount.bucket, &s3_request).await;
        match sent.map_err(|error| map_client_error(&error))? {
            Reply::Object(response) => self.object(response, sent_at, client, scratch).await,
            Reply::NotModified(response) if !s3_request.conditions.is_empty() => {
                self.not_modified(response, client, scratch).await
            }
            Reply::NotModified(_) => {
                log::warn!("S3 responded 304 to a request without a condition");
                Err(Failure::BadResponse)
            }
            Reply::Error(error)
                if error.status == StatusCode::RANGE_NOT_SATISFIABLE && self.range.is_some() =>
            {
                log_unsatisfiable_range(self.mount, &scratch.object, &error);
                Ok(Step::Unsatisfiable)
            }
            Reply::Error(error) => {
                let failure = map_service_error(
                    self.context.worker,
                    self.mount,
                    &scratch.object,
                    &error,
                    sent_at,
                );
                if failure == Failure::PreconditionFailed {
                    self.invalidate_unless_412(&scratch.object);
                }
                Err(failure)
            }
        }
    }

    fn s3_request<'k>(&self, object: &'k ObjectName) -> ObjectRequest<'k>
    where
        Self: 'k,
    {
        ObjectRequest {
            operation: Operation::Get,
            key: object.key(),
            version_id: object.version_id(),
            range: self.range_for_s3(),
            conditions: self.context.request.preconditions.for_s3(),
            leave_body_in_socket: self.splices(),
        }
    }

    /// Whether the body will be spliced. Without a closed range its length is not known yet.
    fn splices(&self) -> bool {
        match self.range_for_s3() {
            Some(ByteRange::Closed { first, last }) => {
                self.context.worker.relay.splices(last - first)
            }
            _ => false,
        }
    }

    /// The range, clamped to the object's cached size.
    fn range_for_s3(&self) -> Option<ByteRange> {
        match &self.cached {
            Some(cached) => self.range.map(|range| range.clamp(cached.size)),
            None => self.range,
        }
    }

    /// Reads the metadata of S3's response, with the cached size if the response lacks one. `false`
    /// if there is no cached size either.
    fn read(&self, response: &Response, metadata: &mut Metadata, shown: Shown<'_>) -> bool {
        if metadata.read(response.head(), response.head_bytes(), shown) {
            return true;
        }
        let has_range = response.field(Field::ContentRange).is_some();
        let is_same = |cached: &&Rc<Metadata>| cached.validators() == metadata.validators();
        match self.cached.as_ref().filter(is_same) {
            Some(cached) if response.head().status == StatusCode::OK && !has_range => {
                metadata.size = cached.size;
                true
            }
            _ => false,
        }
    }

    /// Checks S3's 200 or 206, and sends it to the client if it fits the request.
    async fn object(
        &self,
        response: Response,
        sent_at: Instant,
        client: &mut Connection,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let Scratch { object, metadata, .. } = &mut *scratch;
        let shown = self.context.live.shown(self.mount, object.key());
        if !self.read(&response, metadata, shown) {
            let has_range = response.field(Field::ContentRange).is_some();
            let is_whole = response.head().status == StatusCode::OK && !has_range;
            response.dismiss().await;
            if is_whole {
                return Ok(Step::UnknownSize);
            }
            log::warn!("S3 sent {object:?} without its size");
            return Err(Failure::BadResponse);
        }
        let (id, now) = (object.id(self.mount.bucket.id), Instant::now());
        let worker = self.context.worker;
        worker.metrics.s3_first_byte_seconds.record(now - sent_at);
        worker.metadata.borrow_mut().store_object(id, metadata, sent_at, now);

        match self.evaluate(metadata) {
            Verdict::Proceed => {}
            Verdict::NotModified => return self.not_modified(response, client, scratch).await,
            Verdict::PreconditionFailed => {
                response.dismiss().await;
                return Err(Failure::PreconditionFailed);
            }
        }
        if !self.if_range_holds(metadata) {
            response.dismiss().await;
            return Ok(Step::WithoutRange);
        }
        if self.range_for_s3() != self.range
            && self.cached.as_ref().is_some_and(|cached| cached.size != metadata.size)
        {
            response.dismiss().await;
            return Ok(Step::Changed);
        }
        match self.part(&response, metadata, object) {
            Ok(part) => self.deliver(response, part, client, scratch).await.map(Step::Done),
            Err(failure) => {
                response.dismiss().await;
                Err(failure)
            }
        }
    }

    /// Sends the client its head and the part.
    async fn deliver(
        &self,
        mut response: Response,
        Part { extent, skip }: Part,
        client: &mut Connection,
        scratch: &mut Scratch,
    ) -> Result<Outcome, Failure> {
        let Scratch { object, head, metadata } = &mut *scratch;
        if let (Some(skip), Some(extent)) = (skip, extent)
            && let Err(error) = response.skip(skip, extent.length(), metadata.size).await
        {
            return Err(map_body_error(object, &error));
        }
        let keep_alive = self.context.keeps_connection();
        let client_head = Head::of_object(metadata, extent);
        let status = client_head.status;
        self.context.write_head(head, &client_head);
        let delivery = Delivery {
            worker: self.context.worker,
            bucket: &self.mount.bucket,
            request: self.s3_request(object),
            // Without a tag there is no resume, which a server that ignores ranges cannot serve.
            etag: metadata.etag().filter(|_| skip.is_none()),
            size: metadata.size,
            extent: extent.or_else(|| ByteRange::From { first: 0 }.resolve(metadata.size)),
            head,
            client_stall: self.context.live.clients.stall_timeout,
        };
        let sent = delivery.run(response, client).await;
        if sent.object_changed {
            invalidate(self.context.worker, self.mount, object);
        }
        let complete = matches!(sent.end, End::Complete);
        match sent.end {
            // The failed resume has been logged.
            End::Complete | End::SourceGivenUp => {}
            End::SinkFailed(error) => log::debug!("the client of {object:?} disconnected: {error}"),
            End::SourceFailed(error) if sent.bytes > 0 => {
                log::warn!("S3 broke off the body of {object:?}: {error}");
            }
            End::SourceFailed(error) => return Err(map_body_error(object, &error)),
        }
        Ok(Outcome {
            status,
            body_bytes: sent.bytes.saturating_sub(head.len() as u64),
            // No other response may follow an incomplete body.
            keep_alive: complete && keep_alive,
            complete,
        })
    }

    /// The part to send, if S3's response has exactly the bytes that it should have.
    fn part(
        &self,
        response: &Response,
        metadata: &Metadata,
        object: &ObjectName,
    ) -> Result<Part, Failure> {
        let head = response.head();
        let size = metadata.size;
        let wanted = match self.range {
            Some(range) => match range.resolve(size) {
                Some(extent) => Some(extent),
                // S3 responds 200 to any range of an empty object.
                None => return Err(Failure::RangeNotSatisfiable { size }),
            },
            None => None,
        };
        let whole = ByteRange::From { first: 0 }.resolve(size);
        if response.field(Field::ContentRange).is_some() {
            // A part, also with status 200: some servers send the whole object like that.
            let given = match content_range(head, response.head_bytes()) {
                Some(ContentRange::Part { extent, size: of }) if of == size => Some(extent),
                _ => None,
            };
            let length = given.map_or(0, Extent::length);
            let fits = given == wanted.or(whole)
                && head.body_length.allows(length)
                && (wanted.is_some() || head.status == StatusCode::OK);
            return match fits {
                true => Ok(Part { extent: wanted, skip: None }),
                false => Err(mismatch(head.status, object)),
            };
        }
        match wanted {
            None => Ok(Part { extent: None, skip: None }),
            // 206 also for the range of the whole object: some clients take 200 to mean that the
            // server does not support ranges.
            Some(extent) if Some(extent) == whole => Ok(Part { extent: wanted, skip: None }),
            // The server ignored the range, which RFC 9110 §14.2 allows.
            Some(extent) if extent.first <= limits::SKIPPED_BYTES => {
                Ok(Part { extent: wanted, skip: Some(extent.first) })
            }
            Some(_) => Ok(Part { extent: None, skip: None }),
        }
    }

    async fn not_modified(
        &self,
        response: Response,
        client: &mut Connection,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let Scratch { object, head, metadata } = &mut *scratch;
        // `false`, since a 304 has no size; its other fields are read.
        metadata.read(
            response.head(),
            response.head_bytes(),
            self.context.live.shown(self.mount, object.key()),
        );
        response.dismiss().await;
        if metadata.etag().is_some() {
            // S3 was sent only some of the conditions, and others may take precedence.
            if self.evaluate(metadata) == Verdict::PreconditionFailed {
                return Err(Failure::PreconditionFailed);
            }
        }
        let agrees = |cached: &Metadata| {
            self.evaluate(cached) == Verdict::NotModified
                && metadata.etag().is_none_or(|etag| cached.etag() == Some(etag))
        };
        if self.latest_cached(object).is_some_and(|cached| !agrees(&cached)) {
            invalidate(self.context.worker, self.mount, object);
        }
        let outcome = self.context.write_head(head, &Head::not_modified(metadata));
        Ok(Step::Done(self.context.send(client, head, outcome).await))
    }

    /// The object's metadata in the cache at this time, of any age.
    fn latest_cached(&self, object: &ObjectName) -> Option<Rc<Metadata>> {
        cached_metadata(self.context.worker, self.mount, object, Duration::MAX)?.ok()
    }

    /// S3 responded 412: evicts cached metadata for which the conditions hold, as it is outdated.
    fn invalidate_unless_412(&self, object: &ObjectName) {
        let agrees = |cached: Rc<Metadata>| self.evaluate(&cached) == Verdict::PreconditionFailed;
        if !self.latest_cached(object).is_some_and(agrees) {
            invalidate(self.context.worker, self.mount, object);
        }
    }
}

fn mismatch(status: StatusCode, object: &ObjectName) -> Failure {
    log::warn!("S3's {} does not match the range requested of {object:?}", status.as_str());
    Failure::BadResponse
}
