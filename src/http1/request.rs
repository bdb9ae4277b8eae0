//! Parses a client's request head, strictly by RFC 9112.
//!
//! Syntax that two servers in a chain could interpret differently is rejected, not repaired:
//! contradictory or repeated framing fields, line folding, bare line feeds, white space before a
//! colon.

use std::mem::MaybeUninit;

use crate::http1::authority;
use crate::http1::cache_control::CacheControl;
use crate::http1::conditional::Preconditions;
use crate::http1::framing::{BodyLength, FramingError, FramingFields, list_has_token};
use crate::http1::target::Target;
use crate::limits;

/// The request methods; S3 only ever receives the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// Any other, which gets a 405.
    Other,
}

/// A request head. All slices borrow from the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The parsed method.
    pub method: Method,
    /// The method as sent, for the log.
    pub method_text: &'a str,
    /// The target as sent, for the log.
    pub target_text: &'a str,
    /// The parsed target.
    pub target: Target<'a>,
    /// The minor version: 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub minor_version: u8,
    /// Whether the client keeps the connection open after the response (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether a body follows the head. No supported method needs one, so it is never read, and the
    /// connection is closed after the response.
    pub has_body: bool,
    /// `Range`.
    pub range: Option<&'a [u8]>,
    /// `If-Range`.
    pub if_range: Option<&'a [u8]>,
    /// The conditions other than `If-Range`.
    pub preconditions: Preconditions<'a>,
    /// The greatest age of cached metadata that the client accepts, in seconds (`Cache-Control`,
    /// `Pragma`); `None` accepts any.
    pub max_age_s: Option<u32>,
    /// The fields of a cross-origin request.
    pub cross_origin: CrossOrigin<'a>,
    /// `User-Agent`, for the log.
    pub user_agent: Option<&'a [u8]>,
    /// Whether bytes of a pipelined request have arrived already; set by the connection.
    pub is_followed: bool,
}

impl Request<'_> {
    /// A placeholder for a head that cannot be parsed, so that an error response can be written. It
    /// closes the connection.
    pub fn unparsed(head: &[u8]) -> Request<'static> {
        Request {
            method: if head.starts_with(b"HEAD ") { Method::Head } else { Method::Other },
            method_text: "",
            target_text: "",
            target: Target::Asterisk,
            minor_version: 1,
            keep_alive: false,
            has_body: false,
            range: None,
            if_range: None,
            preconditions: Preconditions::default(),
            max_age_s: None,
            cross_origin: CrossOrigin::default(),
            user_agent: None,
            is_followed: false,
        }
    }
}

/// The fields of a cross-origin request (Fetch Standard, "CORS protocol").
#[derive(Clone, Copy, Debug, Default)]
pub struct CrossOrigin<'a> {
    /// `Origin`.
    pub origin: Option<&'a [u8]>,
    /// `Access-Control-Request-Method`; an OPTIONS request with it is a preflight.
    pub request_method: Option<&'a [u8]>,
    /// `Access-Control-Request-Headers`.
    pub request_headers: Option<&'a [u8]>,
    /// Whether `Access-Control-Request-Private-Network` is present.
    pub private_network: bool,
}

