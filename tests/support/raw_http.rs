//! A blocking HTTP/1.1 client that sends exactly the bytes it is given, reads exactly the bytes
//! that the response announces, and fails on every response that breaks the rules of framing.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::proxy::Proxy;

/// One response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a field that occurs at most once.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} occurs twice in {:?}", self.fields);
        value
    }

    /// `Content-Length`, which every response but 304 must have.
    #[track_caller]
    pub(crate) fn content_length(&self) -> u64 {
        let length = self.field("content-length").expect("a response has a Content-Length");
        length.parse().expect("Content-Length is a number")
    }

    /// Whether the response has `Connection: close`.
    pub(crate) fn announces_close(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless the response has this status and body.
    #[track_caller]
    pub(crate) fn assert(&self, status: u16, body: impl AsRef<[u8]>) {
        assert_eq!(self.status, status, "{:?} {}", self.fields, self.shown());
        assert!(self.body == body.as_ref(), "a different body of {} bytes", self.body.len());
    }

    /// Fails unless the response is an error with one line of plain text.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16) {
        assert_eq!(self.status, status, "{:?} {}", self.fields, self.shown());
        let text = self.text();
        let lines = text.matches('\n').count();
        assert!(text.ends_with('\n') && lines == 1 && text.len() > 4, "not one line: {text:?}");
        let kind = self.field("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "an error with content type {kind:?}");
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned()
    }
}

/// One connection.
pub(crate) struct Client<S = TcpStream> {
    stream: S,
    /// Bytes received after the last response that was read.
    ahead: Vec<u8>,
}

impl Client {
    /// Opens a connection to the proxy.
    pub(crate) fn connect(proxy: &Proxy) -> Client {
        Client::on(proxy.connect())
    }

    /// Closes the sending direction.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// The socket, for options.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl<S: Read + Write> Client<S> {
    /// Uses a connected stream.
    pub(crate) fn on(stream: S) -> Client<S> {
        Client { stream, ahead: Vec::new() }
    }

    /// Sends exactly these bytes.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the proxy takes the request");
    }

    /// Sends bytes that the proxy may refuse to take, because its response may come earlier.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends a request with these fields besides `Host`, and reads the response.
    #[track_caller]
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        self.send(request_head(method, target, fields));
        self.response_to(method)
    }

    /// Reads one response; whether it has a body depends on the request's method.
    #[track_caller]
    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        let mut response = self.head();
        let bodiless = method == "HEAD" || response.status == 304 || response.status == 204;
        if !bodiless {
            response.body = self.exactly(response.content_length() as usize);
        }
        response
    }

    /// Reads the head of one response, without its body.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            assert!(self.fill() > 0, "closed before a whole head: {:?}", self.ahead_shown());
        };
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        parse_head(&String::from_utf8(head).expect("a head of ASCII"))
    }

    /// Reads this many bytes.
    #[track_caller]
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let some = self.some(count - bytes.len());
            assert!(!some.is_empty(), "closed after {} of {count} body bytes", bytes.len());
            bytes.extend_from_slice(&some);
        }
        bytes
    }

    /// Waits for at least one byte and reads at most this many. An empty result is the end of the
    /// connection, which may also be a reset.
    #[track_caller]
    pub(crate) fn some(&mut self, most: usize) -> Vec<u8> {
        if self.ahead.is_empty() {
            self.fill();
        }
        let rest = self.ahead.split_off(most.min(self.ahead.len()));
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads to the end of the connection, which may also be a reset, and returns the bytes before
    /// it.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.ahead)
    }

    /// Fails unless the proxy closes the connection without another byte.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "unexpected bytes: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Fails unless the connection serves one more request.
    #[track_caller]
    pub(crate) fn assert_open(&mut self) {
        let response = self.request("GET", "/outside-every-mount", &[]);
        assert_eq!(response.status, 404, "{}", response.text());
    }

    /// Receives once. 0 is the end of the connection, which may also be a reset.
    #[track_caller]
    fn fill(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.ahead.extend_from_slice(&buffer[..count]);
                count
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error} while waiting for the proxy; {:?}", self.ahead_shown()),
        }
    }

    fn ahead_shown(&self) -> String {
        String::from_utf8_lossy(&self.ahead[..self.ahead.len().min(400)]).into_owned()
    }
}

/// A request head with `Host` and these fields.
pub(crate) fn request_head(method: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let fields: String =
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: proxy.test\r\n{fields}\r\n")
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn request(
    proxy: &Proxy,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Response {
    Client::connect(proxy).request(method, target, fields)
}

/// One `GET` on a connection of its own.
#[track_caller]
pub(crate) fn get(proxy: &Proxy, target: &str) -> Response {
    request(proxy, "GET", target, &[])
}

/// One ranged `GET` on a connection of its own.
#[track_caller]
pub(crate) fn get_range(proxy: &Proxy, target: &str, range: &str) -> Response {
    request(proxy, "GET", target, &[("Range", range)])
}

/// One `HEAD` on a connection of its own.
#[track_caller]
pub(crate) fn head(proxy: &Proxy, target: &str) -> Response {
    request(proxy, "HEAD", target, &[])
}

/// A key as a path: everything but letters, digits, `-._~` and `/` percent-encoded.
pub(crate) fn encode(key: &str) -> String {
    let encoded = key.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            (byte as char).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[track_caller]
fn parse_head(head: &str) -> Response {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|digits| digits.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
    let fields: Vec<_> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("field {line:?}"));
            assert!(!name.ends_with(' ') && !value.contains('\n'), "field {line:?}");
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let response = Response { status, fields, body: Vec::new() };
    assert_eq!(response.field("transfer-encoding"), None, "every response has a length");
    assert!(response.field("date").is_some(), "a response has a Date (RFC 9110 §6.6.1)");
    response
}
