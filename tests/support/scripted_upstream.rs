//! An upstream that runs the test's script, also for behavior that a correct S3 never shows.
//!
//! Each connection runs the script on a thread of its own, with plain blocking calls.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use socket2::SockRef;

use super::PATIENCE;
use super::object::synthetic_bytes;
use super::tcp_info::bytes_acknowledged;

/// A running server; dropping it stops accepting.
pub(crate) struct ScriptedUpstream {
    address: SocketAddr,
    tls: bool,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A free port on the loopback device.
const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

#[derive(Default)]
struct Shared {
    heads: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
    script_panicked: AtomicBool,
}

impl ScriptedUpstream {
    /// Runs `script` for every connection. When it returns, the connection is closed.
    pub(crate) fn start(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> ScriptedUpstream {
        ScriptedUpstream::serve(ANY_PORT, None, script)
    }

    /// The same, listening at this address.
    pub(crate) fn start_at(
        address: (Ipv4Addr, u16),
        script: impl Fn(&mut Peer) + Send + Sync + 'static,
    ) -> ScriptedUpstream {
        ScriptedUpstream::serve(address, None, script)
    }

    /// The same with TLS. A connection is closed without `close_notify`, as if it had been cut.
    pub(crate) fn start_tls(
        tls: Arc<ServerConfig>,
        script: impl Fn(&mut Peer) + Send + Sync + 'static,
    ) -> ScriptedUpstream {
        ScriptedUpstream::serve(ANY_PORT, Some(tls), script)
    }

    fn serve(
        address: (Ipv4Addr, u16),
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&mut Peer) + Send + Sync + 'static,
    ) -> ScriptedUpstream {
        let is_tls = tls.is_some();
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let script = Arc::new(script);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if seen.stop.load(Ordering::SeqCst) {
                    return;
                }
                let mut peer = Peer::new(stream, tls.clone(), Arc::clone(&seen));
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut peer));
            }
        });
        ScriptedUpstream { address, tls: is_tls, shared, thread: Some(thread) }
    }

    /// Sends these bytes in response to every request and keeps the connection.
    pub(crate) fn always(response: impl Into<Vec<u8>>) -> ScriptedUpstream {
        ScriptedUpstream::always_at(ANY_PORT, response)
    }

    /// The same, listening at this address.
    pub(crate) fn always_at(
        address: (Ipv4Addr, u16),
        response: impl Into<Vec<u8>>,
    ) -> ScriptedUpstream {
        let response = response.into();
        ScriptedUpstream::serve(address, None, move |peer| {
            while peer.next_request() {
                peer.send(&response);
            }
        })
    }

    /// Sends these bytes in response to the first request of every connection and closes.
    pub(crate) fn once(response: impl Into<Vec<u8>>) -> ScriptedUpstream {
        let response = response.into();
        ScriptedUpstream::start(move |peer| {
            if peer.next_request() {
                peer.send(&response);
            }
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The value of `endpoint:`.
    pub(crate) fn endpoint(&self) -> String {
        match self.tls {
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
    }

    /// The request heads received, byte for byte.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections whose script has not returned.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.script_panicked.store(true, Ordering::SeqCst);
        }
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that it sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // An assertion in a script must fail the test, not only the script's thread.
        let failed = self.shared.script_panicked.load(Ordering::SeqCst);
        assert!(!failed || std::thread::panicking(), "a script of the upstream panicked");
    }
}

/// One connection of the proxy, as a script sees it.
pub(crate) struct Peer {
    stream: TcpStream,
    tls: Option<ServerConnection>,
    shared: Arc<Shared>,
    /// The number of the connection, from 0.
    pub(crate) number: usize,
}

impl Peer {
    fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) -> Peer {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        // Threads must not outlive their test for long.
        stream.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
        stream.set_nodelay(true).expect("a connected socket");
        let tls = tls.map(|config| ServerConnection::new(config).expect("a good configuration"));
        Peer { stream, tls, shared, number }
    }

    /// Waits for one request head and records it; `false` if the proxy closes instead.
    pub(crate) fn next_request(&mut self) -> bool {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return false,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
        true
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).read(buffer),
            None => self.stream.read(buffer),
        }
    }

    /// Waits for a request and sends its range of a synthetic object of `size`
    /// bytes, as S3 does, but sends only `most` bytes of the body. `false` when the proxy closes.
    pub(crate) fn respond_with_part(&mut self, size: u64, most: usize) -> bool {
        if !self.next_request() {
            return false;
        }
        self.respond_to_last_with_part(size, most);
        true
    }

    /// The same in response to the last request; returns the length of the requested body.
    pub(crate) fn respond_to_last_with_part(&mut self, size: u64, most: usize) -> u64 {
        let head = self.last_head();
        let (first, last) = requested_range(&head, size).unwrap_or((0, size - 1));
        let length = last - first + 1;
        let status = if head.contains("\r\nRange: ") { "206 Partial Content" } else { "200 OK" };
        self.send(format!(
            "HTTP/1.1 {status}\r\nDate: Thu, 29 Feb 2024 12:30:46 GMT\r\n\
             Last-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\nETag: \"0123456789abcdef\"\r\n\
             Accept-Ranges: bytes\r\nContent-Length: {length}\r\n\
             Content-Range: bytes {first}-{last}/{size}\r\n\r\n"
        ));
        let sent = usize::try_from(length).unwrap_or(usize::MAX).min(most);
        self.send(synthetic_bytes(first, sent));
        length
    }

    /// The last request head received on any connection.
    pub(crate) fn last_head(&self) -> String {
        let heads = self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.last().expect("a request came").clone()
    }

    /// Sends bytes, ignoring errors since the proxy may have disconnected.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let _ = match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).write_all(bytes),
            None => self.stream.write_all(bytes),
        };
    }

    /// Sends bytes over TLS of which the last encrypted ones come after a pause, so that a record
    /// is cut in two.
    pub(crate) fn send_with_a_late_end(&mut self, bytes: &[u8], late: usize, pause: Duration) {
        let tls = self.tls.as_mut().expect("a connection with TLS");
        tls.set_buffer_limit(None);
        tls.writer().write_all(bytes).expect("memory");
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records).expect("memory");
        }
        let (early, late) = records.split_at(records.len() - late);
        let _ = self.stream.write_all(early);
        std::thread::sleep(pause);
        let _ = self.stream.write_all(late);
    }

    /// Sends each byte in its own packet.
    pub(crate) fn send_in_tiny_pieces(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops sending if the proxy reads nothing for this long.
    pub(crate) fn give_up_sending_after(&self, time: Duration) {
        self.stream.set_write_timeout(Some(time)).expect("a connected socket");
    }

    /// Bytes that the proxy's kernel has taken on this connection so far.
    pub(crate) fn bytes_taken(&self) -> u64 {
        bytes_acknowledged(&self.stream)
    }

    /// Waits until the proxy closes its side, and returns whether it did.
    pub(crate) fn waits_for_close(&mut self) -> bool {
        matches!(self.read(&mut [0]), Ok(0) | Err(_))
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(&mut self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        // The reset goes out with the last descriptor, when the script returns.
    }
}

/// The first and last byte of the `Range` in a request head.
fn requested_range(head: &str, size: u64) -> Option<(u64, u64)> {
    let range = head.lines().find_map(|line| line.strip_prefix("Range: bytes="))?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().unwrap_or(size - 1).min(size - 1)))
}

/// The head of a 200 response.
pub(crate) fn ok_head(content_length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nDate: Thu, 29 Feb 2024 12:30:46 GMT\r\n\
         Last-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\nETag: \"0123456789abcdef\"\r\n\
         Accept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {content_length}\r\nServer: scripted\r\n\r\n"
    )
}

/// A complete 200 response.
pub(crate) fn ok(body: &str) -> String {
    format!("{}{body}", ok_head(body.len()))
}

/// A complete error response of S3.
pub(crate) fn s3_error(status: &str, code: &str) -> String {
    let xml = error_xml(code);
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n\
         Content-Length: {}\r\nServer: scripted\r\n\r\n{xml}",
        xml.len()
    )
}

/// The body of an error response.
pub(crate) fn error_xml(code: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>The test says so</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>"
    )
}
