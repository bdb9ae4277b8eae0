//! One client connection: receives a request head, has [`handler`] respond, and repeats.
//!
//! Pipelined requests wait in the buffer or in the socket, so responses are always in order. While
//! a request is being served, nothing is received from its client.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::access_log::{self, RequestLine};
use crate::clock;
use crate::http1::framing::{HeadEnd, find_head_end};
use crate::http1::request::{self, Request};
use crate::limits;
use crate::server::context::Context;
use crate::server::failure::Failure;
use crate::server::handler;
use crate::server::response::Outcome;
use crate::server::worker::Worker;
use crate::sys::socket::Peer;
use crate::transport::Connection;

/// Serves requests until the connection must be closed.
pub(crate) async fn serve(worker: Rc<Worker>, stream: Connection, peer: Peer) {
    let buf = Vec::with_capacity(limits::REQUEST_HEAD_INITIAL_BYTES);
    let mut connection = ClientConnection { worker, stream, peer, buf };
    let mut grace = NEW_CLIENT_GRACE;
    while let Reading::Head(length) = connection.read_head(grace).await {
        grace = Duration::ZERO;
        if !connection.respond(length).await {
            break;
        }
    }
}

/// Responds 503 without waiting for a request, and closes: there are too many connections.
pub(crate) async fn refuse(worker: &Rc<Worker>, stream: Connection, peer: Peer) {
    let buf = Vec::with_capacity(limits::REQUEST_HEAD_INITIAL_BYTES);
    let mut connection = ClientConnection { worker: Rc::clone(worker), stream, peer, buf };
    connection.refuse(Failure::Overloaded).await;
}

struct ClientConnection {
    worker: Rc<Worker>,
    stream: Connection,
    peer: Peer,
    /// Received bytes; starts with the head of the request being served, or the next one.
    buf: Vec<u8>,
}

enum Reading {
    /// `buf` starts with a whole head of this many bytes.
    Head(usize),
    /// The connection is to be closed. If it needed a response, that has been sent.
    Closed,
}

/// For this long a new connection is not closed to make room for others: its first request may be
/// on the way.
const NEW_CLIENT_GRACE: Duration = Duration::from_millis(500);

/// The first byte of a TLS record that carries a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

impl ClientConnection {
    /// Receives until the buffer starts with a whole head. A connection that is idle for longer
    /// than `grace` may be closed to make room for others.
    async fn read_head(&mut self, grace: Duration) -> Reading {
        let (head_timeout, keep_alive_timeout) = {
            let clients = &self.worker.live().clients;
            (clients.head_timeout, clients.keep_alive_timeout)
        };
        // For the whole wait: empty lines do not extend it.
        let now = Instant::now();
        let idle = (now + keep_alive_timeout, now + grace);
        let mut deadline = None;
        loop {
            self.skip_empty_lines();
            if self.buf.first() == Some(&TLS_HANDSHAKE) {
                // No response: a browser that tries HTTPS first falls back when the connection
                // closes.
                return Reading::Closed;
            }
            match find_head_end(&self.buf) {
                HeadEnd::At(length) if length <= limits::REQUEST_HEAD_BYTES => {
                    return Reading::Head(length);
                }
                HeadEnd::Missing if self.buf.len() < limits::REQUEST_HEAD_BYTES => {}
                end => {
                    Box::pin(self.refuse(Failure::from_head_end(end))).await;
                    return Reading::Closed;
                }
            }
            if !self.buf.is_empty() && deadline.is_none() {
                deadline = Some(Instant::now() + head_timeout);
            }
            if !self.receive(deadline, idle).await {
                return Reading::Closed;
            }
        }
    }