/// Why a request head is rejected; the connection is then closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is not a request line and fields.
    #[error("the request head is malformed: {0}")]
    Malformed(&'static str),
    /// More than [`limits::REQUEST_FIELDS`]; 431.
    #[error("the request has more than 100 header fields")]
    TooManyFields,
    /// The target is not in a supported form; see [`Target`].
    #[error("the request target is not a path or an http URL")]
    Target,
    /// `Host` is missing from an HTTP/1.1 request or repeated (RFC 9112 §3.2).
    #[error("an HTTP/1.1 request needs exactly one Host field")]
    Host,
    /// `Host` is not a host with an optional port (RFC 9112 §3.2).
    #[error("the Host field is not a host name or address with an optional port")]
    HostSyntax,
    /// A field that may occur only once is repeated.
    #[error("header field {0} is repeated")]
    Repeated(&'static str),
    /// The framing fields are invalid.
    #[error("the framing of the request is invalid: {0}")]
    Framing(#[from] FramingError),
}

/// Changes HTTP/1.2 to HTTP/1.9 in the request line to HTTP/1.1: a recipient must treat a later
/// minor version as the highest that it supports (RFC 9110 §2.5), but httparse rejects it.
pub(crate) fn lower_minor_version(head: &mut [u8]) {
    let line_end = memchr::memchr(b'\r', head).unwrap_or(0);
    if let Some(start) = line_end.checked_sub(b" HTTP/1.x".len())
        && head[start..].starts_with(b" HTTP/1.")
        && matches!(head[line_end - 1], b'2'..=b'9')
    {
        head[line_end - 1] = b'1';
    }
}

/// Parses a complete head, which ends where [`find_head_end`] says.
///
/// [`find_head_end`]: crate::http1::framing::find_head_end
///
/// # Errors
/// See [`RequestError`].
pub fn parse(head: &[u8]) -> Result<Request<'_>, RequestError> {
    let mut fields = [const { MaybeUninit::uninit() }; limits::REQUEST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(RequestError::Malformed("incomplete")),
        Err(error) => return Err(RequestError::from(error)),
    }
    // A complete parse fills all three.
    let (Some(method_text), Some(target_text), Some(minor_version)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(RequestError::Malformed("incomplete"));
    };
    let mut request = Request {
        method: Method::parse(method_text),
        method_text,
        target_text,
        target: Target::parse(target_text).ok_or(RequestError::Target)?,
        minor_version,
        keep_alive: minor_version == 1,
        ..Request::unparsed(head)
    };
    read_fields(parsed.headers, &mut request)?;
    if request.target == Target::Asterisk && request.method != Method::Options {
        return Err(RequestError::Target);
    }
    Ok(request)
}

fn read_fields<'a>(
    fields: &[httparse::Header<'a>],
    request: &mut Request<'a>,
) -> Result<(), RequestError> {
    let mut framing = FramingFields::default();
    let mut cache_control = CacheControl::default();
    let mut hosts = 0;
    let (mut close, mut keep_alive) = (false, false);
    for field in fields {
        let (name, value) = (field.name, field.value);
        // Nearly all names differ in length, so most are never compared byte by byte.
        match name.len() {
            4 if is(name, "host") => {
                if !authority::is_valid(value) {
                    return Err(RequestError::HostSyntax);
                }
                hosts += 1;
            }
            5 if is(name, "range") => once(&mut request.range, value, "Range")?,
            6 if is(name, "pragma") => cache_control.pragma(value),
            6 if is(name, "origin") => request.cross_origin.origin = Some(value),
            8 if is(name, "if-match") => {
                once(&mut request.preconditions.if_match, value, "If-Match")?;
            }
            8 if is(name, "if-range") => once(&mut request.if_range, value, "If-Range")?,
            10 if is(name, "connection") => {
                close |= list_has_token(value, b"close");
                keep_alive |= list_has_token(value, b"keep-alive");
            }
            10 if is(name, "user-agent") => request.user_agent = Some(value),
            13 if is(name, "cache-control") => cache_control.cache_control(value),
            13 if is(name, "if-none-match") => {
                once(&mut request.preconditions.if_none_match, value, "If-None-Match")?;
            }
            14 if is(name, "content-length") => framing.content_length(value)?,
            17 if is(name, "transfer-encoding") => framing.transfer_encoding(value)?,
            17 if is(name, "if-modified-since") => {
                once(&mut request.preconditions.if_modified_since, value, "If-Modified-Since")?;
            }
            19 if is(name, "if-unmodified-since") => {
                once(&mut request.preconditions.if_unmodified_since, value, "If-Unmodified-Since")?;
            }
            29 if is(name, "access-control-request-method") => {
                request.cross_origin.request_method = Some(value);
            }
            30 if is(name, "access-control-request-headers") => {
                request.cross_origin.request_headers = Some(value);
            }
            38 if is(name, "access-control-request-private-network") => {
                request.cross_origin.private_network = true;
            }
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && request.minor_version == 1) {
        return Err(RequestError::Host);
    }
    request.max_age_s = cache_control.max_age_s();
    request.keep_alive = !close && (request.minor_version == 1 || keep_alive);
    request.has_body = !matches!(framing.body_length()?, None | Some(BodyLength::Known(0)));
    Ok(())
}

fn is(name: &str, lower_case: &str) -> bool {
    name.eq_ignore_ascii_case(lower_case)
}

fn once<'a>(
    slot: &mut Option<&'a [u8]>,
    value: &'a [u8],
    name: &'static str,
) -> Result<(), RequestError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(RequestError::Repeated(name)),
    }
}

