//! An HTTP proxy with CONNECT and requests in absolute-form. It alone resolves the names below
//! `.invalid`, all of them to the loopback device.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::PATIENCE;

#[derive(Clone)]
pub(crate) enum Mode {
    /// Forwards requests and opens tunnels.
    Obliging,
    /// The same for clients that send this `Proxy-Authorization`; 407 for others.
    Wanting(&'static str),
    /// Sends this response and closes.
    Responding(String),
    /// Reads requests and sends nothing.
    Silent,
}

/// A running proxy; dropping it stops it.
pub(crate) struct HttpProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpProxy {
    pub(crate) fn start(mode: Mode) -> HttpProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, ends) = (Arc::clone(&heads), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (heads, mode) = (Arc::clone(&shared), mode.clone());
                std::thread::spawn(move || serve(stream, &mode, &heads));
            }
        });
        HttpProxy { address, heads, stop, thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of the requests to the proxy itself, without those inside tunnels.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that it sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut client: TcpStream, mode: &Mode, heads: &Mutex<Vec<String>>) {
    let _ = client.set_read_timeout(Some(PATIENCE));
    let mut origin: Option<TcpStream> = None;
    while let Some(head) = read_head(&mut client) {
        heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
        match mode {
            Mode::Obliging => {}
            Mode::Wanting(value) => {
                if !head.contains(&format!("\r\nProxy-Authorization: {value}\r\n")) {
                    let _ = client.write_all(
                        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\
                          Proxy-Authenticate: Basic\r\n\r\n",
                    );
                    return;
                }
            }
            Mode::Responding(response) => {
                let _ = client.write_all(response.as_bytes());
                return;
            }
            Mode::Silent => {
                let _ = client.read(&mut [0]);
                return;
            }
        }
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if head.starts_with("CONNECT ") {
            let Some(origin) = connect(&target) else {
                let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
                return;
            };
            if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_ok() {
                let back = pump(&origin, &client);
                copy(client, origin);
                let _ = back.join();
            }
            return;
        }
        let Some((authority, path)) =
            target.strip_prefix("http://").and_then(|it| it.split_once('/'))
        else {
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            return;
        };
        if origin.is_none() {
            origin = connect(authority);
            if let Some(origin) = &origin {
                pump(origin, &client);
            }
        }
        let Some(origin) = &mut origin else {
            let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
            return;
        };
        let passed_on = head.replacen(&target, &format!("/{path}"), 1);
        let is_ours = |line: &&str| !line.starts_with("Proxy-");
        let passed_on: String = passed_on.split_inclusive("\r\n").filter(is_ours).collect();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        let passed = client
            .read_exact(&mut body)
            .and_then(|()| origin.write_all(passed_on.as_bytes()))
            .and_then(|()| origin.write_all(&body));
        if passed.is_err() {
            return;
        }
    }
    if let Some(origin) = origin {
        let _ = origin.shutdown(Shutdown::Both);
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Connects to `host:port`.
fn connect(authority: &str) -> Option<TcpStream> {
    let (host, port) = authority.rsplit_once(':')?;
    let host = if host.ends_with(".invalid") { "127.0.0.1" } else { host };
    TcpStream::connect((host, port.parse().ok()?)).ok()
}

/// Forwards bytes in one direction on a new thread.
fn pump(from: &TcpStream, to: &TcpStream) -> JoinHandle<()> {
    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    std::thread::spawn(move || copy(from, to))
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