    /// Receives more of a head; `false` if the connection is closed. `deadline` is that of a head
    /// of which a part has arrived. Without one the connection is idle: it is closed at the first
    /// time of `idle`, and may be closed to make room for others from the second one on.
    async fn receive(&mut self, deadline: Option<Instant>, idle: (Instant, Instant)) -> bool {
        if self.buf.len() == self.buf.capacity() {
            self.buf.reserve_exact(limits::REQUEST_HEAD_BYTES + 1 - self.buf.len());
        }
        let buf = std::mem::take(&mut self.buf);
        let (received, buf) = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.stream.receive(buf, usize::MAX, left).await
            }
            // A request that has already arrived still gets a response.
            None if self.worker.draining.get() && !self.stream.has_unread_bytes() => return false,
            None => self.stream.receive_idle(buf, idle.0, idle.1).await,
        };
        self.buf = buf;
        matches!(received, Ok(1..))
    }

    /// Drops the empty lines that a client may send before a request line (RFC 9112 §2.2).
    fn skip_empty_lines(&mut self) {
        let pairs = self.buf.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
        self.buf.drain(..pairs * 2);
    }

    /// Responds to the request at the start of the buffer, and removes it. `false` if the
    /// connection must be closed.
    async fn respond(&mut self, length: usize) -> bool {
        request::lower_minor_version(&mut self.buf[..length]);
        let request = match request::parse(&self.buf[..length]) {
            Ok(request) => {
                // The socket is checked only while draining, when this may be the last response.
                let is_followed = self.buf.len() > length
                    || self.worker.draining.get() && self.stream.has_unread_bytes();
                Request { is_followed, ..request }
            }
            Err(error) => {
                Box::pin(self.refuse(Failure::Request(error))).await;
                return false;
            }
        };
        let started = Instant::now();
        let live = self.worker.live();
        let mut scratch = self.worker.take_scratch();
        let context =
            Context { worker: &self.worker, live: &live, request: &request, peer: &self.peer };
        let outcome = handler::handle(&context, &mut self.stream, &mut scratch).await;
        log(&context, None, &outcome, started);
        self.worker.put_back_scratch(scratch);
        if outcome.keep_alive {
            self.remove_head(length);
            return true;
        }
        if outcome.complete {
            self.linger().await;
        }
        false
    }

    /// Removes a head from the buffer, and frees the memory that a large one took.
    fn remove_head(&mut self, length: usize) {
        self.buf.drain(..length);
        if self.buf.capacity() > limits::REQUEST_HEAD_INITIAL_BYTES {
            self.buf.shrink_to(limits::REQUEST_HEAD_INITIAL_BYTES);
        }
    }

    /// Responds with a failure to a head that was not parsed, and closes the connection.
    async fn refuse(&mut self, failure: Failure) {
        let started = Instant::now();
        let request = Request::unparsed(&self.buf);
        let live = self.worker.live();
        let mut scratch = self.worker.take_scratch();
        let context =
            Context { worker: &self.worker, live: &live, request: &request, peer: &self.peer };
        let outcome = context.send_failure(&mut self.stream, &mut scratch, failure).await;
        log(&context, Some(&self.buf), &outcome, started);
        self.worker.put_back_scratch(scratch);
        if outcome.complete {
            self.linger().await;
        }
    }

    /// Half-closes and reads what the client still sends: closing a socket with unread bytes resets
    /// the connection, and the reset may destroy the response (RFC 9112 §9.6).
    async fn linger(&mut self) {
        const LINGER: Duration = Duration::from_secs(2);
        self.stream.finish_sending(LINGER).await;
        let deadline = Instant::now() + LINGER;
        let mut left = limits::LINGER_BYTES;
        while left > 0 {
            let mut buf = std::mem::take(&mut self.buf);
            buf.clear();
            let timeout = deadline.saturating_duration_since(Instant::now());
            let (received, buf) = self.stream.receive(buf, left, timeout).await;
            self.buf = buf;
            match received {
                Ok(count @ 1..) => left -= count,
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// Counts a request and writes its access log line. `unparsed` has the received bytes of a head
/// that could not be parsed.
fn log(context: &Context<'_>, unparsed: Option<&[u8]>, outcome: &Outcome, started: Instant) {
    let Context { worker, live, request, peer } = *context;
    let duration = started.elapsed();
    worker.metrics.requests.add(1);
    worker.metrics.request_seconds.record(duration);
    if !live.access_log {
        return;
    }
    let Request { method_text: method, target_text: target, minor_version, .. } = *request;
    worker.log(&access_log::Entry {
        peer: peer.ip(),
        unix_seconds: clock::unix_seconds(),
        request: match unparsed {
            None => RequestLine::Parsed { method, target, minor_version },
            Some(bytes) => RequestLine::Refused(bytes),
        },
        status: outcome.status,
        body_bytes: outcome.body_bytes,
        user_agent: request.user_agent,
        range: request.range,
        duration_ms: duration.as_millis(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn the_future_of_an_idle_connection_is_small() {
        let bytes = size_of_future(serve);
        assert!(bytes <= 1536, "{bytes} bytes: box the rare branches");
    }
}