impl Method {
    fn parse(text: &str) -> Method {
        match text {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

impl From<httparse::Error> for RequestError {
    fn from(error: httparse::Error) -> RequestError {
        RequestError::Malformed(match error {
            httparse::Error::TooManyHeaders => return RequestError::TooManyFields,
            httparse::Error::HeaderName => "invalid header field name or a folded line",
            httparse::Error::HeaderValue => "invalid header field value",
            httparse::Error::NewLine => "a line does not end with CRLF",
            httparse::Error::Status => "invalid status",
            httparse::Error::Token => "invalid method or target",
            httparse::Error::Version => "not HTTP/1.1 or HTTP/1.0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_fields(fields: &str) -> Result<(bool, bool), RequestError> {
        let head = format!("GET /files/a HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        parse(head.as_bytes()).map(|request| (request.keep_alive, request.has_body))
    }

    #[test]
    fn field_names_are_case_insensitive() {
        let head = b"GET /files/a%20b?x HTTP/1.1\r\nhOST: h\r\nRANGE: bytes=0-1\r\n\
            if-range: \"e\"\r\nIf-None-Match: \"e\"\r\nUser-Agent: IGV\r\nOrigin: http://o\r\n\r\n";
        let request = parse(head).unwrap();
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.target, Target::Resource { path: "/files/a%20b", query: "x" });
        assert_eq!(request.range, Some(&b"bytes=0-1"[..]));
        assert_eq!(request.if_range, Some(&b"\"e\""[..]));
        assert_eq!(request.preconditions.if_none_match, Some(&b"\"e\""[..]));
        assert_eq!(request.user_agent, Some(&b"IGV"[..]));
        assert_eq!(request.cross_origin.origin, Some(&b"http://o"[..]));
    }

    #[test]
    fn persistence_follows_version_and_connection_options() {
        assert_eq!(parse_fields(""), Ok((true, false)));
        assert_eq!(parse_fields("Connection: foo, Close\r\n"), Ok((false, false)));
        let old = |fields: &str| {
            let head = format!("GET / HTTP/1.0\r\n{fields}\r\n");
            parse(head.as_bytes()).unwrap().keep_alive
        };
        assert!(!old(""));
        assert!(old("Connection: keep-alive\r\n"));
        assert!(!old("Connection: keep-alive, close\r\n"));
    }

    #[test]
    fn bodies_are_detected_and_invalid_framing_rejected() {
        assert_eq!(parse_fields("Content-Length: 0\r\n"), Ok((true, false)));
        assert_eq!(parse_fields("Content-Length: 5\r\n"), Ok((true, true)));
        assert_eq!(parse_fields("Transfer-Encoding: chunked\r\n"), Ok((true, true)));
        for fields in [
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 0\r\nContent-Length: 0\r\n",
            "Content-Length: +1\r\n",
            "Transfer-Encoding: gzip\r\n",
        ] {
            assert!(matches!(parse_fields(fields), Err(RequestError::Framing(_))), "{fields}");
        }
    }

    #[test]
    fn http_1_1_requires_exactly_one_host() {
        assert_eq!(parse_fields("Host: h\r\n"), Err(RequestError::Host));
        assert_eq!(parse_fields("Host: u@h\r\n"), Err(RequestError::HostSyntax));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n").err(), Some(RequestError::Host));
        assert!(parse(b"GET / HTTP/1.0\r\n\r\n").is_ok());
    }

    #[test]
    fn malformed_heads_are_rejected() {
        for head in [
            &b"GET /a HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n"[..],
            b"GET /a HTTP/1.1\r\nHost : h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
            b"GET  /a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a\r\nHost: h\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ] {
            assert!(
                matches!(parse(head), Err(RequestError::Malformed(_))),
                "{:?}: {:?}",
                String::from_utf8_lossy(head),
                parse(head)
            );
        }
        assert_eq!(parse(b"GET * HTTP/1.0\r\n\r\n").err(), Some(RequestError::Target));
        assert_eq!(
            parse_fields("Range: bytes=0-1\r\nRange: bytes=3-4\r\n"),
            Err(RequestError::Repeated("Range"))
        );
        assert_eq!(parse_fields(&"A: b\r\n".repeat(100)), Err(RequestError::TooManyFields));
    }

    #[test]
    fn a_later_minor_version_is_treated_as_1_1() {
        let lowered = |line: &str| {
            let mut head = format!("{line}\r\nHost: h\r\nX: HTTP/1.9\r\n\r\n").into_bytes();
            lower_minor_version(&mut head);
            let expected = format!("{line}\r\n").replace(" HTTP/1.2\r", " HTTP/1.1\r");
            let expected = expected.replace(" HTTP/1.9\r", " HTTP/1.1\r");
            assert!(head.starts_with(expected.as_bytes()), "{line}");
            assert!(head.ends_with(b"\r\nX: HTTP/1.9\r\n\r\n"));
            parse(&head).map(|request| (request.minor_version, request.keep_alive))
        };
        for line in ["GET /a HTTP/1.2", "GET /a HTTP/1.9", "GET /a HTTP/1.1"] {
            assert_eq!(lowered(line).ok(), Some((1, true)), "{line}");
        }
        assert_eq!(lowered("GET /a HTTP/1.0").ok(), Some((0, false)));
        for line in ["GET /a HTTP/2.2", "GET /a HTTP/1.10", "GET /aHTTP/1.2", "GET /a", ""] {
            assert!(lowered(line).is_err(), "{line}");
        }
    }

    #[test]
    fn raw_utf8_in_a_target_is_accepted() {
        let head = "GET /files/é🧬 HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(parse(head.as_bytes()).unwrap().target_text, "/files/é🧬");
    }
}
