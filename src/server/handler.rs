//! One request, from its head to the last byte of its answer.
//!
//! The steps, in order: method → CORS preflight → mount and key → what is known of the object →
//! conditions and range → S3 → the answer's head → the body. Each step may end the request with a
//! [`Failure`]. What S3 answers is always judged again here, so that it does not matter how much
//! of HTTP an S3 server understands.
//!
//! # What a request costs
//!
//! In steady state, on a connection that is kept. Operations of the event loop are, with io_uring,
//! entries of a queue that all connections submit together; with epoll each is a system call, and
//! one that finds nothing to receive is one more. `tests/request_allocations.rs` counts the heap.
//!
//! | | HEAD of a known object | GET of up to 64 KiB | GET that is spliced |
//! |---|---|---|---|
//! | operations | receive, send | receive, send to S3, receive, send | the same, and a wait for each time that S3 or the client is not ready |
//! | system calls besides | – | peek at the pooled connection | the peek; two `splice(2)` for each wait |
//! | allocations | 0 | 1 (the request's own state) | 1 |
//! | bytes copied here | the head, once | the client's head, in front of the body where S3's was | as before |
//! | bytes copied by the kernel | the head | head and body, in and out | what came with S3's head |

use std::rc::Rc;
use std::time::Instant;

use crate::cache::flight::Turn;
use crate::cache::metadata::Known;
use crate::http1::conditional::{IfRange, Preconditions, Verdict};
use crate::http1::framing::BodyLength;
use crate::http1::range::{ByteRange, ContentRange, Extent};
use crate::http1::request::{Method, Request};
use crate::http1::target::{Target, percent_decode};
use crate::limits;
use crate::mount;
use crate::relay;
use crate::s3::client::{Answer, BucketId, ClientError};
use crate::s3::error::{Kind, ServiceError};
use crate::s3::object::{Metadata, content_range};
use crate::s3::request::{ObjectRequest, Operation};
use crate::s3::source::Source;
use crate::server::answer::Failure;
use crate::server::core::{Core, Scratch};
use crate::server::writer::{Head, HeadWriter, Outcome};
use crate::sys::stream::Stream;
use crate::upstream::conn::HeadError;
use crate::upstream::pool::PoolError;

/// Answers one request.
pub async fn handle(
    core: &Core,
    request: &Request<'_>,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Outcome {
    let writer = HeadWriter { core, request };
    let answered = match request.method {
        Method::Other => Err(Failure::Method),
        _ if request.has_body => Err(Failure::Body),
        Method::Options => {
            writer.options(&mut scratch.head);
            return writer.send(client, scratch, 204).await;
        }
        Method::Head => head(core, request, client, scratch).await,
        // In a box of its own for as long as it lasts: its many states would otherwise be part of
        // every idle connection. One allocation, some tens of nanoseconds.
        Method::Get => Box::pin(get(core, request, client, scratch)).await,
    };
    match answered {
        Ok(outcome) => outcome,
        Err(failure) => writer.send_failure(client, scratch, failure).await,
    }
}

/// The object that a request is about.
fn locate(core: &Core, request: &Request<'_>, key: &mut String) -> Result<BucketId, Failure> {
    let Target::Resource { path, .. } = request.target else { return Err(Failure::NotMounted) };
    let config = core.config();
    let (bucket, mount, rest) = mount::route(&config.mounts, path).ok_or(Failure::NotMounted)?;
    if rest.is_empty() {
        return Err(Failure::NotMounted);
    }
    key.clear();
    percent_decode(rest, limits::KEY_BYTES, key).map_err(Failure::Key)?;
    config.rewrite_rules.apply(key);
    mount.prepend_prefix(key).map_err(Failure::Key)?;
    if key.is_empty() { Err(Failure::NotMounted) } else { Ok(bucket) }
}

