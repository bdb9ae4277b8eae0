//! One connection to S3: opening it, and receiving a response head.

use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use monoio::BufResult;
use monoio::time;
use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;

use crate::http1::framing::{HeadEnd, find_head_end};
use crate::limits;
use crate::sys::deadlines::Deadlines;
use crate::sys::stream::{Ahead, Stream};
use crate::transport;
use crate::transport::tls::TlsStream;
use crate::transport::trust::Trust;
use crate::upstream::Settings;
use crate::upstream::addresses::Addresses;
use crate::upstream::error::ConnectError;
use crate::upstream::proxy::Route;
use crate::upstream::resolve::ResolvedOrigin;
use crate::upstream::tunnel;

/// A connection to S3 or to a proxy.
pub(crate) struct UpstreamConnection {
    /// Plain or TLS.
    pub stream: transport::Connection,
    /// The address that it was opened to.
    pub address: SocketAddr,
    /// The origin's [`changes`](ResolvedOrigin::changes) when the connection was last checked.
    pub(super) seen_changes: u64,
}

/// Opens the connections of one worker.
pub(crate) struct Connector {
    settings: Settings,
    addresses: Addresses,
    /// Empty until there is an origin with TLS.
    trust: Arc<OnceLock<Trust>>,
    tls: OnceCell<Arc<ClientConfig>>,
    deadlines: Rc<Deadlines>,
}

/// A response head that was not received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// The connection ended or broke before the first byte.
    #[error("the connection was closed without a response")]
    NoResponse(io::Error),
    /// It ended or broke inside the head.
    #[error("the connection broke inside the response head: {0}")]
    Cut(io::Error),
    /// Nothing was received in time.
    #[error("no response in time")]
    TimedOut,
    /// The head is larger than the limit, or its lines do not end with CRLF.
    #[error("{0}")]
    Malformed(&'static str),
}

impl HeadError {
    /// Whether a retry may succeed. A server that does not speak HTTP never will.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            HeadError::NoResponse(_) | HeadError::Cut(_) | HeadError::TimedOut => true,
            HeadError::Malformed(_) => false,
        }
    }
}

/// How often a worker looks for the result of a lookup: other threads do not wake workers.
const POLL_PERIOD: Duration = Duration::from_millis(10);

impl Connector {
    /// A connector whose sockets have their deadlines in `deadlines`.
    pub(crate) fn new(
        settings: Settings,
        trust: Arc<OnceLock<Trust>>,
        deadlines: Rc<Deadlines>,
    ) -> Connector {
        let addresses = Addresses::default();
        Connector { settings, addresses, trust, tls: OnceCell::new(), deadlines }
    }

    /// The TLS configuration of this worker, with its own session cache; built for the first server
    /// with TLS.
    fn tls_config(&self) -> Result<&Arc<ClientConfig>, ConnectError> {
        if let Some(config) = self.tls.get() {
            return Ok(config);
        }
        let config = self.trust.get().map(Trust::client).and_then(Result::ok);
        // Start-up has rejected settings for which this fails.
        let config = config.ok_or_else(|| {
            ConnectError::Tls(rustls::Error::General("TLS cannot be set up".to_owned()).into())
        })?;
        Ok(self.tls.get_or_init(|| config))
    }

    /// Closes the client connection that has been idle longest; `false` if none is idle.
    pub(super) fn close_idle_client(&self) -> bool {
        self.deadlines.close_longest_idle(Instant::now())
    }

    /// Opens a connection to `origin`, which is the origin of `route` or the proxy in front of it.
    /// Tries its addresses in turn.
    ///
    /// # Errors
    /// That of the address that says most: a timeout if any address timed out.
    pub(crate) async fn connect(
        &self,
        origin: &ResolvedOrigin,
        route: &Route,
        ahead: Ahead,
    ) -> Result<UpstreamConnection, ConnectError> {
        let mut failure = ConnectError::Unresolved;
        // Read before the addresses, so that a change in between is noticed later.
        let seen_changes = origin.changes();
        let addresses = self.addresses_of(origin).await;
        for address in self.addresses.order(&addresses, Instant::now()) {
            let connecting = Stream::connect(address, &self.deadlines);
            let timeout = self.settings.connect_timeout;
            let connected = match time::timeout(timeout, connecting).await {
                Ok(Ok(stream)) => self.secure(route, stream, ahead).await,
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(ConnectError::TimedOut),
            };
            match connected {
                Ok(stream) => {
                    self.addresses.note_success(address);
                    return Ok(UpstreamConnection { stream, address, seen_changes });
                }
                Err(error) if !error.may_succeed_elsewhere() => return Err(error),
                Err(error) => {
                    self.addresses.note_failure(address, Instant::now());
                    // A timeout at one address says more than a refusal at another.
                    if error.outweighs(&failure) {
                        failure = error;
                    }
                }
            }
        }
        origin.refresh();
        Err(failure)
    }

