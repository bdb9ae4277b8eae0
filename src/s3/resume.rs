//! A body's way to the client, over as many answers of S3 as it takes.
//!
//! When S3 breaks a body off or falls silent, the rest of it is asked for from the next byte on, on
//! another connection, with `If-Match`: the client sees one body of one version of the object or,
//! where that cannot be had any more, one that is cut short. The same helps a client that pauses
//! for so long that S3 gives the waiting connection up, or that we do, so that others can use it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use monoio::time::sleep;

use crate::http1::conditional::{Preconditions, entity_tag};
use crate::http1::range::{ByteRange, ContentRange, Extent};
use crate::http1::response::Field;
use crate::relay::End;
use crate::s3::bucket::Bucket;
use crate::s3::client::{Client, ClientError, Reply};
use crate::s3::object::content_range;
use crate::s3::request::ObjectRequest;
use crate::s3::response::{Response, Sent};
use crate::s3::retry::Tries;
use crate::sys::stream::Stream;
use crate::upstream::pool::PoolError;

/// Pause before a body that goes on asks again for a place in a queue that was full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(200);

/// What a client is to be sent.
pub struct Delivery<'a> {
    /// The object's bucket.
    pub bucket: &'a Arc<Bucket>,
    /// The request that S3 has answered; its range and conditions are of no matter any more.
    pub request: ObjectRequest<'a>,
    /// The object's entity tag.
    pub etag: Option<&'a [u8]>,
    /// The object's size in bytes.
    pub size: u64,
    /// The part of the object that the answer's body is; `None` where it has no byte.
    pub extent: Option<Extent>,
    /// The head to send before the body.
    pub head: &'a [u8],
    /// How long the client may take nothing.
    pub client_stall: Duration,
    /// Set when S3 turns out to have another object in its place meanwhile, or none.
    pub changed: Cell<bool>,
}

impl Delivery<'_> {
    /// The tag that the rest can be asked for with: a weak one never matches, and without one the
    /// object may have changed unnoticed.
    fn strong_etag(&self) -> Option<&[u8]> {
        self.etag.filter(|etag| etag.starts_with(b"\""))
    }
}

impl Client {
    /// Sends head and body to `client`. The answer's body must be the delivery's extent.
    pub async fn deliver(
        &self,
        mut response: Response,
        delivery: &Delivery<'_>,
        client: &mut Stream,
    ) -> Sent {
        let (mut head, mut rest) = (delivery.head, delivery.extent);
        let (mut bytes, mut tries) = (0, Tries::default());
        let is_resumable = delivery.strong_etag().is_some();
        loop {
            let length = rest.map_or(0, Extent::length);
            let stall = delivery.client_stall;
            let sent = response.send_to(client, head, length, stall, is_resumable).await;
            bytes += sent.bytes;
            let Some(broken) = rest.as_mut() else { return Sent { bytes, ..sent } };
            let delivered = if sent.bytes > 0 { length - sent.remaining } else { 0 };
            if sent.bytes > 0 {
                head = &[];
                broken.first += delivered;
            }
            // In boxes: rare, and their state would be part of every request's.
            let next = match &sent.end {
                End::SourceFailed(error) => {
                    log::debug!("S3 broke off the body of {:?}: {error}", delivery.request.key);
                    let is_stuck = delivered == 0;
                    Box::pin(self.go_on_after_break(delivery, *broken, &mut tries, is_stuck)).await
                }
                End::SourceGivenUp => {
                    let key = delivery.request.key;
                    let mut since = Instant::now();
                    if let Err(error) = client.writable(&mut since, stall).await {
                        return Sent { bytes, end: End::SinkFailed(error), ..sent };
                    }
                    log::debug!(
                        "the client of {key:?} reads on: it goes on at byte {}",
                        broken.first
                    );
                    Box::pin(self.ask_for_rest(delivery, *broken, &mut Tries::default())).await
                }
                End::Complete | End::SinkFailed(_) => None,
            };
            match next {
                Some(next) => response = next,
                None => return Sent { bytes, ..sent },
            }
        }
    }

    /// Asks for the rest of a body that S3 broke off, a moment later. A body that gets on may be
    /// broken off often; one that is stuck pays for its retries.
    async fn go_on_after_break(
        &self,
        delivery: &Delivery<'_>,
        rest: Extent,
        tries: &mut Tries,
        is_stuck: bool,
    ) -> Option<Response> {
        let (key, at_least) = (delivery.request.key, Duration::ZERO);
        delivery.strong_etag()?;
        let budget = is_stuck.then_some(&self.budget);
        if !is_stuck {
            tries.succeed(&self.budget);
        }
        match tries.next(&self.retries, budget, Instant::now(), at_least, fastrand::f64()) {
            Ok(wait) => sleep(wait).await,
            Err(reason) => {
                log::warn!("the body of {key:?} is given up {reason}");
                return None;
            }
        }
        let response = self.ask_for_rest(delivery, rest, tries).await?;
        self.relay.counters.s3_resumes.add(1);
        log::info!("S3 broke off the body of {key:?}: it goes on at byte {}", rest.first);
        Some(response)
    }

    /// Asks for the rest of a body.
    async fn ask_for_rest(
        &self,
        delivery: &Delivery<'_>,
        rest: Extent,
        tries: &mut Tries,
    ) -> Option<Response> {
        let (key, etag) = (delivery.request.key, delivery.strong_etag()?);
        let Extent { first, last } = rest;
        let request = ObjectRequest {
            range: Some(ByteRange::Closed { first, last }),
            conditions: Preconditions { if_match: Some(etag), ..Default::default() },
            ..delivery.request
        };
        match self.send_in_turn(tries, delivery, &request).await {
            Ok(Reply::Object(response)) if goes_on(&response, etag, rest, delivery.size) => {
                return Some(response);
            }
            Ok(Reply::Object(response) | Reply::NotModified(response)) => {
                log::warn!("the body of {key:?} cannot go on: S3's answer is not the rest of it");
                delivery.changed.set(true);
                response.dismiss().await;
            }
            Ok(Reply::Refused(error)) => {
                log::warn!("the body of {key:?} cannot go on: {error}");
                delivery.changed.set(matches!(
                    error.status,
                    StatusCode::NOT_FOUND
                        | StatusCode::PRECONDITION_FAILED
                        | StatusCode::RANGE_NOT_SATISFIABLE
                ));
            }
            Err(error) => log::warn!("the body of {key:?} cannot go on: {error}"),
        }
        None
    }

    /// Sends a request for the rest of a body. The client cannot be told any more that all
    /// connections to S3 are busy, so one is waited for as long as the client waits.
    async fn send_in_turn(
        &self,
        tries: &mut Tries,
        delivery: &Delivery<'_>,
        request: &ObjectRequest<'_>,
    ) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + delivery.client_stall;
        loop {
            match self.send_within(tries, delivery.bucket, request).await {
                Err(ClientError::Pool(PoolError::Exhausted(_))) if Instant::now() < deadline => {
                    sleep(FULL_QUEUE_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Whether an answer is exactly the rest of the same version of an object.
fn goes_on(response: &Response, etag: &[u8], rest: Extent, size: u64) -> bool {
    let head = response.head();
    // Which part it is, Content-Range says, whether the status is 200 or 206.
    head.body_length.may_be(rest.length())
        && response.field(Field::ETag).and_then(entity_tag).as_deref() == Some(etag)
        && content_range(head, response.head_bytes())
            == Some(ContentRange::Part { extent: rest, size })
}
