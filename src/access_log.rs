//! The access log: one line per request, in the combined log format followed by two fields.
//!
//! ```text
//! 127.0.0.1 - - [24/Nov/2026:03:30:56 +0000] "GET /files/a.bam HTTP/1.1" 206 65536 "-" "htslib/1.21" range="bytes=0-65535" ms=3
//! ```
//!
//! Each worker collects its lines and hands them to the log a few times a second: a system call per
//! request would cost more than the rest of a small request.

use std::io::Write;
use std::net::IpAddr;

use http::StatusCode;

use crate::clock;
use crate::logging;

/// The logged fields of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// The client; `None` for a Unix socket.
    pub peer: Option<IpAddr>,
    /// When the response ended, in seconds since 1970.
    pub unix_seconds: u64,
    pub request: RequestLine<'a>,
    pub status: StatusCode,
    /// Bytes sent of the body.
    pub body_bytes: u64,
    pub user_agent: Option<&'a [u8]>,
    pub range: Option<&'a [u8]>,
    /// From the whole head received to the last byte sent.
    pub duration_ms: u128,
}

/// The first line of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RequestLine<'a> {
    /// Method and target as sent.
    Parsed { method: &'a str, target: &'a str, minor_version: u8 },
    /// The received bytes of a head that could not be parsed.
    Refused(&'a [u8]),
}

// Maximum bytes of each field in a line, escapes included. A line with all of them fits into the
// log's longest line.
const METHOD_BYTES: usize = 64;
const TARGET_BYTES: usize = 2048;
const AGENT_BYTES: usize = 1024;
const RANGE_BYTES: usize = 512;
const OTHER_BYTES: usize = 256;
const _: () = assert!(
    METHOD_BYTES + TARGET_BYTES + AGENT_BYTES + RANGE_BYTES + OTHER_BYTES < logging::LINE_BYTES
);

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends one line.
pub(crate) fn write_line(entry: &Entry<'_>, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write_entry(entry, out);
}

fn write_entry(entry: &Entry<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    match entry.peer {
        Some(peer) => write!(out, "{peer}")?,
        None => out.extend_from_slice(b"unix:"),
    }
    let utc = clock::utc(entry.unix_seconds);
    let ((year, month, day), (hour, minute, second)) = (utc.to_calendar_date(), utc.as_hms());
    let month = MONTHS[usize::from(u8::from(month)) - 1];
    write!(out, " - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] \"")?;
    match entry.request {
        RequestLine::Parsed { method, target, minor_version } => {
            write_escaped(method.as_bytes(), METHOD_BYTES, out);
            out.push(b' ');
            write_escaped(target.as_bytes(), TARGET_BYTES, out);
            write!(out, " HTTP/1.{minor_version}")?;
        }
        RequestLine::Refused(head) => match first_line(head) {
            b"" => out.push(b'-'),
            line => write_escaped(line, TARGET_BYTES, out),
        },
    }
    write!(out, "\" {} {} \"-\" \"", entry.status.as_str(), entry.body_bytes)?;
    write_escaped(entry.user_agent.unwrap_or(b"-"), AGENT_BYTES, out);
    out.push(b'"');
    if let Some(range) = entry.range {
        out.extend_from_slice(b" range=\"");
        write_escaped(range, RANGE_BYTES, out);
        out.push(b'"');
    }
    writeln!(out, " ms={}", entry.duration_ms)
}

/// The first line that is not empty, without its end.
fn first_line(head: &[u8]) -> &[u8] {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    head.split(is_end).find(|line| !line.is_empty()).unwrap_or_default()
}

/// Appends a value, cut to at most `limit` bytes. Bytes that could end a line or a field early, or
/// control a terminal, are written as `\xHH`, so that no client can forge an entry.
fn write_escaped(value: &[u8], limit: usize, out: &mut Vec<u8>) {
    let is_escaped = |byte: u8| matches!(byte, b'"' | b'\\' | ..=0x1f | 0x7f..);
    if value.len() <= limit && !value.iter().any(|&byte| is_escaped(byte)) {
        out.extend_from_slice(value);
        return;
    }
    let end = out.len() + limit;
    for &byte in value {
        let length = if is_escaped(byte) { 4 } else { 1 };
        if out.len() + length > end {
            return;
        }
        match length {
            1 => out.push(byte),
            // Writing to memory does not fail.
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str) -> String {
        line_of(RequestLine::Parsed { method: "GET", target, minor_version: 1 }, b"a\"b\n")
    }

    fn line_of(request: RequestLine<'_>, agent: &[u8]) -> String {
        let entry = Entry {
            peer: Some("127.0.0.1".parse().unwrap()),
            unix_seconds: 1_795_521_600,
            request,
            status: StatusCode::PARTIAL_CONTENT,
            body_bytes: 5,
            user_agent: Some(agent),
            range: Some(b"bytes=0-4"),
            duration_ms: 3,
        };
        let mut out = Vec::new();
        write_line(&entry, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_in_the_combined_format() {
        assert_eq!(
            line("/files/é"),
            "127.0.0.1 - - [24/Nov/2026:12:00:00 +0000] \"GET /files/\\xc3\\xa9 HTTP/1.1\" 206 5 \
             \"-\" \"a\\x22b\\x0a\" range=\"bytes=0-4\" ms=3\n"
        );
    }

    #[test]
    fn a_long_line_is_cut() {
        assert!(line(&"k".repeat(10_000)).len() < 2_300);
        for bytes in [vec![b'k'; 20_000], vec![0xff; 20_000]] {
            let line = line_of(RequestLine::Refused(&bytes), &bytes);
            assert!((3_000..logging::LINE_BYTES).contains(&line.len()), "{}", line.len());
        }
    }

    #[test]
    fn a_refused_head_is_logged_by_its_first_line() {
        let logged = |head: &[u8]| {
            let line = line_of(RequestLine::Refused(head), b"-");
            line.split('"').nth(1).unwrap().to_owned()
        };
        assert_eq!(
            logged(b"GET  /\x1b[31m\xff HTTP/1.1\r\nA: b\r\n\r\n"),
            "GET  /\\x1b[31m\\xff HTTP/1.1"
        );
        assert_eq!(logged(b"\nGET /a HTTP/1.1\nA: b"), "GET /a HTTP/1.1");
        assert_eq!(logged(b"GET /no-end"), "GET /no-end");
        assert_eq!(logged(b"\r\n"), "-");
        assert_eq!(logged(b""), "-");
    }
}
