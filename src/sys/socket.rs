//! Listening sockets: one per worker and address, all non-blocking.

use std::fmt;
use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix;
use std::path::{Path, PathBuf};

use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, SockRef, Socket, Type};

use crate::sys::{sockopt, stream};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:5000`, `[::1]:5000`.
    Tcp(SocketAddr),
    /// `unix:/run/s3proxy.sock`.
    Unix(PathBuf),
}

/// As start-up prints it: `http://127.0.0.1:5000` or `unix:/run/s3proxy.sock`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "http://{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The listening sockets of one address, one for each worker.
pub(crate) struct Listeners {
    /// The address, with the real port if port 0 was asked for.
    pub address: ListenAddress,
    /// As many as there are workers.
    pub sockets: Vec<OwnedFd>,
}

/// Listens on `address` with `workers` sockets. Accepted connections queue `unsent` bytes at most
/// that the kernel has not sent yet (`TCP_NOTSENT_LOWAT`).
///
/// TCP sockets share the port with `SO_REUSEPORT`, so that the kernel spreads connections over
/// the workers. That option would also let a second s3proxy of the same user share the port
/// unnoticed, so the port is first bound without it.
///
/// # Errors
/// As `bind(2)`, `AddrInUse` above all.
pub(crate) fn listen(
    address: &ListenAddress,
    workers: usize,
    unsent: usize,
) -> io::Result<Listeners> {
    match address {
        ListenAddress::Tcp(address) => {
            let address = tcp_socket(*address, false, unsent)?
                .local_addr()?
                .as_socket()
                .ok_or(io::ErrorKind::InvalidInput)?;
            let sockets = (0..workers).map(|_| {
                let socket = tcp_socket(address, true, unsent)?;
                socket.listen(BACKLOG)?;
                Ok(socket.into())
            });
            Ok(Listeners {
                sockets: sockets.collect::<io::Result<_>>()?,
                address: ListenAddress::Tcp(address),
            })
        }
        ListenAddress::Unix(path) => {
            remove_stale_socket(path)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&socket2::SockAddr::unix(path)?)?;
            socket.listen(BACKLOG)?;
            let sockets = (0..workers).map(|_| Ok(socket.try_clone()?.into()));
            Ok(Listeners {
                sockets: sockets.collect::<io::Result<_>>()?,
                address: ListenAddress::Unix(path.clone()),
            })
        }
    }
}

fn tcp_socket(address: SocketAddr, reuse_port: bool, unsent: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // Accepted sockets inherit both; a head and its body leave in one send anyway.
    socket.set_tcp_nodelay(true)?;
    sockopt::set_unsent_limit(socket.as_fd(), u32::try_from(unsent).unwrap_or(u32::MAX));
    socket.bind(&address.into())?;
    if !reuse_port {
        // Two sockets that may be reused can both bind; only one may listen.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// Removes a socket file on which no process listens, as a crash leaves it behind.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // A process accepts (bind will fail), or there is no such file.
        _ => Ok(()),
    }
}

/// A socket that accepts connections for one worker.
pub(crate) struct Listener {
    /// Only polled for readiness, so it serves for Unix sockets too.
    waiter: monoio::net::TcpListener,
}

/// A freshly accepted connection.
pub(crate) struct Accepted {
    /// The socket, non-blocking and close-on-exec.
    pub socket: net::TcpStream,
    /// The client's end of it.
    pub peer: Peer,
}

/// The other end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// An address in the network.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// `None` for a Unix socket.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        }
    }
}

impl Listener {
    /// Registers a socket of [`listen`] with the calling worker's event loop.
    ///
    /// # Errors
    /// If the event loop cannot register it.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Listener> {
        let waiter = monoio::net::TcpListener::from_std(net::TcpListener::from(socket))?;
        Ok(Listener { waiter })
    }

    /// Waits until a connection may be there. Unlike a pending accept, this can be dropped without
    /// losing a connection.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        self.waiter.readable(false).await
    }

    /// Stops listening: new connections are refused, and a pending wait ends. The kernel resets TCP
    /// connections that were not accepted; those of a Unix socket can still be accepted.
    pub(crate) fn close(&self) {
        // Fails if another worker has closed the same Unix socket.
        let _ = SockRef::from(&stream::borrow(&self.waiter)).shutdown(net::Shutdown::Read);
    }

    /// Accepts a connection that is already there, without waiting.
    ///
    /// # Errors
    /// As `accept4(2)`; `WouldBlock` if there is none.
    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, peer) = acceptfrom_with(stream::borrow(&self.waiter), flags)?;
        let address = peer.and_then(ip_address);
        Ok(Accepted { socket: socket.into(), peer: address.map_or(Peer::Unix, Peer::Tcp) })
    }
}

fn ip_address(address: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_listened_on_is_refused_even_with_so_reuseport() {
        let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let first = listen(&any, 2, 1 << 17).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let again = listen(&first.address, 1, 1 << 17).err().expect("the port is taken");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(directory.path().join("s"));
        drop(listen(&address, 1, 1 << 17).unwrap());
        let live = listen(&address, 2, 1 << 17).unwrap();
        assert_eq!(
            listen(&address, 1, 1 << 17).err().expect("in use").kind(),
            io::ErrorKind::AddrInUse
        );
        drop(live);
    }
}
