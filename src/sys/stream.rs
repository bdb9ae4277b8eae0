//! A connected socket whose waits are bounded by the worker's [table of deadlines](Deadlines).

use std::io;
use std::net::{self, Shutdown, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpListener, TcpStream};
use socket2::SockRef;

use crate::limits;
use crate::sys::deadlines::{Deadlines, LOW_WATER_TIMEOUT, Wait};
use crate::sys::sockopt;
use crate::sys::stalls::Watch;

/// A connected TCP or Unix socket of one worker. Always non-blocking, so that a system call never
/// blocks the worker's thread; the operations of the event loop wait all the same.
pub(crate) struct Stream {
    socket: TcpStream,
    slot: usize,
    low_water: u32,
    receives_ahead: Ahead,
    sends_ahead: Ahead,
    deadlines: Rc<Deadlines>,
}

/// How many bytes the kernel may hold between a sender and its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// Few: the reader may stop at any moment.
    Little,
    /// As many as the connection's speed requires: the reader wants them all.
    Freely,
}

impl Stream {
    /// Connects to an address, and turns Nagle's algorithm off.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub(crate) async fn connect(
        address: SocketAddr,
        deadlines: &Rc<Deadlines>,
    ) -> io::Result<Stream> {
        let socket = TcpStream::connect_addr(address).await?;
        socket.set_nodelay(true)?;
        // With io_uring the event loop makes blocking sockets.
        SockRef::from(&borrow(&socket)).set_nonblocking(true)?;
        Ok(Stream::new(socket, deadlines))
    }

    fn new(socket: TcpStream, deadlines: &Rc<Deadlines>) -> Stream {
        let slot = deadlines.insert(socket.as_raw_fd());
        Stream {
            socket,
            slot,
            low_water: 1,
            receives_ahead: Ahead::Freely,
            // As the listener sets it for clients; other sockets send little.
            sends_ahead: Ahead::Little,
            deadlines: Rc::clone(deadlines),
        }
    }

    /// Takes over a non-blocking socket made outside the event loop.
    ///
    /// # Errors
    /// If the event loop cannot register it.
    pub(crate) fn from_std(
        socket: net::TcpStream,
        deadlines: &Rc<Deadlines>,
    ) -> io::Result<Stream> {
        Ok(Stream::new(TcpStream::from_std(socket)?, deadlines))
    }

    /// Receives into `buf` from `buf.len()` on, up to its capacity or `limit` bytes, whichever
    /// is less. `Ok(0)` is the end of the stream (or a full buffer).
    ///
    /// # Errors
    /// As `recv(2)`; `TimedOut` when nothing came within `timeout`.
    pub(crate) async fn receive(
        &mut self,
        buf: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> BufResult<usize, Vec<u8>> {
        self.receive_until(buf, limit, Instant::now() + timeout, None).await
    }

    /// As [`receive`](Self::receive), for the first bytes of a request. [`Deadlines::close_idle`]
    /// may end the wait too, and from `closable_from` on [`Deadlines::close_longest_idle`]: both
    /// look like the end of the stream.
    ///
    /// # Errors
    /// As [`receive`](Self::receive); `TimedOut` when nothing came until `deadline`.
    pub(crate) async fn receive_idle(
        &mut self,
        buf: Vec<u8>,
        deadline: Instant,
        closable_from: Instant,
    ) -> BufResult<usize, Vec<u8>> {
        self.receive_until(buf, usize::MAX, deadline, Some(closable_from)).await
    }

    /// As [`receive_idle`](Self::receive_idle) if `closable_from` is given, else as
    /// [`receive`](Self::receive) until `deadline`.
    ///
    /// # Errors
    /// As these.
    pub(crate) async fn receive_until(
        &mut self,
        buf: Vec<u8>,
        limit: usize,
        deadline: Instant,
        closable_from: Option<Instant>,
    ) -> BufResult<usize, Vec<u8>> {
        let wait = match closable_from {
            Some(closable_from) => Wait::Idle { deadline, closable_from },
            None => Wait::Until(deadline),
        };
        // An earlier wait may have raised the mark; this one is for any number of bytes.
        self.set_low_water(1);
        let start = buf.len();
        let end = start.saturating_add(limit).min(buf.capacity());
        self.deadlines.set_wait(self.slot, wait);
        let (result, slice) = self.socket.read(buf.slice_mut(start..end)).await;
        (self.after_wait(result), slice.into_inner())
    }

    /// Sends `buf[range]`, all of it.
    ///
    /// # Errors
    /// As `send(2)`; `TimedOut` when the peer's kernel acknowledged nothing for `timeout`.
    pub(crate) async fn send(
        &mut self,
        mut buf: Vec<u8>,
        range: Range<usize>,
        timeout: Duration,
    ) -> BufResult<(), Vec<u8>> {
        let Range { mut start, end } = range;
        while start < end {
            let since = Instant::now();
            self.deadlines.set_wait(self.slot, Wait::Sending { since, timeout });
            let (result, slice) = self.socket.write(buf.slice(start..end)).await;
            buf = slice.into_inner();
            match self.after_wait(result) {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(sent) => start += sent,
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    fn after_wait(&self, result: io::Result<usize>) -> io::Result<usize> {
        if self.deadlines.wait(self.slot) == Wait::Expired {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.deadlines.set_wait(self.slot, Wait::None);
        result
    }

    /// Waits until there are bytes to receive; if `low_water` is more than 1, until there are that
    /// many, or fewer after a tenth of a second.
    ///
    /// # Errors
    /// As `poll(2)`; `TimedOut` when nothing came until `deadline`.
    pub(crate) async fn readable(&mut self, low_water: u32, deadline: Instant) -> io::Result<()> {
        self.set_low_water(low_water);
        if low_water > 1 {
            self.deadlines.set_low_water_since(self.slot, Some(Instant::now()));
        }
        self.deadlines.set_wait(self.slot, Wait::Until(deadline));
        let result = self.socket.readable(false).await;
        if low_water > 1 && !self.deadlines.has_low_water(self.slot) {
            // The table has ended the patience, and the low-water mark with it.
            self.low_water = 1;
        }
        self.deadlines.set_low_water_since(self.slot, None);
        self.after_wait(result.map(|()| 0)).map(|_| ())
    }

    /// Waits for `low_water` bytes to receive, or the end of the stream, but no longer than a
    /// tenth of a second; `false` if they did not come.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub(crate) async fn readable_soon(&mut self, low_water: u32) -> io::Result<bool> {
        self.set_low_water(low_water);
        // In a box: the timer is as large as all the other state of a request that relays a body.
        let waited =
            Box::pin(monoio::time::timeout(LOW_WATER_TIMEOUT, self.socket.readable(false))).await;
        waited.map_or(Ok(false), |ready| ready.map(|()| true))
    }

    /// Waits until there is room to send. `since` is when the peer last took something, and is
    /// moved on when its kernel acknowledges bytes meanwhile.
    ///
    /// # Errors
    /// As `poll(2)`; `TimedOut` when it took nothing for `timeout`.
    pub(crate) async fn writable(
        &mut self,
        since: &mut Instant,
        timeout: Duration,
    ) -> io::Result<()> {
        self.deadlines.set_wait(self.slot, Wait::Sending { since: *since, timeout });
        let result = self.socket.writable(false).await;
        if let Wait::Sending { since: moved_on, .. } = self.deadlines.wait(self.slot) {
            *since = moved_on;
        }
        self.after_wait(result.map(|()| 0)).map(|_| ())
    }

    /// Watches whether the peer takes the bytes that it is sent.
    pub(crate) fn watch(&self) -> Watch {
        Watch::new(&self.deadlines, self.slot)
    }

    /// Lets the worker's other tasks run and their sockets be polled.
    pub(crate) async fn yield_now(&mut self) {
        if !monoio::utils::is_legacy() {
            // An operation of the ring: it completes at once, but not before the ring is entered,
            // which a task that wakes itself would prevent.
            let _ = self.socket.writable(true).await;
            return;
        }
        let mut given = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut given, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    /// Has the kernel report the socket as readable only when that many bytes are there, until the
    /// next receive.
    fn set_low_water(&mut self, bytes: u32) {
        if self.low_water != bytes {
            self.low_water = bytes;
            sockopt::set_receive_low_water(self.borrow(), bytes);
        }
    }

    /// Bounds how far the kernel receives ahead of its reader, in bytes. To be called before
    /// anything is sent: a receive window once offered cannot be taken back.
    pub(crate) fn receive_ahead_little(&mut self, bytes: usize) {
        self.receives_ahead = Ahead::Little;
        // Advice, like the other options.
        let _ = SockRef::from(&self.borrow()).set_recv_buffer_size(bytes);
    }

    /// Lets the kernel receive as far ahead as the connection's speed requires.
    pub(crate) fn receive_ahead_freely(&mut self) {
        if std::mem::replace(&mut self.receives_ahead, Ahead::Freely) == Ahead::Little {
            sockopt::unlock_buffers(self.borrow());
        }
    }

    /// How far the kernel receives ahead of its reader.
    pub(crate) fn receives_ahead(&self) -> Ahead {
        self.receives_ahead
    }

    /// Sets how many bytes may wait to be sent: `little` bytes with [`Ahead::Little`].
    pub(crate) fn send_ahead(&mut self, ahead: Ahead, little: usize) {
        if std::mem::replace(&mut self.sends_ahead, ahead) != ahead {
            let bytes = match ahead {
                Ahead::Little => u32::try_from(little).unwrap_or(u32::MAX),
                Ahead::Freely => limits::STEADY_CLIENT_UNSENT_BYTES,
            };
            sockopt::set_unsent_limit(self.borrow(), bytes);
        }
    }

    /// The file descriptor.
    pub(super) fn borrow(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }

    /// Tells the peer that no more bytes will be sent.
    pub(crate) fn finish_sending(&self) {
        // It fails only if the peer has gone already.
        let _ = SockRef::from(&borrow(&self.socket)).shutdown(Shutdown::Write);
    }

    /// Whether the kernel holds bytes of the peer that were not received yet.
    pub(crate) fn has_unread_bytes(&self) -> bool {
        sockopt::unread_bytes(self.borrow()) > 0
    }

    /// Whether the peer has sent nothing and closed nothing since the last receive. A pooled
    /// connection that is not quiet must not be used: the bytes would be taken for the response to
    /// the next request.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit(); 1];
        let peeked = SockRef::from(&borrow(&self.socket)).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.deadlines.remove(self.slot);
    }
}

/// The sockets of the event loop: each owns its descriptor until it is dropped.
pub(super) trait OwnsSocket: AsRawFd {}
impl OwnsSocket for TcpStream {}
impl OwnsSocket for TcpListener {}

/// The file descriptor of a socket of the event loop, for as long as that socket is borrowed.
pub(super) fn borrow<S: OwnsSocket>(socket: &S) -> BorrowedFd<'_> {
    // SAFETY: the socket owns its descriptor until it is dropped, and the result borrows it.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