    /// The addresses; waits for a name that is being looked up for the first time.
    async fn addresses_of(&self, origin: &ResolvedOrigin) -> Arc<Vec<SocketAddr>> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        loop {
            let addresses = origin.addresses();
            if origin.is_resolved() || Instant::now() >= deadline {
                return addresses;
            }
            time::sleep(POLL_PERIOD).await;
        }
    }

    /// Sets up a new socket: the tunnel through a proxy and TLS, if the origin has TLS.
    async fn secure(
        &self,
        route: &Route,
        mut stream: Stream,
        ahead: Ahead,
    ) -> Result<transport::Connection, ConnectError> {
        if ahead == Ahead::Little {
            stream.receive_ahead_little(self.settings.read_ahead);
        }
        if !route.origin.tls {
            return Ok(transport::Connection::Plain(stream));
        }
        let config = self.tls_config()?;
        if let Some(proxy) = &route.via {
            let timeout = self.settings.connect_timeout;
            Box::pin(tunnel::open(&mut stream, proxy, &route.origin, timeout)).await?;
        }
        let name = ServerName::try_from(route.origin.host.clone())
            .map_err(|_| ConnectError::Tls(rustls::Error::UnsupportedNameType.into()))?;
        let timeout = self.settings.tls_timeout;
        Ok(transport::Connection::Tls(Box::new(
            TlsStream::connect(stream, config, name, timeout).await?,
        )))
    }
}

impl UpstreamConnection {
    /// Whether it may be used for another request: the origin's name still has its address.
    pub(super) fn is_current(&mut self, origin: &ResolvedOrigin) -> bool {
        let changes = origin.changes();
        if self.seen_changes != changes && origin.may_keep(self.address) {
            self.seen_changes = changes;
        }
        self.seen_changes == changes
    }

    /// Appends a whole response head to `buf`, and the bytes of the body that arrive with it.
    /// Returns the head's length in bytes.
    ///
    /// `limit` bounds each receive, in bytes: received bytes cannot be spliced any more.
    /// `first_byte` bounds the wait for the first byte, `stall` every later one.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub(crate) async fn receive_head(
        &mut self,
        mut buf: Vec<u8>,
        limit: usize,
        first_byte: Duration,
        stall: Duration,
    ) -> (Result<usize, HeadError>, Vec<u8>) {
        let start = buf.len();
        let mut timeout = first_byte;
        let mut interim = 0;
        loop {
            let (received, returned): BufResult<usize, _> =
                self.stream.receive(buf, limit, timeout).await;
            buf = returned;
            let first = buf.len() == start;
            let error = match received {
                Ok(0) if first => HeadError::NoResponse(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => HeadError::Cut(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => match skip_interim(&mut buf, start, &mut interim) {
                    HeadEnd::At(length) if length <= limits::RESPONSE_HEAD_BYTES => {
                        return (Ok(length), buf);
                    }
                    HeadEnd::Missing if buf.len() - start < limits::RESPONSE_HEAD_BYTES => {
                        // After an interim response, the final one has not started yet.
                        timeout = if buf.len() == start { first_byte } else { stall };
                        continue;
                    }
                    HeadEnd::BareLineFeed => {
                        HeadError::Malformed("the response head has lines without CRLF")
                    }
                    _ => HeadError::Malformed("the response head is larger than 16 KiB"),
                },
                Err(error) if error.kind() == io::ErrorKind::TimedOut => HeadError::TimedOut,
                Err(error) if first => HeadError::NoResponse(error),
                Err(error) => HeadError::Cut(error),
            };
            return (Err(error), buf);
        }
    }
}

/// Removes interim responses from `buf[start..]` and looks for the end of the head behind them.
/// `skipped` counts them. 101 does not count as interim: it ends HTTP on the connection.
fn skip_interim(buf: &mut Vec<u8>, start: usize, skipped: &mut usize) -> HeadEnd {
    loop {
        match find_head_end(&buf[start..]) {
            HeadEnd::At(length)
                if *skipped < limits::INTERIM_RESPONSES
                    && is_interim(&buf[start..start + length]) =>
            {
                *skipped += 1;
                buf.drain(start..start + length);
            }
            end => return end,
        }
    }
}

fn is_interim(head: &[u8]) -> bool {
    matches!(head, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'1', tens, ones, b' ' | b'\r', ..]
        if tens.is_ascii_digit() && ones.is_ascii_digit() && (*tens, *ones) != (b'0', b'1'))
}
