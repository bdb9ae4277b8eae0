//! Responses of S3 servers other than AWS, and of proxies in front of them: valid HTTP that AWS
//! never sends, and small mistakes that the proxy hides from clients.

mod chunked;
mod framing;
mod interim;
mod ranges;

use crate::support::certificates::Authority;
use crate::support::object::synthetic_bytes;
use crate::support::proxy::{Config, Driver, Proxy};
use crate::support::raw_http::{get, get_range, head};
use crate::support::scripted_upstream::{Peer, ScriptedUpstream};

const TARGET: &str = "/files/reads.bam";
const E_TAG: &str = "\"0123456789abcdef\"";
const FIELDS: &str =
    "ETag: \"0123456789abcdef\"\r\nLast-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\n";

/// The framing of a body (RFC 9112 §6.3), or of the body that a GET would have (HEAD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    /// Neither: a body ends with the connection.
    Nothing,
}

/// A server with one synthetic object and its own quirks.
#[derive(Clone, Copy, Debug)]
struct Store {
    size: u64,
    framing: Framing,
    /// The framing in responses to HEAD.
    head: Framing,
    /// Whether a range request gets the whole object. If HEAD has no length, `bytes=0-0` still gets
    /// a 206, since otherwise nothing would tell the size.
    ignores_ranges: bool,
    /// Bytes in a chunk, or [`GROWING`].
    chunk: usize,
}

/// Chunks of many sizes, beginning with one byte.
const GROWING: usize = 0;

const DIGITS: Store = Store {
    size: 10,
    framing: Framing::Chunked,
    head: Framing::Nothing,
    ignores_ranges: false,
    chunk: 3,
};

const LARGE: Store = Store { size: 5_000_003, chunk: 70_000, ..DIGITS };

/// As S3 sends it.
const PLAIN: Store = Store {
    size: 3 << 20,
    framing: Framing::Length,
    head: Framing::Length,
    chunk: GROWING,
    ..DIGITS
};

impl Store {
    /// The first and the last byte that a request asks for.
    fn part(self, request: &str) -> Option<(u64, u64)> {
        let range = request.lines().find_map(|line| line.strip_prefix("Range: bytes="))?;
        let (first, last) = range.split_once('-')?;
        if first.is_empty() {
            let length: u64 = last.parse().ok()?;
            return Some((self.size.saturating_sub(length), self.size.saturating_sub(1)));
        }
        let last: u64 = last.parse().unwrap_or(u64::MAX);
        Some((first.parse().ok()?, last.min(self.size.saturating_sub(1))))
    }

    /// Head and body of the response to the last request of `peer`, with `framing` left out.
    fn response(self, peer: &Peer) -> Response {
        let request = peer.last_head();
        let is_head = request.starts_with("HEAD ");
        let asks_for_the_size = self.head != Framing::Length;
        let part = self
            .part(&request)
            .filter(|&part| !self.ignores_ranges || (asks_for_the_size && part == (0, 0)));
        if part.is_some_and(|(first, _)| first >= self.size) {
            let size = self.size;
            let xml = format!(
                "<Error><Code>InvalidRange</Code><ActualObjectSize>{size}</ActualObjectSize></Error>"
            );
            let status = "416 Range Not Satisfiable".to_owned();
            return Response {
                status,
                fields: "",
                framing: Framing::Length,
                is_head,
                body: xml.into(),
            };
        }
        let (first, length) =
            part.map_or((0, self.size), |(first, last)| (first, last - first + 1));
        let status = match part {
            Some((first, last)) => {
                format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}", self.size)
            }
            None => "200 OK".to_owned(),
        };
        let framing = if is_head { self.head } else { self.framing };
        Response { status, fields: FIELDS, framing, is_head, body: bytes(first, length) }
    }

    /// Serves one request; returns whether the connection stays open.
    fn respond(self, peer: &mut Peer) -> bool {
        let response = self.response(peer);
        peer.send(response.head());
        if response.is_head {
            return true;
        }
        match response.framing {
            Framing::Chunked => peer.send(chunked(&response.body, self.chunk)),
            _ => peer.send(&response.body),
        }
        response.framing != Framing::Nothing
    }

    fn script(self) -> impl Fn(&mut Peer) + Clone + Send + Sync + 'static {
        move |peer| while peer.next_request() && self.respond(peer) {}
    }

    fn start(self) -> ScriptedUpstream {
        ScriptedUpstream::start(self.script())
    }
}

