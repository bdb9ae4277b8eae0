//! One client connection: heads read one after the other, each answered before the next.
//!
//! Pipelined requests wait in the buffer or in the socket, so answers are always in order. While a
//! request is answered nothing is read from its client.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::access_log::{self, RequestLine};
use crate::clock;
use crate::http1::framing::{HeadEnd, find_head_end};
use crate::http1::request::{self, Request};
use crate::limits;
use crate::server::failure::Failure;
use crate::server::handler;
use crate::server::response::{self, Outcome};
use crate::server::worker::Worker;
use crate::sys::stream::Stream;

/// Serves a connection until either side is done with it.
pub async fn serve(worker: Rc<Worker>, stream: Stream, peer: Option<SocketAddr>) {
    let buf = Vec::with_capacity(limits::REQUEST_HEAD_INITIAL_BYTES);
    let mut connection = ClientConnection { worker, stream, peer, buf };
    let mut grace = NEW_CLIENT_GRACE;
    while let Reading::Head(length) = connection.read_head(grace).await {
        grace = Duration::ZERO;
        if !connection.answer(length).await {
            break;
        }
    }
}

/// Tells a client that there are too many, without waiting for what it wants.
pub async fn refuse(worker: &Rc<Worker>, stream: Stream, peer: Option<SocketAddr>) {
    let mut connection =
        ClientConnection { worker: Rc::clone(worker), stream, peer, buf: Vec::new() };
    connection.buf.reserve_exact(limits::REQUEST_HEAD_INITIAL_BYTES);
    connection.refuse(Failure::Overloaded).await;
}

struct ClientConnection {
    worker: Rc<Worker>,
    stream: Stream,
    peer: Option<SocketAddr>,
    /// What was received and not yet answered, from the start of a head on.
    buf: Vec<u8>,
}

enum Reading {
    /// `buf` starts with a whole head of this many bytes.
    Head(usize),
    /// The connection is of no more use; what had to be said was said.
    Over,
}

/// How long a client that has sent nothing yet is not given up for the sake of others: its request
/// may be on the way.
const NEW_CLIENT_GRACE: Duration = Duration::from_millis(500);

/// The first byte of a TLS record that carries a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

impl ClientConnection {
    /// Receives until the buffer starts with a whole head. A client that is idle for longer than
    /// `grace` may be given up for the sake of others.
    async fn read_head(&mut self, grace: Duration) -> Reading {
        let clients = &self.worker.live().clients;
        let (head_timeout, keep_alive_timeout) = (clients.head_timeout, clients.keep_alive_timeout);
        // Of the whole wait: empty lines do not renew it.
        let now = Instant::now();
        let idle = (now + keep_alive_timeout, now + grace);
        let mut deadline = None;
        loop {
            self.skip_empty_lines();
            if self.buf.first() == Some(&TLS_HANDSHAKE) {
                // No answer: a browser that tries HTTPS first waits for a closed connection.
                return Reading::Over;
            }
            match find_head_end(&self.buf) {
                HeadEnd::At(length) if length <= limits::REQUEST_HEAD_BYTES => {
                    return Reading::Head(length);
                }
                HeadEnd::Missing if self.buf.len() < limits::REQUEST_HEAD_BYTES => {}
                end => return self.refuse(Failure::from_head_end(end)).await,
            }
            if !self.buf.is_empty() && deadline.is_none() {
                deadline = Some(Instant::now() + head_timeout);
            }
            if !self.receive(deadline, idle).await {
                return Reading::Over;
            }
        }
    }

