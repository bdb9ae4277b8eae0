//! A forwarder in front of a server that can stop listening, as when the server is restarted: its
//! connections are cut, and new ones are refused until it listens again on the same port.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A running forwarder; dropping it stops it.
pub(crate) struct Gate {
    address: SocketAddr,
    server: SocketAddr,
    open: Option<Open>,
}

struct Open {
    is_closing: Arc<AtomicBool>,
    /// Both ends of each connection.
    connections: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Gate {
    /// Forwards to the server at `endpoint` on the loopback device.
    pub(crate) fn open(endpoint: &str) -> Gate {
        let port = endpoint.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let server = (Ipv4Addr::LOCALHOST, port.expect("an endpoint with its port")).into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let open = Some(Open::start(listener, server));
        Gate { address, server, open }
    }

    /// The value of `endpoint:`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Refuses connections from now on, and cuts the open ones.
    pub(crate) fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.is_closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that it sees the flag.
        let _ = TcpStream::connect(self.address);
        let _ = open.thread.join();
        for connection in &*open.connections.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens again.
    pub(crate) fn reopen(&mut self) {
        self.close();
        let listener = TcpListener::bind(self.address).expect("its earlier port");
        self.open = Some(Open::start(listener, self.server));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}

impl Open {
    fn start(listener: TcpListener, server: SocketAddr) -> Open {
        let is_closing = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::default());
        let (closing, all) = (Arc::clone(&is_closing), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            for proxy in listener.incoming().map_while(Result::ok) {
                if closing.load(Ordering::SeqCst) {
                    return;
                }
                // If the server is down, the connection is closed.
                let _ = forward(proxy, server, &all);
            }
        });
        Open { is_closing, connections, thread }
    }
}

/// Forwards both ways on threads of their own.
fn forward(
    proxy: TcpStream,
    server: SocketAddr,
    connections: &Mutex<Vec<TcpStream>>,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    proxy.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let both = [proxy.try_clone()?, server.try_clone()?];
    connections.lock().unwrap_or_else(PoisonError::into_inner).extend(both);
    for (mut from, mut to) in [(proxy.try_clone()?, server.try_clone()?), (server, proxy)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}
