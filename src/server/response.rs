//! Writes the heads of answers, and sends those that have no body of S3's behind them.

use std::io::Write;

use http::StatusCode;

use crate::http1::range::Extent;
use crate::http1::request::{Method, Request};
use crate::s3::object::Metadata;
use crate::server::failure::Failure;
use crate::server::worker::{Scratch, Worker};
use crate::sys::stream::Stream;

/// How a request was answered, for the connection and the log.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The status that was sent.
    pub status: StatusCode,
    /// Bytes of the body that were sent.
    pub body_bytes: u64,
    /// Whether the connection is fit for another request.
    pub keep_alive: bool,
    /// Whether the answer was sent to its end.
    pub complete: bool,
}

/// Writes the answers to one request.
pub struct HeadWriter<'a> {
    /// The core.
    pub worker: &'a Worker,
    /// The request.
    pub request: &'a Request<'a>,
}

/// An answer's head, but for what belongs to the connection.
pub struct Head<'a> {
    /// The status.
    pub status: StatusCode,
    /// Fields that are ready to be sent, each with its CRLF.
    pub fields: &'a [u8],
    /// `Content-Length` in bytes; `None` where the status has no body.
    pub content_length: Option<u64>,
    /// The part of the object that is sent, and the object's size in bytes.
    pub content_range: Option<(Extent, u64)>,
}

impl<'a> Head<'a> {
    /// The head of a response with the whole object, or with a part of it.
    pub fn of_object(metadata: &'a Metadata, part: Option<Extent>) -> Head<'a> {
        match part {
            None => Head {
                status: StatusCode::OK,
                fields: metadata.fields(),
                content_length: Some(metadata.size),
                content_range: None,
            },
            Some(extent) => Head {
                status: StatusCode::PARTIAL_CONTENT,
                fields: metadata.part_fields(),
                content_length: Some(extent.length()),
                content_range: Some((extent, metadata.size)),
            },
        }
    }

    /// The head of a response that says that the client's copy is still right.
    pub fn not_modified(metadata: &'a Metadata) -> Head<'a> {
        Head {
            status: StatusCode::NOT_MODIFIED,
            fields: metadata.not_modified_fields(),
            content_length: None,
            content_range: None,
        }
    }
}

impl HeadWriter<'_> {
    /// Whether the connection is kept after the answer.
    pub fn keeps_connection(&self) -> bool {
        let may_go_on = !self.worker.draining.get() || self.request.more_has_arrived;
        self.request.keep_alive && !self.request.has_body && may_go_on
    }

    /// Writes the head of an object's answer to `out`, which is cleared first.
    pub fn write(&self, out: &mut Vec<u8>, head: &Head<'_>) {
        self.write_start(out, head.status, self.keeps_connection());
        out.extend_from_slice(b"Accept-Ranges: bytes\r\n");
        out.extend_from_slice(head.fields);
        let mut digits = itoa::Buffer::new();
        if let Some(length) = head.content_length {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(digits.format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if let Some((extent, size)) = head.content_range {
            out.extend_from_slice(b"Content-Range: bytes ");
            out.extend_from_slice(digits.format(extent.first).as_bytes());
            out.push(b'-');
            out.extend_from_slice(digits.format(extent.last).as_bytes());
            out.push(b'/');
            out.extend_from_slice(digits.format(size).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes the answer to OPTIONS, a preflight or not.
    pub fn options(&self, out: &mut Vec<u8>) {
        self.write_start(out, StatusCode::NO_CONTENT, self.keeps_connection());
        out.extend_from_slice(b"Allow: GET, HEAD, OPTIONS\r\n");
        self.worker.live().cors.write_preflight_fields(&self.request.cross_origin, out);
        out.extend_from_slice(b"\r\n");
    }

    /// Sends the head in `scratch`, which has no body.
    pub async fn send(
        &self,
        client: &mut Stream,
        scratch: &mut Scratch,
        status: StatusCode,
    ) -> Outcome {
        let keep_alive = self.keeps_connection();
        self.send_head(
            client,
            scratch,
            Outcome { status, body_bytes: 0, keep_alive, complete: true },
        )
        .await
    }

    /// Writes and sends an error response.
    pub async fn send_failure(
        &self,
        client: &mut Stream,
        scratch: &mut Scratch,
        failure: Failure,
    ) -> Outcome {
        let keep_alive = self.keeps_connection() && !failure.ends_connection();
        let out = &mut scratch.head;
        self.write_start(out, failure.status(), keep_alive);
        let with_body = self.request.method != Method::Head;
        let body_bytes = write_failure(failure, with_body, out);
        let outcome = Outcome { status: failure.status(), body_bytes, keep_alive, complete: true };
        self.send_head(client, scratch, outcome).await
    }

    /// The status line and the fields that every answer has.
    fn write_start(&self, out: &mut Vec<u8>, status: StatusCode, keep_alive: bool) {
        out.clear();
        write_status_and_date(self.worker, out, status);
        match (keep_alive, self.request.minor_version) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            // HTTP/1.0 clients close unless they are told (RFC 9112 §9.3).
            (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, _) => {}
        }
        self.worker.live().cors.write_fields(&self.request.cross_origin, out);
    }

    async fn send_head(
        &self,
        client: &mut Stream,
        scratch: &mut Scratch,
        outcome: Outcome,
    ) -> Outcome {
        let head = std::mem::take(&mut scratch.head);
        let length = head.len();
        let timeout = self.worker.live().clients.stall_timeout;
        let (sent, head) = client.send(head, 0..length, timeout).await;
        scratch.head = head;
        let complete = sent.is_ok();
        Outcome { keep_alive: outcome.keep_alive && complete, complete, ..outcome }
    }
}

/// Writes the response to a head that could not be parsed, with a body unless its method was HEAD; the
/// connection is closed after it.
pub fn write_refusal(worker: &Worker, failure: Failure, with_body: bool, out: &mut Vec<u8>) -> u64 {
    out.clear();
    write_status_and_date(worker, out, failure.status());
    out.extend_from_slice(b"Connection: close\r\n");
    worker.live().cors.write_fields(&Default::default(), out);
    write_failure(failure, with_body, out)
}

fn write_status_and_date(worker: &Worker, out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(&worker.date());
    out.extend_from_slice(b"\r\n");
}

/// The fields of a failure, the empty line, and its one line of body; returns the body's length in
/// bytes. A response to HEAD has neither body nor `Content-Length` (RFC 9110 §8.6, §9.3.2): htsjdk
/// takes the length of any response to HEAD for the object's.
fn write_failure(failure: Failure, with_body: bool, out: &mut Vec<u8>) -> u64 {
    failure.write_fields(out);
    out.extend_from_slice(
        b"Cache-Control: no-store\r\nContent-Type: text/plain; charset=utf-8\r\n",
    );
    if !with_body {
        out.extend_from_slice(b"\r\n");
        return 0;
    }
    let line = failure.line();
    // Writing to memory does not fail.
    let _ = write!(out, "Content-Length: {}\r\n\r\n{line}\n", line.len() + 1);
    line.len() as u64 + 1
}
