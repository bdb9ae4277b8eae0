//! A tunnel through an HTTP proxy (CONNECT, RFC 9110 §9.3.6).

use std::io;
use std::time::{Duration, Instant};

use crate::http1::framing::{HeadEnd, find_head_end};
use crate::limits;
use crate::sys::stream::Stream;
use crate::upstream::Origin;
use crate::upstream::error::ConnectError;
use crate::upstream::proxy::HttpProxy;

/// An HTTP proxy opened no tunnel to a host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    /// The proxy does not respond.
    #[error("the proxy does not respond in time")]
    TimedOut,
    /// 504: the host does not respond to the proxy.
    #[error("the proxy gets no response from {0} (504)")]
    HostTimedOut(String),
    /// Another 5xx.
    #[error("the proxy cannot connect to {host} ({status})")]
    HostUnreachable {
        /// With its port.
        host: String,
        /// The proxy's response.
        status: u16,
    },
    /// Any other status: the proxy's rules forbid it.
    #[error(
        "the proxy refuses to connect to {host} ({status}): allow it there, or add the host to \
         NO_PROXY"
    )]
    Forbidden {
        /// With its port.
        host: String,
        /// The proxy's response.
        status: u16,
    },
    /// 407 to the credentials of the proxy's URL.
    #[error("the proxy rejects the user name and password of its URL (407)")]
    LoginRefused,
    /// 407, and the proxy's URL has no credentials.
    #[error(
        "the proxy requires a user name and a password (407): write http://NAME:PASSWORD@ before its host"
    )]
    LoginRequired,
    /// Not HTTP.
    #[error("the proxy's response is malformed; is it an HTTP proxy?")]
    Malformed,
}

impl ProxyError {
    /// Whether the proxy or the host did not respond in time.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, ProxyError::TimedOut | ProxyError::HostTimedOut(_))
    }

    /// Whether a retry may succeed. A refusal lasts until a configuration changes.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            ProxyError::TimedOut
            | ProxyError::HostTimedOut(_)
            | ProxyError::HostUnreachable { .. } => true,
            ProxyError::Forbidden { .. }
            | ProxyError::LoginRefused
            | ProxyError::LoginRequired
            | ProxyError::Malformed => false,
        }
    }
}

/// Opens a tunnel to `origin` through `proxy`, to which `stream` is connected.
///
/// # Errors
/// [`ConnectError::Proxy`] if the proxy does not open one, [`ConnectError::Tcp`] if the connection
/// to it broke.
pub(super) async fn open(
    stream: &mut Stream,
    proxy: &HttpProxy,
    origin: &Origin,
    timeout: Duration,
) -> Result<(), ConnectError> {
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
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(ProxyError::TimedOut.into());
            }
            Err(error) => return Err(error.into()),
        }
        match find_head_end(&buf) {
            // The origin sends nothing before the TLS handshake, so it cannot have sent bytes
            // behind the head.
            HeadEnd::At(length) if length == buf.len() || !is_2xx(&buf) => {
                return Ok(tunnel_result(&buf, proxy, &host)?);
            }
            HeadEnd::Missing if buf.len() < limits::RESPONSE_HEAD_BYTES => {}
            _ => return Err(ProxyError::Malformed.into()),
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

fn tunnel_result(head: &[u8], proxy: &HttpProxy, host: &str) -> Result<(), ProxyError> {
    let host = host.to_owned();
    Err(match status(head) {
        Some(200..300) => return Ok(()),
        Some(407) if proxy.authorization.is_some() => ProxyError::LoginRefused,
        Some(407) => ProxyError::LoginRequired,
        Some(504) => ProxyError::HostTimedOut(host),
        Some(status @ 500..600) => ProxyError::HostUnreachable { host, status },
        Some(status) => ProxyError::Forbidden { host, status },
        None => ProxyError::Malformed,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_response_of_a_proxy_has_an_error_and_a_message() {
        use ProxyError::{
            Forbidden, HostTimedOut, HostUnreachable, LoginRefused, LoginRequired, Malformed,
        };
        let host = || "s3:443".to_owned();
        let origin = Arc::new(Origin { tls: false, host: "p".to_owned(), port: 3128 });
        let mut proxy = HttpProxy { origin, authorization: None, url: String::new() };
        let mut result = |head: &str, authorization: Option<&str>| {
            proxy.authorization = authorization.map(str::to_owned);
            tunnel_result(head.as_bytes(), &proxy, "s3:443")
        };
        assert_eq!(result("HTTP/1.1 200 Connection established\r\n\r\n", None), Ok(()));
        assert_eq!(result("HTTP/1.0 299 x\r\n\r\n", None), Ok(()));
        for (head, error, words) in [
            ("HTTP/1.1 407 x", LoginRequired, "requires a user name and a password"),
            (
                "HTTP/1.1 403 x",
                Forbidden { host: host(), status: 403 },
                "refuses to connect to s3:443 (403)",
            ),
            ("HTTP/1.1 302 x", Forbidden { host: host(), status: 302 }, "refuses to connect"),
            (
                "HTTP/1.1 502 x",
                HostUnreachable { host: host(), status: 502 },
                "cannot connect to s3:443 (502)",
            ),
            ("HTTP/1.1 504 x", HostTimedOut(host()), "gets no response from s3:443"),
            ("SSH-2.0-x", Malformed, "is it an HTTP proxy?"),
        ] {
            let found = result(head, None).unwrap_err();
            assert!(found == error && found.to_string().contains(words), "{head}: {found}");
        }
        let refused = result("HTTP/1.1 407 x", Some("Basic hush")).unwrap_err();
        let said = refused.to_string();
        assert!(refused == LoginRefused && !said.contains("hush"), "{said}");
        assert!(said.contains("rejects the user name"), "{said}");
    }
}
