//! An upstream that does what a good S3 never does, as the test's script says.
//!
//! Each connection runs the script on a thread of its own, with plain blocking calls.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// The server; dropping it stops accepting.
pub(crate) struct ScriptedUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    heads: Mutex<Vec<String>>,
    connections: AtomicUsize,
    stop: AtomicBool,
}

impl ScriptedUpstream {
    /// Runs `script` for every connection. When it returns, the connection is closed.
    pub(crate) fn start(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> ScriptedUpstream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let script = Arc::new(script);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if seen.stop.load(Ordering::SeqCst) {
                    return;
                }
                let mut peer = Peer::new(stream, Arc::clone(&seen));
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut peer));
            }
        });
        ScriptedUpstream { address, shared, thread: Some(thread) }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub(crate) fn always(answer: impl Into<Vec<u8>>) -> ScriptedUpstream {
        let answer = answer.into();
        ScriptedUpstream::start(move |peer| {
            while peer.next_request() {
                peer.send(&answer);
            }
        })
    }

    /// Answers the first request of every connection with these bytes and closes.
    pub(crate) fn once(answer: impl Into<Vec<u8>>) -> ScriptedUpstream {
        let answer = answer.into();
        ScriptedUpstream::start(move |peer| {
            if peer.next_request() {
                peer.send(&answer);
            }
        })
    }

    /// What goes into `endpoint:`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The request heads that came, byte for byte.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
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
    }
}

/// The proxy's end of one connection, in the hands of a script.
pub(crate) struct Peer {
    stream: TcpStream,
    shared: Arc<Shared>,
    /// Which connection this is, from 0.
    pub(crate) number: usize,
}

impl Peer {
    fn new(stream: TcpStream, shared: Arc<Shared>) -> Peer {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        // Threads of a finished test must not live on with it.
        stream.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
        stream.set_nodelay(true).expect("a connected socket");
        Peer { stream, shared, number }
    }

    /// Waits for one request head and notes it; `false` when the proxy closes instead.
    pub(crate) fn next_request(&mut self) -> bool {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return false,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
        true
    }

    /// Sends bytes; the proxy may be gone.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends bytes one at a time, each in a packet of its own.
    pub(crate) fn send_in_tiny_pieces(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            self.rest(Duration::from_millis(1));
        }
    }

    /// Does nothing for a while.
    pub(crate) fn rest(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Waits until the proxy closes its side, and returns whether it did.
    pub(crate) fn waits_for_close(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }

    /// Closes with a reset in place of an orderly end.
    pub(crate) fn reset(&mut self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        // The reset goes out with the last descriptor, when the script returns.
    }
}

/// The head of a good answer to a whole `GET`.
pub(crate) fn ok_head(content_length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nDate: Thu, 29 Feb 2024 12:30:46 GMT\r\n\
         Last-Modified: Thu, 29 Feb 2024 12:30:45 GMT\r\nETag: \"0123456789abcdef\"\r\n\
         Accept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {content_length}\r\nServer: scripted\r\n\r\n"
    )
}

/// A whole good answer.
pub(crate) fn ok(body: &str) -> String {
    format!("{}{body}", ok_head(body.len()))
}

/// A whole error answer of S3.
pub(crate) fn s3_error(status: &str, code: &str) -> String {
    let xml = error_xml(code);
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n\
         Content-Length: {}\r\nServer: scripted\r\n\r\n{xml}",
        xml.len()
    )
}

/// The body of an error answer.
pub(crate) fn error_xml(code: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>The test says so</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>"
    )
}
