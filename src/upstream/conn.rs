//! One connection to S3: how it is opened and how a response head is read from it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use monoio::BufResult;

use crate::http1::framing::{HeadEnd, find_head_end};
use crate::limits;
use crate::sys::stream::{Ahead, Deadlines, Stream};
use crate::upstream::resolve::{ResolvedOrigin, Resolver};

/// A connection, and whether it has served a request before.
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// An earlier request was answered on it, so S3 may be closing it at this moment.
    pub reused: bool,
}

/// Why no response head came.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The connection ended or broke before the first byte of an answer.
    #[error("the connection was closed without an answer")]
    NoAnswer(io::Error),
    /// It ended or broke inside the head.
    #[error("the connection broke inside the response head: {0}")]
    Cut(io::Error),
    /// Nothing came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The head is larger than the limit, or its lines do not end with CRLF.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Opens a connection to one of the origin's addresses, each tried in turn.
///
/// # Errors
/// That of the last address; `TimedOut` where it did not answer within `timeout`.
pub async fn connect(
    origin: &ResolvedOrigin,
    resolver: &Resolver,
    ahead: Ahead,
    timeout: Duration,
    deadlines: &Rc<Deadlines>,
) -> io::Result<Connection> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "its name cannot be resolved");
    for &address in origin.addresses().iter() {
        let connecting = monoio::time::timeout(timeout, Stream::connect(address, deadlines));
        match connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(mut stream) => {
                if ahead == Ahead::Little {
                    stream.receive_ahead_little();
                }
                return Ok(Connection { stream, reused: false });
            }
            Err(error) => failure = error,
        }
    }
    resolver.refresh();
    Err(failure)
}

impl Connection {
    /// Receives a whole response head into `buf`, behind what it holds already, and whatever
    /// came with it. Answers with the head's length in bytes.
    ///
    /// `limit` bounds each receive, in bytes: what is received here cannot be spliced any more.
    /// `first_byte` bounds the wait for the first byte, `stall` every later one.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub async fn receive_head(
        &mut self,
        mut buf: Vec<u8>,
        limit: usize,
        first_byte: Duration,
        stall: Duration,
    ) -> (Result<usize, HeadError>, Vec<u8>) {
        let start = buf.len();
        let mut timeout = first_byte;
        loop {
            let (received, returned): BufResult<usize, _> =
                self.stream.receive(buf, limit, timeout).await;
            buf = returned;
            let first = buf.len() == start;
            let error = match received {
                Ok(0) if first => HeadError::NoAnswer(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => HeadError::Cut(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => match find_head_end(&buf[start..]) {
                    HeadEnd::At(length) if length <= limits::RESPONSE_HEAD_BYTES => {
                        return (Ok(length), buf);
                    }
                    HeadEnd::Missing if buf.len() - start < limits::RESPONSE_HEAD_BYTES => {
                        timeout = stall;
                        continue;
                    }
                    HeadEnd::BareLineFeed => {
                        HeadError::Malformed("the response head has lines without CRLF")
                    }
                    _ => HeadError::Malformed("the response head is larger than 16 KiB"),
                },
                Err(error) if error.kind() == io::ErrorKind::TimedOut => HeadError::TimedOut,
                Err(error) if first => HeadError::NoAnswer(error),
                Err(error) => HeadError::Cut(error),
            };
            return (Err(error), buf);
        }
    }
}