async fn head(
    core: &Core,
    request: &Request<'_>,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    let bucket = locate(core, request, &mut scratch.key)?;
    let metadata = match recall(core, bucket, &scratch.key) {
        Some(known) => known?,
        None => {
            release_earlier_answers(core, client).await;
            Box::pin(known_object(core, bucket, scratch)).await?
        }
    };
    let writer = HeadWriter { core, request };
    let status = judge(&request.preconditions, &metadata)?;
    writer.write(&mut scratch.head, &Head::of_object(status, &metadata, None));
    Ok(writer.send(client, scratch, status).await)
}

/// Sends what pipelined requests before this one were answered: they must not wait for S3.
pub async fn release_earlier_answers(core: &Core, client: &mut Stream) {
    if client.held_bytes() > 0 {
        // A client that is gone is noticed when its next answer is sent.
        let _ = client.release(core.config().clients.stall_timeout).await;
    }
}

/// 200 or 304, or the failure 412.
fn judge(conditions: &Preconditions<'_>, metadata: &Metadata) -> Result<u16, Failure> {
    match conditions.evaluate(metadata.validators()) {
        Verdict::Proceed => Ok(200),
        Verdict::NotModified => Ok(304),
        Verdict::PreconditionFailed => Err(Failure::PreconditionFailed),
    }
}

async fn get(
    core: &Core,
    request: &Request<'_>,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    release_earlier_answers(core, client).await;
    let bucket = locate(core, request, &mut scratch.key)?;
    let mut range = request.range.and_then(ByteRange::parse);
    let if_range = request.if_range.map(IfRange::parse);

    // What memory can answer does not go to S3. `If-None-Match: *` only asks whether there is an
    // object, which S3's GET cannot be asked.
    let only_existence = request.preconditions.if_none_match == Some(b"*");
    let known = match recall(core, bucket, &scratch.key) {
        None if only_existence => Some(known_object(core, bucket, scratch).await?),
        known => known.transpose()?,
    };
    if let Some(metadata) = known {
        if judge(&request.preconditions, &metadata)? == 304 {
            let writer = HeadWriter { core, request };
            writer.write(&mut scratch.head, &Head::of_object(304, &metadata, None));
            return Ok(writer.send(client, scratch, 304).await);
        }
        if if_range.is_some_and(|condition| !condition.holds(metadata.validators())) {
            range = None;
        }
        if range.is_some_and(|range| range.resolve(metadata.size).is_none()) {
            return Err(Failure::RangeNotSatisfiable { size: metadata.size });
        }
    }

    let mut fetch = Fetch { core, request, bucket, range, if_range };
    loop {
        match fetch.once(client, scratch).await? {
            Step::Answered(outcome) => return Ok(outcome),
            Step::WithoutRange => fetch.range = None,
        }
    }
}

/// What the core remembers of an object, a remembered failure included.
fn recall(core: &Core, bucket: BucketId, key: &str) -> Option<Result<Rc<Metadata>, Failure>> {
    let known = core.metadata.borrow_mut().get(bucket, key, Instant::now())?;
    Some(existing(known))
}

fn existing(known: Known) -> Result<Rc<Metadata>, Failure> {
    match known {
        Known::Object(metadata) => Ok(metadata),
        Known::NotFound => Err(Failure::NotFound),
        Known::AccessDenied => Err(Failure::AccessDenied),
    }
}

/// An object's metadata from memory or, asked once for all who want it, from S3.
async fn known_object(
    core: &Core,
    bucket: BucketId,
    scratch: &mut Scratch,
) -> Result<Rc<Metadata>, Failure> {
    if let Some(known) = recall(core, bucket, &scratch.key) {
        return known;
    }
    let asked = match core.flights.join(bucket, &scratch.key).await {
        Turn::Landed(answer) => answer.unwrap_or(Err(Failure::BadAnswer)),
        Turn::Lead(lead) => {
            let answer = ask_for_metadata(core, bucket, scratch).await;
            lead.land(answer.clone());
            answer
        }
    };
    existing(asked?)
}

