//! The event loop of one core: io_uring with the best flags the kernel grants, or epoll.

/// Which event loop the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where the kernel and its seccomp filter allow it, else epoll.
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// epoll.
    Epoll,
}
