//! A GET that goes to S3. Conditions and ranges are evaluated again on S3's response, since S3
//! servers differ in how much of HTTP they implement.

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
use crate::server::lookup::{forget, recall};
use crate::server::response::{Head, Outcome};
use crate::server::worker::Scratch;
use crate::transport::Connection;

/// A GET that goes to S3.
pub(crate) struct Fetch<'a> {
    /// The client's request, and what it is served with.
    pub context: &'a Context<'a>,
    /// Where the object is.
    pub mount: &'a Mount,
    /// The range that S3 is asked for.
    pub range: Option<ByteRange>,
    /// The condition under which the range is to be served.
    pub if_range: Option<IfRange<'a>>,
    /// The cached metadata of the object.
    pub known: Option<Rc<Metadata>>,
}

/// Which part of the object the client gets.
struct Part {
    /// `None` is all of it, as 200.
    extent: Option<Extent>,
    /// Bytes of S3's body in front of the part, if it is cut out of the whole object. The rest
    /// behind it must not be left on the connection either.
    skip: Option<u64>,
}

/// How one request to S3 ended.
pub(crate) enum Step {
    /// The client was sent its response.
    Answered(Outcome),
    /// The range must not be served after all: ask again for the whole object.
    WithoutRange,
    /// The object is not the cached one, so that too little of it was asked for.
    Changed,
    /// S3's response does not say how large the object is, and the cache does not either.
    UnknownSize,
    /// S3 has no such range of the object. Whether the client gets a 416 depends on its conditions,
    /// which only the object's metadata can decide.
    Unsatisfiable,
}

