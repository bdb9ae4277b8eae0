//! A way through an HTTP proxy to an origin (CONNECT, RFC 9110 §9.3.6).

use std::io;
use std::time::{Duration, Instant};

use crate::http1::framing::{HeadEnd, find_head_end};
use crate::limits;
use crate::sys::stream::Stream;
use crate::upstream::Origin;
use crate::upstream::proxy::HttpProxy;

/// Has `proxy`, which `stream` leads to, connect to `origin`. What is sent and received afterwards
/// is between us and the origin.
///
/// # Errors
/// `TimedOut` where the proxy does not answer in time or the origin not to it; `InvalidData` where
/// it refuses, which another try would not change.
pub(super) async fn open(
    stream: &mut Stream,
    proxy: &HttpProxy,
    origin: &Origin,
    timeout: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let host = origin.host_and_port();
    let mut request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str("Proxy-Authorization: ");
        request.push_str(authorization);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let length = request.len();
    stream.send(request.into_bytes(), 0..length, timeout).await.0?;
    let mut buf = Vec::with_capacity(limits::RESPONSE_HEAD_BYTES);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (received, returned) = stream.receive(buf, usize::MAX, left).await;
        buf = returned;
        match received {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(said(io::ErrorKind::TimedOut, "does not answer in time".to_owned()));
            }
            Err(error) => return Err(error),
        }
        match find_head_end(&buf) {
            // The origin speaks only when it is spoken to: bytes behind the head are not its.
            HeadEnd::At(length) if length == buf.len() || !is_2xx(&buf) => {
                return judge(&buf, proxy, &host);
            }
            HeadEnd::Missing if buf.len() < limits::RESPONSE_HEAD_BYTES => {}
            _ => return Err(nonsense()),
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn is_2xx(head: &[u8]) -> bool {
    status(head).is_some_and(|status| (200..300).contains(&status))
}

fn judge(head: &[u8], proxy: &HttpProxy, host: &str) -> io::Result<()> {
    use io::ErrorKind::{ConnectionRefused, InvalidData, TimedOut};
    let Some(status) = status(head) else { return Err(nonsense()) };
    Err(match status {
        200..300 => return Ok(()),
        407 if proxy.authorization.is_some() => {
            said(InvalidData, "refuses the name and the password of its URL (407)".to_owned())
        }
        407 => {
            let words =
                "wants a name and a password (407): write http://NAME:PASSWORD@ before its host";
            said(InvalidData, words.to_owned())
        }
        504 => said(TimedOut, format!("gets no answer from {host} (504)")),
        500..600 => said(ConnectionRefused, format!("cannot connect to {host} ({status})")),
        _ => said(
            InvalidData,
            format!(
                "refuses to connect to {host} ({status}): have that allowed, or name the host in NO_PROXY"
            ),
        ),
    })
}

fn nonsense() -> io::Error {
    said(
        io::ErrorKind::InvalidData,
        "gives an answer that makes no sense; is it an HTTP proxy?".to_owned(),
    )
}

fn said(kind: io::ErrorKind, words: String) -> io::Error {
    io::Error::new(kind, words)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_answer_of_a_proxy_has_its_words_and_its_kind() {
        use io::ErrorKind::{ConnectionRefused, InvalidData, TimedOut};
        let origin = Arc::new(Origin { tls: false, host: "p".to_owned(), port: 3128 });
        let mut proxy = HttpProxy { origin, authorization: None, url: String::new() };
        let mut judged = |head: &str, authorization: Option<&str>| {
            proxy.authorization = authorization.map(str::to_owned);
            judge(head.as_bytes(), &proxy, "s3:443")
                .map_err(|error| (error.kind(), error.to_string()))
        };
        assert_eq!(judged("HTTP/1.1 200 Connection established\r\n\r\n", None), Ok(()));
        assert_eq!(judged("HTTP/1.0 299 x\r\n\r\n", None), Ok(()));
        for (head, kind, words) in [
            ("HTTP/1.1 407 x", InvalidData, "wants a name and a password"),
            ("HTTP/1.1 403 x", InvalidData, "refuses to connect to s3:443 (403)"),
            ("HTTP/1.1 302 x", InvalidData, "refuses to connect"),
            ("HTTP/1.1 502 x", ConnectionRefused, "cannot connect to s3:443 (502)"),
            ("HTTP/1.1 504 x", TimedOut, "gets no answer from s3:443"),
            ("SSH-2.0-x", InvalidData, "is it an HTTP proxy?"),
        ] {
            let (found, said) = judged(head, None).unwrap_err();
            assert!(found == kind && said.contains(words), "{head}: {said}");
        }
        let (_, said) = judged("HTTP/1.1 407 x", Some("Basic hush")).unwrap_err();
        assert!(said.contains("refuses the name") && !said.contains("hush"), "{said}");
    }
}
