//! Requests the rest of a body from S3 over another connection, with `If-Match`, so that it belongs
//! to the same version of the object.

use std::time::{Duration, Instant};

use http::StatusCode;
use monoio::time::sleep;

use crate::http1::conditional::{Preconditions, entity_tag};
use crate::http1::range::{ByteRange, ContentRange, Extent};
use crate::http1::response::Field;
use crate::s3::client::{ClientError, Reply};
use crate::s3::object::content_range;
use crate::s3::request::ObjectRequest;
use crate::s3::response::Response;
use crate::s3::retry::Tries;
use crate::server::delivery::Delivery;
use crate::upstream::pool::PoolError;

/// Pause before a resume waits again for a connection to S3 after the queue was full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(200);

/// The rest of a body cannot be had.
pub(super) struct NotResumed {
    /// The object was replaced or deleted.
    pub(super) object_changed: bool,
}

impl Delivery<'_> {
    /// Requests the rest of a body that S3 broke off, after a backoff. The number of breaks is
    /// limited only while the body `is_stuck`; its retries are then taken from the budget.
    pub(super) async fn resume_after_break(
        &self,
        rest: Extent,
        tries: &mut Tries,
        is_stuck: bool,
    ) -> Result<Response, NotResumed> {
        let (key, s3) = (self.request.key, &self.worker.s3);
        if self.strong_etag().is_none() {
            return Err(NotResumed { object_changed: false });
        }
        if !is_stuck {
            s3.note_success(tries);
        }
        match s3.next_try(tries, Duration::ZERO, is_stuck) {
            Ok(wait) => sleep(wait).await,
            Err(reason) => {
                log::warn!("the body of {key:?} stays incomplete {reason}");
                return Err(NotResumed { object_changed: false });
            }
        }
        let response = self.request_rest(rest, tries).await?;
        self.worker.metrics.s3_resumes.add(1);
        log::info!("S3 broke off the body of {key:?}: resumed at byte {}", rest.first);
        Ok(response)
    }

    /// Requests the rest of a body whose client reads again after a pause.
    pub(super) async fn resume_after_pause(&self, rest: Extent) -> Result<Response, NotResumed> {
        let key = self.request.key;
        log::debug!("the client of {key:?} reads again: resuming at byte {}", rest.first);
        self.request_rest(rest, &mut Tries::default()).await
    }

    async fn request_rest(&self, rest: Extent, tries: &mut Tries) -> Result<Response, NotResumed> {
        let key = self.request.key;
        let Some(etag) = self.strong_etag() else {
            return Err(NotResumed { object_changed: false });
        };
        let Extent { first, last } = rest;
        let request = ObjectRequest {
            range: Some(ByteRange::Closed { first, last }),
            conditions: Preconditions { if_match: Some(etag), ..Default::default() },
            leave_body_in_socket: self.worker.relay.splices(rest.length()),
            ..self.request
        };
        let object_changed = match self.send_when_free(tries, &request).await {
            Ok(Reply::Object(response)) if is_rest(&response, etag, rest, self.size) => {
                return Ok(response);
            }
            Ok(Reply::Object(response) | Reply::NotModified(response)) => {
                log::warn!(
                    "cannot resume the body of {key:?}: S3's response is not the rest of it"
                );
                response.dismiss().await;
                true
            }
            Ok(Reply::Error(error)) => {
                log::warn!("cannot resume the body of {key:?}: {error}");
                matches!(
                    error.status,
                    StatusCode::NOT_FOUND
                        | StatusCode::PRECONDITION_FAILED
                        | StatusCode::RANGE_NOT_SATISFIABLE
                )
            }
            Err(error) => {
                log::warn!("cannot resume the body of {key:?}: {error}");
                false
            }
        };
        Err(NotResumed { object_changed })
    }

    /// Sends a request for the rest of a body. The client's head has been sent, so 503 is
    /// impossible if all connections to S3 are busy: waits up to the client's stall timeout
    /// instead.
    async fn send_when_free(
        &self,
        tries: &mut Tries,
        request: &ObjectRequest<'_>,
    ) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.client_stall;
        loop {
            match self.worker.s3.send_within(tries, self.bucket, request).await {
                Err(ClientError::Pool(PoolError::Exhausted(_))) if Instant::now() < deadline => {
                    sleep(FULL_QUEUE_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Whether a response is exactly the rest of the same version of an object.
fn is_rest(response: &Response, etag: &[u8], rest: Extent, size: u64) -> bool {
    let head = response.head();
    // Some servers send the `Content-Range` of a part with status 200.
    head.body_length.allows(rest.length())
        && response.field(Field::ETag).and_then(entity_tag).as_deref() == Some(etag)
        && content_range(head, response.head_bytes())
            == Some(ContentRange::Part { extent: rest, size })
}
