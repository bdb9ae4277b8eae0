//! Writes response heads, and sends the responses whose body, if any, is not an object's.

use http::StatusCode;

use crate::http1::range::Extent;
use crate::http1::request::Method;
use crate::s3::object::Metadata;
use crate::server::context::Context;
use crate::server::failure::Failure;
use crate::server::worker::Scratch;
use crate::transport::Connection;

/// The result of a request, for the connection and the access log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub status: StatusCode,
    /// Bytes sent of the body.
    pub body_bytes: u64,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Whether the response was sent to its end.
    pub complete: bool,
}

/// The head of a 200, 206 or 304, without the fields that depend on the connection.
pub(crate) struct Head<'a> {
    pub status: StatusCode,
    /// Serialised fields, each with its CRLF.
    pub fields: &'a [u8],
    /// In bytes; `None` if a response with this status has no body.
    pub content_length: Option<u64>,
    /// The part to send, and the object's size in bytes.
    pub content_range: Option<(Extent, u64)>,
}

/// A response whose body is the proxy's own.
pub(crate) struct OwnResponse<'a> {
    /// Must allow a body.
    pub status: StatusCode,
    pub content_type: &'a str,
    /// Serialised further fields, each with its CRLF.
    pub fields: &'a str,
    /// Concatenated.
    pub body: &'a [&'a [u8]],
}

impl<'a> Head<'a> {
    /// A 200 with the whole object, or a 206 with a part of it.
    pub(crate) fn of_object(metadata: &'a Metadata, part: Option<Extent>) -> Head<'a> {
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

    pub(crate) fn not_modified(metadata: &'a Metadata) -> Head<'a> {
        Head {
            status: StatusCode::NOT_MODIFIED,
            fields: metadata.not_modified_fields(),
            content_length: None,
            content_range: None,
        }
    }
}

impl Context<'_> {
    /// Whether the connection is kept after the response.
    pub(crate) fn keeps_connection(&self) -> bool {
        let accepts_more = !self.worker.draining.get() || self.request.is_followed;
        self.request.keep_alive && !self.request.has_body && accepts_more
    }

    /// Replaces `out` by the head of a response. Returns the outcome to pass to
    /// [`send`](Self::send) if no body follows.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>, head: &Head<'_>) -> Outcome {
        let keep_alive = self.keeps_connection();
        self.write_start(out, head.status, keep_alive);
        out.extend_from_slice(b"Accept-Ranges: bytes\r\n");
        out.extend_from_slice(head.fields);
        let mut digits = itoa::Buffer::new();
        if let Some(length) = head.content_length {
            write_content_length(out, length);
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
        Outcome::whole(head.status, 0, keep_alive)
    }

    /// Sends the response to OPTIONS, whether it is a preflight or not.
    pub(crate) async fn send_options(
        &self,
        client: &mut Connection,
        scratch: &mut Scratch,
    ) -> Outcome {
        let (status, keep_alive) = (StatusCode::NO_CONTENT, self.keeps_connection());
        let out = &mut scratch.head;
        self.write_start(out, status, keep_alive);
        out.extend_from_slice(b"Allow: GET, HEAD, OPTIONS\r\n");
        self.live.cors.write_preflight_fields(&self.request.cross_origin, out);
        out.extend_from_slice(b"\r\n");
        self.send(client, out, Outcome::whole(status, 0, keep_alive)).await
    }

    /// Sends an error response.
    pub(crate) async fn send_failure(
        &self,
        client: &mut Connection,
        scratch: &mut Scratch,
        failure: Failure,
    ) -> Outcome {
        let keep_alive = self.keeps_connection() && !failure.ends_connection();
        let out = &mut scratch.head;
        let outcome = self.write_own(
            out,
            &OwnResponse {
                status: failure.status(),
                content_type: "text/plain; charset=utf-8",
                fields: &failure.fields(),
                body: &[failure.line().as_bytes(), b"\n"],
            },
            keep_alive,
        );
        self.send(client, out, outcome).await
    }

    /// Writes a response whose body is the proxy's own. To HEAD it has neither body nor
    /// `Content-Length` (RFC 9110 §8.6, §9.3.2): htsjdk takes the length in any response to HEAD
    /// for the object's.
    fn write_own(
        &self,
        out: &mut Vec<u8>,
        response: &OwnResponse<'_>,
        keep_alive: bool,
    ) -> Outcome {
        self.write_start(out, response.status, keep_alive);
        out.extend_from_slice(response.fields.as_bytes());
        out.extend_from_slice(b"Cache-Control: no-store\r\nContent-Type: ");
        out.extend_from_slice(response.content_type.as_bytes());
        out.extend_from_slice(b"\r\n");
        let body = if self.request.method == Method::Head { &[] } else { response.body };
        let body_bytes = body.iter().map(|part| part.len() as u64).sum();
        if self.request.method != Method::Head {
            write_content_length(out, body_bytes);
        }
        out.extend_from_slice(b"\r\n");
        for part in body {
            out.extend_from_slice(part);
        }
        Outcome::whole(response.status, body_bytes, keep_alive)
    }

    /// The status line and the fields that every response has.
    fn write_start(&self, out: &mut Vec<u8>, status: StatusCode, keep_alive: bool) {
        out.clear();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\nDate: ");
        out.extend_from_slice(&self.worker.date());
        out.extend_from_slice(b"\r\n");
        match (keep_alive, self.request.minor_version) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            // The default of HTTP/1.0 is to close (RFC 9112 §9.3).
            (true, 0) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, _) => {}
        }
        self.live.cors.write_fields(&self.request.cross_origin, out);
    }

    /// Sends `out`. `outcome` is returned as it is if that succeeds.
    pub(crate) async fn send(
        &self,
        client: &mut Connection,
        out: &mut Vec<u8>,
        outcome: Outcome,
    ) -> Outcome {
        let bytes = std::mem::take(out);
        let length = bytes.len();
        let timeout = self.live.clients.stall_timeout;
        let (sent, bytes) = client.send(bytes, 0..length, timeout).await;
        *out = bytes;
        let complete = sent.is_ok();
        Outcome { keep_alive: outcome.keep_alive && complete, complete, ..outcome }
    }
}

impl Outcome {
    fn whole(status: StatusCode, body_bytes: u64, keep_alive: bool) -> Outcome {
        Outcome { status, body_bytes, keep_alive, complete: true }
    }
}

fn write_content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}
