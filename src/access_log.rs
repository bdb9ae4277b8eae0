//! The access log: one line per request, in the combined format with a few fields behind it.
//!
//! ```text
//! 127.0.0.1 - - [24/Nov/2026:03:30:56 +0000] "GET /files/a.bam HTTP/1.1" 206 65536 "-" "htslib/1.21" range="bytes=0-65535" ms=3
//! ```
//!
//! Lines are collected per core and written together a few times a second: a system call per
//! request would be the largest part of a small one's cost.

use std::io::Write;
use std::net::IpAddr;

use crate::clock::CivilTime;

/// What is logged of one request.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The client; `None` for a Unix socket.
    pub peer: Option<IpAddr>,
    /// When it was answered, in seconds since 1970.
    pub unix_seconds: u64,
    /// The method as sent, empty where the head could not be read.
    pub method: &'a str,
    /// The target as sent.
    pub target: &'a str,
    /// The minor version of HTTP/1.
    pub minor_version: u8,
    /// The status.
    pub status: u16,
    /// Bytes of the body that the client was sent.
    pub body_bytes: u64,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Range`.
    pub range: Option<&'a [u8]>,
    /// From the head read to the last byte sent, in milliseconds.
    pub duration_ms: u128,
}

/// Longest target, agent or range that is logged whole, in bytes.
const VALUE_BYTES: usize = 2048;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends one line.
pub fn write_line(entry: &Entry<'_>, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write_entry(entry, out);
}

fn write_entry(entry: &Entry<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    match entry.peer {
        Some(peer) => write!(out, "{peer}")?,
        None => out.extend_from_slice(b"unix:"),
    }
    let CivilTime { year, month, day, hour, minute, second } = CivilTime::new(entry.unix_seconds);
    let month = MONTHS[month as usize - 1];
    write!(out, " - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] \"")?;
    if entry.method.is_empty() {
        out.push(b'-');
    } else {
        write_escaped(entry.method.as_bytes(), out);
        out.push(b' ');
        write_escaped(entry.target.as_bytes(), out);
        write!(out, " HTTP/1.{}", entry.minor_version)?;
    }
    write!(out, "\" {} {} \"-\" \"", entry.status, entry.body_bytes)?;
    write_escaped(entry.user_agent.unwrap_or(b"-"), out);
    out.push(b'"');
    if let Some(range) = entry.range {
        out.extend_from_slice(b" range=\"");
        write_escaped(range, out);
        out.push(b'"');
    }
    writeln!(out, " ms={}", entry.duration_ms)
}

/// Everything that could end a line or a field early is written as `\xHH`, so that no client can
/// forge an entry; UTF-8 stays readable.
fn write_escaped(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value.iter().take(VALUE_BYTES) {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f => {
                let _ = write!(out, "\\x{byte:02x}");
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str) -> String {
        let entry = Entry {
            peer: Some("127.0.0.1".parse().unwrap()),
            unix_seconds: 1_795_521_600,
            method: "GET",
            target,
            minor_version: 1,
            status: 206,
            body_bytes: 5,
            user_agent: Some(b"a\"b\n"),
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
            "127.0.0.1 - - [24/Nov/2026:12:00:00 +0000] \"GET /files/é HTTP/1.1\" 206 5 \"-\" \
             \"a\\x22b\\x0a\" range=\"bytes=0-4\" ms=3\n"
        );
    }

    #[test]
    fn a_long_target_is_cut() {
        assert!(line(&"k".repeat(10_000)).len() < 2_300);
    }
}
