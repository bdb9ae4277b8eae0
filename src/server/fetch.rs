//! A GET that goes to S3. What S3 answers is judged again here, so that it does not matter how much
//! of HTTP an S3 server understands.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::http1::conditional::IfRange;
use crate::http1::framing::BodyLength;
use crate::http1::range::{ByteRange, ContentRange, Extent};
use crate::http1::request::Request;
use crate::relay;
use crate::s3::answer::Answer;
use crate::s3::client::{BucketId, Reply};
use crate::s3::name::ObjectName;
use crate::s3::object::{Metadata, content_range};
use crate::s3::request::{ObjectRequest, Operation};
use crate::s3::resume::Delivery;
use crate::server::answer::Failure;
use crate::server::core::{Core, Scratch};
use crate::server::explain::{describe, explain};
use crate::server::known::{forget, judge, recall};
use crate::server::writer::{Head, HeadWriter, Outcome};
use crate::sys::stream::Stream;

/// A GET that goes to S3.
pub struct Fetch<'a> {
    /// The core.
    pub core: &'a Core,
    /// The client's request.
    pub request: &'a Request<'a>,
    /// The object's bucket.
    pub bucket: BucketId,
    /// The range that S3 is asked for.
    pub range: Option<ByteRange>,
    /// The condition under which the range is to be served.
    pub if_range: Option<IfRange<'a>>,
}

/// What came of it.
pub enum Step {
    /// The client was answered.
    Answered(Outcome),
    /// The range is not to be served after all: ask again for the whole object.
    WithoutRange,
    /// S3 has no such range of the object. Whether that is what the client is to be told depends on
    /// the conditions, which only the object's metadata can answer.
    Unsatisfiable,
}