/// A response before it is written.
struct Response {
    /// The status, and `Content-Range` if it is a part.
    status: String,
    fields: &'static str,
    framing: Framing,
    is_head: bool,
    body: Vec<u8>,
}

impl Response {
    fn head(&self) -> String {
        let framing = match self.framing {
            Framing::Length => format!("Content-Length: {}\r\n", self.body.len()),
            Framing::Chunked => "Transfer-Encoding: Chunked\r\n".to_owned(),
            Framing::Nothing => String::new(),
        };
        format!("HTTP/1.1 {}\r\n{}{framing}\r\n", self.status, self.fields)
    }
}

/// Bytes of the object.
fn bytes(first: u64, length: u64) -> Vec<u8> {
    synthetic_bytes(first, length as usize)
}

/// One chunk, with an extension.
fn in_chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:X};x=\"y\"\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// The last chunk and a trailer.
const END_OF_CHUNKS: &str = "0;last\r\nx-trailer: y\r\n\r\n";

fn chunked(body: &[u8], chunk: usize) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), body);
    let mut size = chunk.max(1);
    while !rest.is_empty() {
        let (data, after) = rest.split_at(size.min(rest.len()));
        out.extend(in_chunk(data));
        rest = after;
        if chunk == GROWING {
            size = size * 3 % 100_003 + 1;
        }
    }
    out.extend_from_slice(END_OF_CHUNKS.as_bytes());
    out
}

fn proxy_over(driver: Driver, upstream: &ScriptedUpstream) -> Proxy {
    Config::new(driver, &upstream.endpoint()).start()
}

/// Runs a story over plain connections, spliced and copied, and over TLS.
fn on_every_transport(
    driver: Driver,
    script: impl Fn(&mut Peer) + Clone + Send + Sync + 'static,
    story: impl Fn(&Proxy, &ScriptedUpstream),
) {
    for splice in ["auto", "off"] {
        let upstream = ScriptedUpstream::start(script.clone());
        let config = Config::new(driver, &upstream.endpoint());
        story(&config.set("splice", splice).start(), &upstream);
    }
    let authority = Authority::new();
    let tls = authority.server("localhost", &[&rustls::version::TLS13]);
    let upstream = ScriptedUpstream::start_tls(tls, script);
    let file = authority.file();
    let config = Config::new(driver, &upstream.endpoint());
    story(&config.set("ca_file", file.to_str().expect("a path of ASCII")).start(), &upstream);
}

/// Requests the object in every way, each with a target of its own, cold and then cached.
#[track_caller]
fn assert_serves(proxy: &Proxy, store: Store) {
    let size = store.size;
    let whole = bytes(0, size);
    let mut parts = vec![
        ("bytes=0-0".to_owned(), 0, 0),
        ("bytes=2-4".to_owned(), 2, 4),
        (format!("bytes=5-{}", size + 5), 5, size - 1),
        ("bytes=7-".to_owned(), 7, size - 1),
        ("bytes=-3".to_owned(), size - 3, size - 1),
        ("bytes=0-".to_owned(), 0, size - 1),
    ];
    if size > 2_000_000 {
        parts.push(("bytes=70000-1999999".to_owned(), 70_000, 1_999_999));
    }
    for round in ["cold", "cached"] {
        for (number, (range, first, last)) in parts.iter().enumerate() {
            let response = get_range(proxy, &format!("/files/part-{number}"), range);
            assert_eq!(response.status, 206, "{round} {range}: {}", response.text());
            response.assert(206, &whole[*first as usize..=*last as usize]);
            let content_range = format!("bytes {first}-{last}/{size}");
            assert_eq!(response.field("content-range"), Some(content_range.as_str()));
        }
        let response = get(proxy, "/files/whole");
        assert_eq!(response.status, 200, "{round}");
        response.assert(200, &whole);
        assert_eq!(response.content_length(), size);
        let response = head(proxy, "/files/head");
        assert_eq!((response.status, response.content_length()), (200, size), "{round}");
        assert_eq!(response.field("etag"), Some(E_TAG), "{round}");
        let beyond = get_range(proxy, "/files/beyond", &format!("bytes={size}-"));
        beyond.assert_error(416);
        let all = format!("bytes */{size}");
        assert_eq!(beyond.field("content-range"), Some(all.as_str()), "{round}");
    }
}
