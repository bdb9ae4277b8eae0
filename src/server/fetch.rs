//! A GET that goes to S3. What S3 answers is judged again here, so that it does not matter how much
//! of HTTP an S3 server understands.

use std::time::Instant;

use crate::http1::conditional::IfRange;
use crate::http1::framing::BodyLength;
use crate::http1::range::{ByteRange, ContentRange, Extent};
use crate::http1::request::Request;
use crate::relay;
use crate::s3::answer::Answer;
use crate::s3::client::{BucketId, Reply};
use crate::s3::error::ServiceError;
use crate::s3::name::ObjectName;
use crate::s3::object::{Metadata, content_range};
use crate::s3::request::{ObjectRequest, Operation};
use crate::s3::resume::Delivery;
use crate::server::answer::Failure;
use crate::server::core::{Core, Scratch};
use crate::server::explain::{describe, explain};
use crate::server::known::{judge, known_object};
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
}

impl Fetch<'_> {
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
                self.unsatisfiable(&error, client, scratch).await
            }
            Reply::Refused(error) => {
                Err(explain(self.core, self.bucket, &scratch.object, &error, asked))
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
        let name = object.as_str();
        self.core.metadata.borrow_mut().learn_object(self.bucket, name, metadata, asked);

        match judge(&self.request.preconditions, metadata) {
            Ok(200) => {}
            Ok(_) => return self.not_modified(answer, client, scratch).await,
            Err(failure) => {
                answer.dismiss().await;
                return Err(failure);
            }
        }
        let condition_failed = |condition: IfRange<'_>| !condition.holds(metadata.validators());
        if self.range.is_some() && self.if_range.is_some_and(condition_failed) {
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
        };
        let sent = self.core.s3.deliver(answer, &delivery, client).await;
        let complete = matches!(sent.end, relay::End::Complete);
        match sent.end {
            relay::End::Complete => {}
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
        let writer = HeadWriter { core: self.core, request: self.request };
        writer.write(head, &Head::of_object(304, metadata, None));
        Ok(Step::Answered(writer.send(client, scratch, 304).await))
    }

    async fn unsatisfiable(
        &self,
        error: &ServiceError,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        // Where memory knew the object, it would have said so itself: it has changed.
        self.core.metadata.borrow_mut().forget(self.bucket, scratch.object.as_str());
        let conditions = &self.request.preconditions;
        if let (true, None, Some(size)) =
            (conditions.is_empty(), self.if_range, error.actual_object_size)
        {
            return Err(Failure::RangeNotSatisfiable { size });
        }
        // The range counts only if all conditions hold (RFC 9110 §13.2.2), which a 416 does not tell
        // of every server. The whole object's head does.
        let metadata = known_object(self.core, self.bucket, scratch).await?;
        if judge(conditions, &metadata)? == 304 {
            let writer = HeadWriter { core: self.core, request: self.request };
            writer.write(&mut scratch.head, &Head::of_object(304, &metadata, None));
            return Ok(Step::Answered(writer.send(client, scratch, 304).await));
        }
        if self.if_range.is_some_and(|condition| !condition.holds(metadata.validators())) {
            return Ok(Step::WithoutRange);
        }
        Err(Failure::RangeNotSatisfiable { size: metadata.size })
    }
}