impl Fetch<'_> {
    /// Whether an object like this would be refused, or sent whole although a part is wanted.
    pub fn would_refuse(&self, object: &Metadata) -> bool {
        match judge(&self.request.preconditions, object) {
            Ok(304) => false,
            Ok(_) => !self.if_range_holds(object) || self.is_outside(object),
            Err(_) => true,
        }
    }

    /// Whether memory would answer 304 for an object of which no copy may be used unless S3 itself says
    /// so.
    pub fn is_validation(&self, object: &Metadata) -> bool {
        object.is_always_validated() && judge(&self.request.preconditions, object) == Ok(304)
    }

    /// Whether the range, if there is one, is to be served.
    pub fn if_range_holds(&self, object: &Metadata) -> bool {
        let holds = |condition: IfRange<'_>| condition.holds(object.validators());
        self.range.is_none() || self.if_range.is_none_or(holds)
    }

    /// Whether no byte of the range exists.
    pub fn is_outside(&self, object: &Metadata) -> bool {
        self.range.is_some_and(|range| range.resolve(object.size).is_none())
    }

    /// Asks S3 once, and answers the client.
    pub async fn once(&self, client: &mut Stream, scratch: &mut Scratch) -> Result<Step, Failure> {
        let asked = Instant::now();
        let s3_request = self.s3_request(&scratch.object);
        match self.core.s3.send(self.bucket, &s3_request).await.map_err(|e| describe(&e))? {
            Reply::Object(answer) if answer.head().status != 304 => {
                self.object(answer, asked, client, scratch).await
            }
            Reply::Object(answer) if !s3_request.conditions.is_empty() => {
                self.not_modified(answer, client, scratch).await
            }
            Reply::Object(_) => {
                log::warn!("S3 answered 304 to a request without a condition");
                Err(Failure::BadAnswer)
            }
            Reply::Refused(error) if error.status == 416 && self.range.is_some() => {
                Ok(Step::Unsatisfiable)
            }
            Reply::Refused(error) => {
                let failure = explain(self.core, self.bucket, &scratch.object, &error, asked);
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
            range: self.range,
            conditions: self.request.preconditions.for_s3(),
        }
    }

    async fn object(
        &self,
        answer: Answer,
        asked: Instant,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let Scratch { object, head, metadata } = &mut *scratch;
        let shown = self.core.shown(self.bucket, object);
        if !metadata.read(answer.head(), answer.head_bytes(), shown) {
            log::warn!("S3 does not say how large {object:?} is");
            return Err(Failure::BadAnswer);
        }
        let (name, now) = (object.as_str(), Instant::now());
        self.core.metadata.borrow_mut().learn_object(self.bucket, name, metadata, asked, now);

        match judge(&self.request.preconditions, metadata) {
            Ok(200) => {}
            Ok(_) => return self.not_modified(answer, client, scratch).await,
            Err(failure) => {
                answer.dismiss().await;
                return Err(failure);
            }
        }
        if !self.if_range_holds(metadata) {
            answer.dismiss().await;
            return Ok(Step::WithoutRange);
        }
        let extent = match self.extent(&answer, metadata, object) {
            Ok(extent) => extent,
            Err(failure) => {
                answer.dismiss().await;
                return Err(failure);
            }
        };
        let status = if extent.is_some() { 206 } else { 200 };
        let writer = HeadWriter { core: self.core, request: self.request };
        writer.write(head, &Head::of_object(status, metadata, extent));
        let delivery = Delivery {
            bucket: self.bucket,
            request: self.s3_request(object),
            etag: metadata.etag(),
            size: metadata.size,
            extent: extent.or_else(|| ByteRange::From { first: 0 }.resolve(metadata.size)),
            head,
            client_stall: self.core.config().clients.stall_timeout,
            changed: Cell::new(false),
        };
        let sent = self.core.s3.deliver(answer, &delivery, client).await;
        if delivery.changed.get() {
            forget(self.core, self.bucket, object);
        }
        let complete = matches!(sent.end, relay::End::Complete);
        match sent.end {
            // Why the body could not go on was said there.
            relay::End::Complete | relay::End::SourceGivenUp => {}
            relay::End::SinkFailed(error) => log::debug!("the client of {object:?} left: {error}"),
            relay::End::SourceFailed(error) => {
                log::warn!("S3 broke off the body of {object:?}: {error}");
                if sent.bytes == 0 {
                    return Err(match error.kind() {
                        std::io::ErrorKind::TimedOut => Failure::TimedOut,
                        _ => Failure::Unreachable,
                    });
                }
            }
        }
        Ok(Step::Answered(Outcome {
            status,
            body_bytes: sent.bytes.saturating_sub(head.len() as u64),
            // A body that is short must not be followed by another answer.
            keep_alive: complete && writer.keeps_connection(),
            complete,
        }))
    }

    /// The part of the object that the answer's body is, `None` for all of it as 200. The body's
    /// length is then certain.
    fn extent(
        &self,
        answer: &Answer,
        metadata: &Metadata,
        object: &ObjectName,
    ) -> Result<Option<Extent>, Failure> {
        let head = answer.head();
        let wanted = match self.range {
            Some(range) => match range.resolve(metadata.size) {
                Some(extent) => Some(extent),
                // S3 answers 200 for any range of an empty object.
                None => return Err(Failure::RangeNotSatisfiable { size: metadata.size }),
            },
            None => None,
        };
        let whole = |extent: &Extent| extent.length() == metadata.size;
        let makes_sense = match head.status {
            206 => {
                let given = content_range(head, answer.head_bytes());
                wanted.is_some_and(|extent| {
                    given == Some(ContentRange::Part { extent, size: metadata.size })
                        && head.body_length == BodyLength::Known(extent.length())
                })
            }
            // 206 even where the range is all of it: some clients take a 200 for "no ranges".
            _ => wanted.as_ref().is_none_or(whole),
        };
        if !makes_sense {
            log::warn!("S3's answer does not fit the range asked of {object:?}: {}", head.status);
            return Err(Failure::BadAnswer);
        }
        Ok(wanted)
    }

    async fn not_modified(
        &self,
        answer: Answer,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let Scratch { object, head, metadata } = &mut *scratch;
        // A 304 has no size; the fields it has are read nevertheless.
        metadata.read(answer.head(), answer.head_bytes(), self.core.shown(self.bucket, object));
        answer.dismiss().await;
        if metadata.etag().is_some() {
            // Conditions that S3 was not asked to judge may come before those that it was.
            judge(&self.request.preconditions, metadata)?;
        }
        let explains = |known: &Metadata| {
            judge(&self.request.preconditions, known) == Ok(304)
                && metadata.etag().is_none_or(|etag| known.etag() == Some(etag))
        };
        if self.remembered(object).is_some_and(|known| !explains(&known)) {
            forget(self.core, self.bucket, object);
        }
        let writer = HeadWriter { core: self.core, request: self.request };
        writer.write(head, &Head::of_object(304, metadata, None));
        Ok(Step::Answered(writer.send(client, scratch, 304).await))
    }

    /// What is remembered of the object, if it exists.
    fn remembered(&self, object: &ObjectName) -> Option<Rc<Metadata>> {
        recall(self.core, self.bucket, object, Duration::MAX)?.ok()
    }

    /// S3's 412 does not say what the object is now. If memory does not explain it, it is wrong.
    fn learn_precondition_failed(&self, object: &ObjectName) {
        let explains = |known: Rc<Metadata>| {
            judge(&self.request.preconditions, &known) == Err(Failure::PreconditionFailed)
        };
        if !self.remembered(object).is_some_and(explains) {
            forget(self.core, self.bucket, object);
        }
    }
}
