//! The kernel's counters of one TCP connection (`TCP_INFO`, tcp(7)).

use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Offset of `tcpi_bytes_acked` in `struct tcp_info` (linux/tcp.h, since Linux 4.1), in bytes.
const BYTES_ACKED: usize = 120;

/// Bytes that the peer's kernel has acknowledged so far.
pub(crate) fn bytes_acknowledged(socket: &TcpStream) -> u64 {
    u64::from_ne_bytes(field(socket, BYTES_ACKED))
}

#[allow(unsafe_code, reason = "no dependency has a safe wrapper for this option")]
fn field<const WIDTH: usize>(socket: &TcpStream, start: usize) -> [u8; WIDTH] {
    let mut info = [0_u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let end = start + WIDTH;
    assert!(result == 0 && length as usize >= end, "this kernel does not have this counter");
    info[start..end].try_into().expect("as many bytes")
}
