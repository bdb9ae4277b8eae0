//! What the kernel has counted for one TCP connection (`TCP_INFO`, tcp(7)).

use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Where `tcpi_data_segs_in` is in `struct tcp_info` (linux/tcp.h, since Linux 4.6), in bytes.
const DATA_SEGMENTS_IN: usize = 152;

/// Segments with data in them that have come in so far.
#[allow(unsafe_code, reason = "no crate of this project knows this option")]
pub(crate) fn data_segments_in(socket: &TcpStream) -> u32 {
    let mut info = [0_u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    let end = DATA_SEGMENTS_IN + size_of::<u32>();
    assert!(result == 0 && length as usize >= end, "this kernel does not count segments");
    u32::from_ne_bytes(info[DATA_SEGMENTS_IN..end].try_into().expect("four bytes"))
}