async fn ask_for_metadata(
    core: &Core,
    bucket: BucketId,
    scratch: &mut Scratch,
) -> Result<Known, Failure> {
    let asked = Instant::now();
    let Scratch { key, metadata, .. } = scratch;
    let mut operation = Operation::Head;
    loop {
        // A HEAD's refusal has no body and so no reason; one byte of the object has either.
        let range = match operation {
            Operation::Head => None,
            Operation::Get => Some(ByteRange::Closed { first: 0, last: 0 }),
        };
        let conditions = Preconditions::default();
        let s3_request = ObjectRequest { operation, key, range, conditions };
        let answer = core.s3.send(bucket, &s3_request).await.map_err(|e| describe(&e))?;
        if matches!(answer.head().status, 200 | 206) {
            let complete =
                metadata.read(answer.head(), answer.head_bytes(), core.passes_encoding(key));
            answer.dismiss().await;
            if !complete {
                log::warn!("S3 does not say how large {key:?} is");
                return Err(Failure::BadAnswer);
            }
            core.metadata.borrow_mut().learn_object(bucket, key, metadata, asked);
            return Ok(Known::Object(Rc::new(metadata.clone())));
        }
        let error = answer.into_error().await;
        if error.kind() == Kind::Unexplained && operation == Operation::Head {
            operation = Operation::Get;
            continue;
        }
        return match explain(core, bucket, key, &error, asked) {
            Failure::NotFound => Ok(Known::NotFound),
            Failure::AccessDenied => Ok(Known::AccessDenied),
            failure => Err(failure),
        };
    }
}

/// A GET that goes to S3.
struct Fetch<'a> {
    core: &'a Core,
    request: &'a Request<'a>,
    bucket: BucketId,
    /// The range that S3 is asked for.
    range: Option<ByteRange>,
    if_range: Option<IfRange<'a>>,
}

enum Step {
    Answered(Outcome),
    /// The range is not to be served after all: ask again for the whole object.
    WithoutRange,
}

