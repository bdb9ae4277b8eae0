//! Delivers an object to a client: the client's head, then the body from one or more responses of
//! S3.
//!
//! [`resume`](super::resume) requests the rest of a body that S3 broke off, or whose connection was
//! closed while the client paused. All bytes belong to one version of the object; if the rest
//! cannot be had, the body stays incomplete and the connection is closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http1::range::Extent;
use crate::relay::{End, Report, Terms};
use crate::s3::bucket::Bucket;
use crate::s3::request::ObjectRequest;
use crate::s3::response::Response;
use crate::s3::retry::Tries;
use crate::server::resume::NotResumed;
use crate::server::worker::Worker;
use crate::transport::Connection;

pub(crate) struct Delivery<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) bucket: &'a Arc<Bucket>,
    /// The request that S3 responded to. A resume repeats it with another range and `If-Match`.
    pub(crate) request: ObjectRequest<'a>,
    /// The object's entity tag; `None` if the body must not be resumed.
    pub(crate) etag: Option<&'a [u8]>,
    /// The object's size in bytes.
    pub(crate) size: u64,
    /// The part of the object to send; `None` if the body is empty.
    pub(crate) extent: Option<Extent>,
    /// The client's response head.
    pub(crate) head: &'a [u8],
    /// Longest time for which the client may accept no byte.
    pub(crate) client_stall: Duration,
}

/// How a delivery ended.
pub(crate) struct Delivered {
    /// [`End::Complete`], or why the body is incomplete.
    pub(crate) end: End,
    /// Bytes sent to the client, head included; 0 if S3 failed before the first one.
    pub(crate) bytes: u64,
    /// The object was replaced or deleted during the delivery.
    pub(crate) object_changed: bool,
}

impl Delivery<'_> {
    /// Sends head and body to `client`. The response's body must be the delivery's extent.
    pub(crate) async fn run(&self, mut response: Response, client: &mut Connection) -> Delivered {
        let (mut head, mut rest) = (self.head, self.extent);
        let (mut bytes, mut tries) = (0, Tries::default());
        loop {
            let length = rest.map_or(0, Extent::length);
            let report = self.pass_on(response, client, head, length).await;
            bytes += report.sent;
            let ended = |end| Delivered { end, bytes, object_changed: false };
            let Some(rest) = &mut rest else { return ended(report.end) };
            let delivered = if report.sent > 0 { length - report.remaining } else { 0 };
            if report.sent > 0 {
                head = &[];
                rest.first += delivered;
            }
            // Boxed: they are rare, and their state would be part of every request's.
            let resumed = match &report.end {
                End::Complete | End::SinkFailed(_) => return ended(report.end),
                End::SourceFailed(error) => {
                    log::debug!("S3 broke off the body of {:?}: {error}", self.request.key);
                    let is_stuck = delivered == 0;
                    Box::pin(self.resume_after_break(*rest, &mut tries, is_stuck)).await
                }
                End::SourceGivenUp => {
                    let mut since = Instant::now();
                    let writable = client.socket().writable(&mut since, self.client_stall);
                    if let Err(error) = writable.await {
                        return ended(End::SinkFailed(error));
                    }
                    Box::pin(self.resume_after_pause(*rest)).await
                }
            };
            match resumed {
                Ok(next) => response = next,
                Err(NotResumed { object_changed }) => {
                    return Delivered { object_changed, ..ended(report.end) };
                }
            }
        }
    }

    /// Sends `head`, then the `length` bytes of one response's body.
    async fn pass_on(
        &self,
        mut response: Response,
        client: &mut Connection,
        head: &[u8],
        length: u64,
    ) -> Report {
        // If the body fails before its first byte, the client can still get an error response.
        let remaining = match response.begin_body(length).await {
            Ok(remaining) => remaining,
            Err(error) => {
                return Report { end: End::SourceFailed(error), remaining: length, sent: 0 };
            }
        };
        let upstream = &self.worker.shared.settings.upstream;
        let terms = Terms {
            source_stall: upstream.stall_timeout,
            sink_stall: self.client_stall,
            ahead: response.ahead(),
            read_ahead: upstream.read_ahead,
            is_resumable: self.strong_etag().is_some(),
        };
        // Head and first bytes leave in one send.
        let (buf, prefix, mut body) = response.into_parts(head);
        let report = self.worker.relay.run(&mut body, client, buf, prefix, remaining, terms).await;
        if !matches!(report.end, End::SourceFailed(_)) {
            body.finish(report.remaining).await;
        }
        report
    }

    /// The tag for `If-Match`, which a weak one never matches (RFC 9110 §13.1.1). Without a tag a
    /// changed object would go unnoticed, so there is no resume.
    pub(super) fn strong_etag(&self) -> Option<&[u8]> {
        self.etag.filter(|etag| etag.starts_with(b"\""))
    }
}
