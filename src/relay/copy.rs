//! The copying relay: source → buffer → sink.

use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::limits::TURN_BYTES;
use crate::relay::{End, Report, Terms};
use crate::sys::stream::Stream;
use crate::transport::Transport;

/// Sends `buf[prefix]`, then `length` bytes of `source`, to `sink`; hands the buffer back.
pub async fn copy(
    source: &mut Transport,
    sink: &mut Stream,
    mut buf: Vec<u8>,
    prefix: Range<usize>,
    length: u64,
    terms: Terms,
) -> (Report, Vec<u8>) {
    let mut report = Report { end: End::Complete, remaining: length, sent: 0 };
    let mut unsent = prefix;
    let mut turn = 0;
    loop {
        let length = unsent.len() as u64;
        let (sent, returned) = sink.send(buf, unsent, terms.sink_stall).await;
        buf = returned;
        if let Err(error) = sent {
            report.end = End::SinkFailed(error);
            return (report, buf);
        }
        report.sent += length;
        turn += length;
        if turn >= TURN_BYTES {
            // With epoll, sockets that are always ready would keep the core to themselves.
            turn = 0;
            sink.give_way().await;
        }
        if report.remaining == 0 {
            return (report, buf);
        }
        terms.apply(source.socket(), sink, report.sent);
        buf.clear();
        let limit = usize::try_from(report.remaining).unwrap_or(usize::MAX);
        let (received, returned) = source.receive(buf, limit, terms.source_stall).await;
        buf = returned;
        match received {
            Ok(0) => report.end = End::SourceFailed(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => report.remaining -= count as u64,
            Err(error) => report.end = End::SourceFailed(error),
        }
        if matches!(report.end, End::SourceFailed(_)) {
            return (report, buf);
        }
        unsent = 0..buf.len();
    }
}

/// Reads `length` bytes of `source` and throws them away, to make its connection usable again.
///
/// # Errors
/// As `recv(2)`; `UnexpectedEof` where it ended early.
pub async fn discard(
    source: &mut Transport,
    mut buf: Vec<u8>,
    length: u64,
    timeout: Duration,
) -> (io::Result<()>, Vec<u8>) {
    let mut remaining = length;
    while remaining > 0 {
        buf.clear();
        let limit = usize::try_from(remaining).unwrap_or(usize::MAX);
        let (received, returned) = source.receive(buf, limit, timeout).await;
        buf = returned;
        match received {
            Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buf),
            Ok(count) => remaining -= count as u64,
            Err(error) => return (Err(error), buf),
        }
    }
    (Ok(()), buf)
}