impl Fetch<'_> {
    async fn once(&self, client: &mut Stream, scratch: &mut Scratch) -> Result<Step, Failure> {
        let asked = Instant::now();
        let conditions = self.request.preconditions.for_s3();
        let s3_request = ObjectRequest {
            operation: Operation::Get,
            key: &scratch.key,
            range: self.range,
            conditions,
        };
        let answer = self.core.s3.send(self.bucket, &s3_request).await.map_err(|e| describe(&e))?;
        match answer.head().status {
            200 | 206 => self.object(answer, asked, client, scratch).await,
            304 if !conditions.is_empty() => self.not_modified(answer, client, scratch).await,
            416 if self.range.is_some() => self.unsatisfiable(answer, scratch).await,
            _ => {
                let error = answer.into_error().await;
                Err(explain(self.core, self.bucket, &scratch.key, &error, asked))
            }
        }
    }

    async fn object(
        &self,
        answer: Answer,
        asked: Instant,
        client: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<Step, Failure> {
        let Scratch { key, head, metadata } = &mut *scratch;
        let pass_encoding = self.core.passes_encoding(key);
        if !metadata.read(answer.head(), answer.head_bytes(), pass_encoding) {
            log::warn!("S3 does not say how large {key:?} is");
            return Err(Failure::BadAnswer);
        }
        self.core.metadata.borrow_mut().learn_object(self.bucket, key, metadata, asked);

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
        let extent = match self.extent(&answer, metadata, key) {
            Ok(extent) => extent,
            Err(failure) => {
                answer.dismiss().await;
                return Err(failure);
            }
        };
        let (status, length) = match extent {
            Some(extent) => (206, extent.length()),
            None => (200, metadata.size),
        };
        let writer = HeadWriter { core: self.core, request: self.request };
        writer.write(head, &Head::of_object(status, metadata, extent));
        let stall = self.core.config().clients.stall_timeout;
        let sent = answer.send_to(client, head, length, stall).await;
        let complete = matches!(sent.end, relay::End::Complete);
        match sent.end {
            relay::End::Complete => {}
            relay::End::SinkFailed(error) => log::debug!("the client of {key:?} left: {error}"),
            relay::End::SourceFailed(error) => {
                log::warn!("S3 broke off the body of {key:?}: {error}");
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
        key: &str,
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
            log::warn!("S3's answer does not fit the range asked of {key:?}: {}", head.status);
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
        let Scratch { key, head, metadata } = &mut *scratch;
        // A 304 has no size; the fields it has are read nevertheless.
        metadata.read(answer.head(), answer.head_bytes(), self.core.passes_encoding(key));
        answer.dismiss().await;
        let writer = HeadWriter { core: self.core, request: self.request };
        writer.write(head, &Head::of_object(304, metadata, None));
        Ok(Step::Answered(writer.send(client, scratch, 304).await))
    }

    async fn unsatisfiable(&self, answer: Answer, scratch: &mut Scratch) -> Result<Step, Failure> {
        if self.if_range.is_some() {
            // The range is out of question only if the condition holds, which a 416 cannot tell.
            // The whole object's head can.
            answer.dismiss().await;
            let metadata = known_object(self.core, self.bucket, scratch).await?;
            if self.if_range.is_some_and(|condition| condition.holds(metadata.validators())) {
                return Err(Failure::RangeNotSatisfiable { size: metadata.size });
            }
            return Ok(Step::WithoutRange);
        }
        let stated = content_range(answer.head(), answer.head_bytes());
        let error = answer.into_error().await;
        // Where memory knew the object, it would have said so itself: it has changed.
        self.core.metadata.borrow_mut().forget(self.bucket, &scratch.key);
        let size = match (stated, error.actual_object_size) {
            (Some(ContentRange::Unsatisfied { size }), _) | (_, Some(size)) => size,
            _ => known_object(self.core, self.bucket, scratch).await?.size,
        };
        Err(Failure::RangeNotSatisfiable { size })
    }
}

/// What the client is told when S3 gives no answer; the operator is told why.
fn describe(error: &ClientError) -> Failure {
    let failure = match error {
        // Whoever renews them has said so, once for all requests.
        ClientError::Credentials(_) => return Failure::Credentials,
        ClientError::Pool(PoolError::Exhausted(_)) => Failure::Overloaded,
        ClientError::Pool(PoolError::Connect { error, .. })
            if error.kind() == std::io::ErrorKind::TimedOut =>
        {
            Failure::TimedOut
        }
        ClientError::Head(HeadError::TimedOut) => Failure::TimedOut,
        ClientError::Pool(PoolError::Connect { .. })
        | ClientError::Send(_)
        | ClientError::Head(HeadError::NoAnswer(_) | HeadError::Cut(_)) => Failure::Unreachable,
        ClientError::Head(HeadError::Malformed(_)) | ClientError::Response(_) => Failure::BadAnswer,
    };
    log::warn!("{error}");
    failure
}

/// What the client is told of an error that S3 answered with. Remembers what is about the key;
/// logs what is about the proxy.
fn explain(
    core: &Core,
    bucket: BucketId,
    key: &str,
    error: &ServiceError,
    asked: Instant,
) -> Failure {
    let failure = match Failure::from_kind(error.kind()) {
        Some(failure) => failure,
        None if error.status == 403 => Failure::AccessDenied,
        None => Failure::BadAnswer,
    };
    let known = match failure {
        Failure::NotFound => Known::NotFound,
        Failure::AccessDenied => Known::AccessDenied,
        Failure::PreconditionFailed => return failure,
        _ => {
            let source = core.config().mounts[bucket.0].bucket.credentials.as_deref();
            if let (Failure::Credentials, Some(source)) = (failure, source) {
                source.ask_for_refresh();
            }
            log::warn!("{key:?}: {error}{}", remedy(error.kind(), source));
            return failure;
        }
    };
    log::debug!("{key:?}: {error}");
    core.metadata.borrow_mut().learn(bucket, key, known, asked);
    failure
}

/// What an operator can do about it.
fn remedy(kind: Kind, source: Option<&Source>) -> String {
    match (kind, source) {
        (Kind::Credentials, Some(source)) => {
            format!(
                "; its credentials are those of {}: {}",
                source.login(),
                source.login().advice()
            )
        }
        (Kind::Clock, _) => "; set this machine's clock (NTP)".to_owned(),
        (Kind::WrongEndpoint, _) => "; check 'region' and 'endpoint' of this mount".to_owned(),
        _ => String::new(),
    }
}
