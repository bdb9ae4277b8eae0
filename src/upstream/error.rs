//! Errors of opening a connection: which side caused them, and whether a retry may help.

use std::io;

use crate::sys::process::{is_out_of_descriptors, is_out_of_resources};
use crate::transport::tls::{HandshakeError, TlsError};
use crate::upstream::tunnel::ProxyError;

/// A connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The name has no address, or none was found in time.
    #[error("its name cannot be resolved")]
    Unresolved,
    /// The server, or the proxy in front of it, did not respond in time.
    #[error("timed out")]
    TimedOut,
    /// TCP failed: refused, unreachable, reset.
    #[error(transparent)]
    Tcp(io::Error),
    /// The server is not the one it claims to be, or does not speak TLS.
    #[error(transparent)]
    Tls(TlsError),
    /// The HTTP proxy does not open a tunnel to the server.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// This process or machine has no file descriptor left.
    #[error(transparent)]
    OutOfDescriptors(io::Error),
    /// This machine has no port or memory left.
    #[error(transparent)]
    OutOfResources(io::Error),
}

/// The side that caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This process or the machine that it runs on.
    Us,
    /// The server, or something on the way to it.
    Upstream,
}

impl ConnectError {
    /// The side that caused the error.
    pub(crate) fn side(&self) -> Side {
        match self {
            ConnectError::OutOfDescriptors(_) | ConnectError::OutOfResources(_) => Side::Us,
            ConnectError::Unresolved
            | ConnectError::TimedOut
            | ConnectError::Tcp(_)
            | ConnectError::Tls(_)
            | ConnectError::Proxy(_) => Side::Upstream,
        }
    }

    /// Whether the server or a proxy did not respond in time.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            ConnectError::TimedOut => true,
            ConnectError::Proxy(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// Whether another address of the server may be connected to now. `EADDRNOTAVAIL` is the
    /// kernel's error for an IPv6 address on a machine where IPv6 is off, too.
    pub(crate) fn may_succeed_elsewhere(&self) -> bool {
        self.is_transient() || matches!(self, ConnectError::OutOfResources(_))
    }

    /// Whether this says more about a server than the failure of another address.
    pub(crate) fn outweighs(&self, other: &ConnectError) -> bool {
        match (self, other) {
            (_, ConnectError::Unresolved) => true,
            (_, other) if other.is_timeout() => false,
            (error, _) => !matches!(error, ConnectError::OutOfResources(_)),
        }
    }

    /// Whether another attempt, at this or at another address, may succeed. A server that cannot
    /// prove its identity is the same at each address, and without descriptors each attempt takes
    /// one from a client.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            ConnectError::Unresolved | ConnectError::TimedOut | ConnectError::Tcp(_) => true,
            ConnectError::Proxy(error) => error.is_transient(),
            ConnectError::Tls(_)
            | ConnectError::OutOfDescriptors(_)
            | ConnectError::OutOfResources(_) => false,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> ConnectError {
        match error.kind() {
            io::ErrorKind::TimedOut => ConnectError::TimedOut,
            _ if is_out_of_descriptors(&error) => ConnectError::OutOfDescriptors(error),
            _ if is_out_of_resources(&error) => ConnectError::OutOfResources(error),
            _ => ConnectError::Tcp(error),
        }
    }
}

impl From<HandshakeError> for ConnectError {
    fn from(error: HandshakeError) -> ConnectError {
        match error {
            HandshakeError::Io(error) => error.into(),
            HandshakeError::Tls(error) => ConnectError::Tls(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use io::ErrorKind;

    use super::*;

    #[test]
    fn an_address_of_a_family_that_is_off_leaves_the_others_their_turn() {
        let off = || ConnectError::from(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        let refused = || ConnectError::Tcp(ErrorKind::ConnectionRefused.into());
        let no_descriptor = ConnectError::from(io::Error::from_raw_os_error(libc::EMFILE));
        assert!(off().may_succeed_elsewhere() && refused().may_succeed_elsewhere());
        assert!(!no_descriptor.may_succeed_elsewhere());
        // It is reported only if there is nothing better to say.
        assert!(off().outweighs(&ConnectError::Unresolved));
        assert!(!off().outweighs(&refused()) && refused().outweighs(&off()));
        assert!(!refused().outweighs(&ConnectError::TimedOut));
    }

    #[test]
    fn each_error_has_a_side_and_says_whether_a_retry_may_help() {
        let tcp = |kind: ErrorKind| ConnectError::from(io::Error::from(kind));
        let other = || io::Error::other("x");
        let tls = || TlsError::from(rustls::Error::from(rustls::CertificateError::Expired));
        let host = || "s3:443".to_owned();
        // Side, transient, timeout.
        let table = [
            (ConnectError::Unresolved, Side::Upstream, true, false),
            (tcp(ErrorKind::TimedOut), Side::Upstream, true, true),
            (tcp(ErrorKind::ConnectionRefused), Side::Upstream, true, false),
            (tcp(ErrorKind::UnexpectedEof), Side::Upstream, true, false),
            (tcp(ErrorKind::InvalidData), Side::Upstream, true, false),
            (tcp(ErrorKind::HostUnreachable), Side::Upstream, true, false),
            (HandshakeError::Tls(tls()).into(), Side::Upstream, false, false),
            (
                HandshakeError::Io(ErrorKind::ConnectionReset.into()).into(),
                Side::Upstream,
                true,
                false,
            ),
            (ConnectError::OutOfDescriptors(other()), Side::Us, false, false),
            (ConnectError::OutOfResources(other()), Side::Us, false, false),
            (ConnectError::Proxy(ProxyError::TimedOut), Side::Upstream, true, true),
            (ConnectError::Proxy(ProxyError::HostTimedOut(host())), Side::Upstream, true, true),
            (
                ConnectError::Proxy(ProxyError::HostUnreachable { host: host(), status: 502 }),
                Side::Upstream,
                true,
                false,
            ),
            (
                ConnectError::Proxy(ProxyError::Forbidden { host: host(), status: 403 }),
                Side::Upstream,
                false,
                false,
            ),
            (ConnectError::Proxy(ProxyError::LoginRefused), Side::Upstream, false, false),
            (ConnectError::Proxy(ProxyError::LoginRequired), Side::Upstream, false, false),
            (ConnectError::Proxy(ProxyError::Malformed), Side::Upstream, false, false),
        ];
        for (error, side, is_transient, is_timeout) in table {
            assert_eq!(error.side(), side, "{error:?}");
            assert_eq!(error.is_transient(), is_transient, "{error:?}");
            assert_eq!(error.is_timeout(), is_timeout, "{error:?}");
        }
    }
}