    /// Receives more of a head. `deadline` is that of the head, once it has begun; before that
    /// the connection is idle, until the first time of `idle`, and yields to others from the second on.
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
            // What has arrived by now is answered still.
            None if self.worker.draining.get() && !self.stream.has_unread_bytes() => return false,
            None => self.stream.receive_idle(buf, idle.0, idle.1).await,
        };
        self.buf = buf;
        matches!(received, Ok(1..))
    }

    /// A client may send empty lines before a request line (RFC 9112 §2.2); they are dropped
    /// before they could pile up.
    fn skip_empty_lines(&mut self) {
        let pairs = self.buf.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
        self.buf.drain(..pairs * 2);
    }

    /// Answers the request at the start of the buffer and removes it. `false` where the
    /// connection is not to be used any more.
    async fn answer(&mut self, length: usize) -> bool {
        request::lower_minor_version(&mut self.buf[..length]);
        let request = match request::parse(&self.buf[..length]) {
            Ok(request) => {
                // It may be in the socket still, which matters only where this would be the last.
                let more_has_arrived = self.buf.len() > length
                    || self.worker.draining.get() && self.stream.has_unread_bytes();
                Request { more_has_arrived, ..request }
            }
            Err(error) => {
                self.refuse(Failure::Request(error)).await;
                return false;
            }
        };
        let started = Instant::now();
        let mut scratch = self.worker.take_scratch();
        let outcome = handler::handle(&self.worker, &request, &mut self.stream, &mut scratch).await;
        self.worker.put_back_scratch(scratch);
        log(&self.worker, self.peer, Head::Parsed(&request), &outcome, started);
        if outcome.keep_alive {
            self.remove_head(length);
            return true;
        }
        if outcome.complete {
            self.linger().await;
        }
        false
    }

    /// Drops an answered head from the buffer, and the memory that a large one took.
    fn remove_head(&mut self, length: usize) {
        self.buf.drain(..length);
        if self.buf.capacity() > limits::REQUEST_HEAD_INITIAL_BYTES {
            self.buf.shrink_to(limits::REQUEST_HEAD_INITIAL_BYTES);
        }
    }

    /// Answers a head that cannot be parsed; the connection is over after that.
    async fn refuse(&mut self, failure: Failure) -> Reading {
        let started = Instant::now();
        let mut scratch = self.worker.take_scratch();
        let is_head = self.buf.starts_with(b"HEAD ");
        let body_bytes =
            response::write_refusal(&self.worker, failure, !is_head, &mut scratch.head);
        let head = std::mem::take(&mut scratch.head);
        let end = head.len();
        let timeout = self.worker.live().clients.head_timeout;
        let (sent, head) = self.stream.send(head, 0..end, timeout).await;
        scratch.head = head;
        self.worker.put_back_scratch(scratch);
        let complete = sent.is_ok();
        let outcome = Outcome { status: failure.status(), body_bytes, keep_alive: false, complete };
        log(&self.worker, self.peer, Head::Refused(&self.buf), &outcome, started);
        if complete {
            self.linger().await;
        }
        Reading::Over
    }

    /// Closes in the order that does not lose the answer: a socket closed with unread bytes in
    /// it resets the connection, and the reset may overtake the answer (RFC 9112 §9.6).
    async fn linger(&mut self) {
        const LINGER: Duration = Duration::from_secs(2);
        self.stream.finish_sending();
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

/// The head that a response was for.
enum Head<'a> {
    Parsed(&'a Request<'a>),
    /// What was received of it.
    Refused(&'a [u8]),
}

fn log(
    worker: &Worker,
    peer: Option<SocketAddr>,
    head: Head<'_>,
    outcome: &Outcome,
    started: Instant,
) {
    worker.counters.requests.add(1);
    if !worker.has_access_log() {
        return;
    }
    let (line, user_agent, range) = match head {
        Head::Parsed(request) => {
            let Request { method_text: method, target_text: target, minor_version, .. } = *request;
            let line = RequestLine::Parsed { method, target, minor_version };
            (line, request.user_agent, request.range)
        }
        Head::Refused(bytes) => (RequestLine::Refused(bytes), None, None),
    };
    worker.log(&access_log::Entry {
        peer: peer.map(|peer| peer.ip()),
        unix_seconds: clock::unix_seconds(),
        request: line,
        status: outcome.status,
        body_bytes: outcome.body_bytes,
        user_agent,
        range,
        duration_ms: started.elapsed().as_millis(),
    });
}