impl Fetch<'_> {
    /// What the conditions of the request say about an object.
    pub(crate) fn judge(&self, object: &Metadata) -> Verdict {
        self.context.request.preconditions.evaluate(object.validators())
    }

    /// Whether an object like this would be refused, or sent whole although a part is wanted.
    pub(crate) fn would_refuse(&self, object: &Metadata) -> bool {
        match self.judge(object) {
            Verdict::NotModified => false,
            Verdict::Proceed => !self.if_range_holds(object) || self.is_outside(object),
            Verdict::PreconditionFailed => true,
        }
    }

    /// Whether the cache would respond 304 for an object of which no copy may be used unless S3
    /// itself says so.
    pub(crate) fn is_validation(&self, object: &Metadata) -> bool {
        self.judge(object) == Verdict::NotModified && object.is_always_validated()
    }

    /// Whether the range, if there is one, is to be served.
    pub(crate) fn if_range_holds(&self, object: &Metadata) -> bool {
        let holds = |condition: IfRange<'_>| condition.is_true(object.validators());
        self.range.is_none() || self.if_range.is_none_or(holds)
    }

    /// Whether no byte of the range exists.
    pub(crate) fn is_outside(&self, object: &Metadata) -> bool {
        self.range.is_some_and(|range| range.resolve(object.size).is_none())
    }

    /// Sends one request to S3, and responds to the client if that settles it.
    pub(crate) async fn once(
        &self,
        client: &mut Connection,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let asked = Instant::now();
        let s3_request = self.s3_request(&scratch.object);
        let sent = self.context.worker.s3.send(&self.mount.bucket, &s3_request).await;
        match sent.map_err(|error| map_client_error(&error))? {
            Reply::Object(response) => self.object(response, asked, client, scratch).await,
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
                    asked,
                );
                if failure == Failure::PreconditionFailed {
                    self.learn_precondition_failed(&scratch.object);
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

    /// Whether the body is going to be spliced, as far as its length is known before the response.
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
        match &self.known {
            Some(known) => self.range.map(|range| range.clamp(known.size)),
            None => self.range,
        }
    }

    /// Reads the metadata of S3's response, with the cached size if the response has none. `false`
    /// if there is no cached size either.
    fn read(&self, response: &Response, metadata: &mut Metadata, shown: Shown<'_>) -> bool {
        if metadata.read(response.head(), response.head_bytes(), shown) {
            return true;
        }
        let has_range = response.field(Field::ContentRange).is_some();
        let is_same = |known: &&Rc<Metadata>| known.validators() == metadata.validators();
        match self.known.as_ref().filter(is_same) {
            Some(known) if response.head().status == StatusCode::OK && !has_range => {
                metadata.size = known.size;
                true
            }
            _ => false,
        }
    }

    async fn object(
        &self,
        mut response: Response,
        asked: Instant,
        client: &mut Connection,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let Scratch { object, head, metadata } = &mut *scratch;
        let shown = self.context.live.shown(self.mount, object.key());
        if !self.read(&response, metadata, shown) {
            let has_range = response.field(Field::ContentRange).is_some();
            let is_whole = response.head().status == StatusCode::OK && !has_range;
            response.dismiss().await;
            if is_whole {
                return Ok(Step::UnknownSize);
            }
            log::warn!("S3 does not say how large {object:?} is");
            return Err(Failure::BadResponse);
        }
        let (id, now) = (object.id(self.mount.bucket.id), Instant::now());
        let worker = self.context.worker;
        worker.metrics.s3_first_byte_seconds.record(now - asked);
        worker.metadata.borrow_mut().store_object(id, metadata, asked, now);

        match self.judge(metadata) {
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
            && self.known.as_ref().is_some_and(|known| known.size != metadata.size)
        {
            response.dismiss().await;
            return Ok(Step::Changed);
        }
        let Part { extent, skip } = match self.part(&response, metadata, object) {
            Ok(part) => part,
            Err(failure) => {
                response.dismiss().await;
                return Err(failure);
            }
        };
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
            // A server that ignores ranges cannot be asked for the rest of one.
            etag: metadata.etag().filter(|_| skip.is_none()),
            size: metadata.size,
            extent: extent.or_else(|| ByteRange::From { first: 0 }.resolve(metadata.size)),
            head,
            client_stall: self.context.live.clients.stall_timeout,
        };
        let sent = delivery.run(response, client).await;
        if sent.object_changed {
            forget(self.context.worker, self.mount, object);
        }
        let complete = matches!(sent.end, End::Complete);
        match sent.end {
            // Why the body could not be resumed has been logged.
            End::Complete | End::SourceGivenUp => {}
            End::SinkFailed(error) => log::debug!("the client of {object:?} left: {error}"),
            End::SourceFailed(error) if sent.bytes > 0 => {
                log::warn!("S3 broke off the body of {object:?}: {error}");
            }
            End::SourceFailed(error) => return Err(map_body_error(object, &error)),
        }
        Ok(Step::Answered(Outcome {
            status,
            body_bytes: sent.bytes.saturating_sub(head.len() as u64),
            // A body that is cut short must not be followed by another response.
            keep_alive: complete && keep_alive,
            complete,
        }))
    }

    /// The part of S3's body that the client gets. Its length is then certain.
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
            // A part, whatever the status; some servers send the whole object as one.
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
                false => Err(unfit(head.status, object)),
            };
        }
        match wanted {
            None => Ok(Part { extent: None, skip: None }),
            // 206 even if the range is all of it: some clients take a 200 for "no ranges".
            Some(extent) if Some(extent) == whole => Ok(Part { extent: wanted, skip: None }),
            // The server ignores ranges, as it may (RFC 9110 §14.2).
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
        // A 304 has no size; the fields it has are read nevertheless.
        metadata.read(
            response.head(),
            response.head_bytes(),
            self.context.live.shown(self.mount, object.key()),
        );
        response.dismiss().await;
        if metadata.etag().is_some() {
            // Conditions that S3 was not sent may take precedence over those that it was.
            if self.judge(metadata) == Verdict::PreconditionFailed {
                return Err(Failure::PreconditionFailed);
            }
        }
        let explains = |known: &Metadata| {
            self.judge(known) == Verdict::NotModified
                && metadata.etag().is_none_or(|etag| known.etag() == Some(etag))
        };
        if self.cached(object).is_some_and(|known| !explains(&known)) {
            forget(self.context.worker, self.mount, object);
        }
        let outcome = self.context.write_head(head, &Head::not_modified(metadata));
        Ok(Step::Answered(self.context.send(client, head, outcome).await))
    }

    /// The cached metadata of the object, however old.
    fn cached(&self, object: &ObjectName) -> Option<Rc<Metadata>> {
        recall(self.context.worker, self.mount, object, Duration::MAX)?.ok()
    }

    /// S3's 412 does not say what the object is now. Cached metadata that does not explain the 412
    /// is out of date.
    fn learn_precondition_failed(&self, object: &ObjectName) {
        let explains = |known: Rc<Metadata>| self.judge(&known) == Verdict::PreconditionFailed;
        if !self.cached(object).is_some_and(explains) {
            forget(self.context.worker, self.mount, object);
        }
    }
}

fn unfit(status: StatusCode, object: &ObjectName) -> Failure {
    log::warn!("S3's response does not fit the range asked of {object:?}: {}", status.as_str());
    Failure::BadResponse
}
