//! Socket options that neither the standard library nor socket2 offers. All are hints: errors are
//! ignored, since everything works without them.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Linux 5.14, `include/uapi/asm-generic/socket.h`.
const SO_BUF_LOCK: libc::c_int = 72;

/// `SO_RCVLOWAT`: readers are woken for this many bytes at least. Lowering it wakes a reader that
/// has enough (`tcp_set_rcvlowat`).
pub(super) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: u32) {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes);
}

/// `TCP_NOTSENT_LOWAT`: a socket is writable only while fewer than this many bytes wait to be sent
/// for the first time. Bytes in flight are not limited, so throughput does not suffer.
pub(super) fn set_unsent_limit(socket: BorrowedFd<'_>, bytes: u32) {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes);
}

/// Lets the kernel size the buffers by the connection's throughput again, which `SO_RCVBUF` ends.
pub(super) fn unlock_buffers(socket: BorrowedFd<'_>) {
    set(socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0);
}

/// Bytes that were sent and that the peer's kernel has not acknowledged or, on a Unix socket, that
/// the peer has not received (`SIOCOUTQ`). `None` if the kernel does not tell.
pub(super) fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> Option<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed and so open; the kernel writes one C int to `bytes`,
    // which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    (result == 0).then_some(bytes)
}

/// Bytes that have arrived and were not received yet (`SIOCINQ`); 0 if the kernel does not tell.
pub(super) fn unread_bytes(socket: BorrowedFd<'_>) -> libc::c_int {
    let mut bytes: libc::c_int = 0;
    // SAFETY: as in `unacknowledged_bytes`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result == 0 { bytes } else { 0 }
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u32) {
    let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is borrowed and so open; the option value is a C int that outlives
    // the call, and its size is given.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        );
    }
}
