//! An S3 server inside this process that checks every signature.
//!
//! The protocol and the signatures are those of the `s3s` crate; where the objects are is the
//! caller's choice: [`s3s_fs::FileSystem`] in the demo, `memory_store` in the tests. All requests
//! are noted as they came, those with a wrong signature too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::{HandshakeKind, ServerConfig};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpResponse, S3, S3Result, s3_error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// The one access key that the server knows.
pub(crate) const ACCESS_KEY: &str = "AKIAS3PROXYFIXTURE00";
/// The secret that goes with [`ACCESS_KEY`].
pub(crate) const SECRET_KEY: &str = "fixture/secret+that/is0only1for2loopback";
/// The region that requests are signed for.
pub(crate) const REGION: &str = "us-east-1";
/// The one bucket that may be read without a signature.
pub(crate) const PUBLIC_BUCKET: &str = "public-bucket";

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query, still percent-encoded.
    pub(crate) target: String,
    fields: HeaderMap,
}

impl Seen {
    /// The value of a header field.
    pub(crate) fn field(&self, name: HeaderName) -> Option<&str> {
        self.fields.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the request carried a signature, right or wrong.
    pub(crate) fn is_signed(&self) -> bool {
        self.fields.contains_key(AUTHORIZATION)
    }
}

/// What happened at the server so far.
#[derive(Default)]
struct Journal {
    requests: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// TLS handshakes that took up an earlier session.
    resumed: AtomicUsize,
}

impl Journal {
    fn note<B>(&self, request: &Request<B>) {
        let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let method = request.method().to_string();
        let seen = Seen { method, target, fields: request.headers().clone() };
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

/// A running server; dropping it closes all its connections.
pub(crate) struct S3Server {
    address: SocketAddr,
    tls: bool,
    journal: Arc<Journal>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Serves `store` on a free port of the loopback device.
    ///
    /// # Errors
    /// When the port or the thread cannot be had.
    pub(crate) fn start(store: impl S3) -> io::Result<S3Server> {
        S3Server::start_at((Ipv4Addr::LOCALHOST, 0).into(), store)
    }

    /// The same with TLS; the endpoint's host is `localhost`.
    ///
    /// # Errors
    /// When the port or the thread cannot be had.
    pub(crate) fn start_tls(store: impl S3, tls: Arc<ServerConfig>) -> io::Result<S3Server> {
        S3Server::serve((Ipv4Addr::LOCALHOST, 0).into(), store, Some(TlsAcceptor::from(tls)))
    }

    /// Serves `store` at an address.
    ///
    /// # Errors
    /// When the address or the thread cannot be had.
    pub(crate) fn start_at(address: SocketAddr, store: impl S3) -> io::Result<S3Server> {
        S3Server::serve(address, store, None)
    }

    fn serve(
        address: SocketAddr,
        store: impl S3,
        acceptor: Option<TlsAcceptor>,
    ) -> io::Result<S3Server> {
        let tls = acceptor.is_some();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let journal = Arc::new(Journal::default());
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(accept(listener, acceptor, service(store), Arc::clone(&journal)));
        let thread = std::thread::Builder::new().name("s3".to_owned()).spawn(move || {
            // Ends when the sender is dropped; the connections end with the runtime.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(S3Server { address, tls, journal, stop: Some(stop), thread: Some(thread) })
    }

    /// What goes into `endpoint:`.
    pub(crate) fn endpoint(&self) -> String {
        match self.tls {
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
    }

    /// All requests since the start, or since the last [`forget`](Self::forget), in order.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.journal.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the list of requests afresh.
    pub(crate) fn forget(&self) {
        self.journal.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Connections accepted since the start.
    pub(crate) fn accepted_connections(&self) -> usize {
        self.journal.accepted.load(Ordering::SeqCst)
    }

    /// TLS handshakes so far that took up an earlier session.
    pub(crate) fn resumed_sessions(&self) -> usize {
        self.journal.resumed.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.journal.open.load(Ordering::SeqCst)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already, and a drop must not panic.
            let _ = thread.join();
        }
    }
}

fn service(store: impl S3) -> S3Service {
    let mut builder = S3ServiceBuilder::new(store);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    builder.set_access(SignedUnlessPublic);
    builder.build()
}

/// Everybody who signs may read everything; everybody else only [`PUBLIC_BUCKET`].
struct SignedUnlessPublic;

#[async_trait::async_trait]
impl S3Access for SignedUnlessPublic {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let public = matches!(
            context.s3_path(),
            S3Path::Object { bucket, .. } if bucket.as_ref() == PUBLIC_BUCKET
        );
        if context.credentials().is_none() {
            return match public {
                true => Ok(()),
                false => Err(s3_error!(AccessDenied, "Signature is required")),
            };
        }
        if everything_is_signed(context.headers()) {
            return Ok(());
        }
        Err(s3_error!(
            AccessDenied,
            "There were headers present in the request which were not signed"
        ))
    }
}

/// Whether the signature covers `host` and every `x-amz-…` field, which S3 demands. `s3s` only
/// checks it against the fields that it claims to cover.
fn everything_is_signed(fields: &HeaderMap) -> bool {
    let authorization = fields.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let authorization = String::from_utf8_lossy(authorization);
    let names = authorization.split("SignedHeaders=").nth(1).unwrap_or_default();
    let signed: Vec<&str> = names.split(',').next().unwrap_or_default().split(';').collect();
    let demanded = |name: &&HeaderName| *name == "host" || name.as_str().starts_with("x-amz-");
    fields.keys().filter(demanded).all(|name| signed.contains(&name.as_str()))
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    service: S3Service,
    journal: Arc<Journal>,
) {
    // An error of `accept` concerns one connection that is gone; the next call is the remedy.
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::spawn(shake_hands_and_serve(stream, acceptor, service, Arc::clone(&journal)));
        }
    }
}

async fn shake_hands_and_serve(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    service: S3Service,
    journal: Arc<Journal>,
) {
    journal.accepted.fetch_add(1, Ordering::SeqCst);
    // Without this, small answers on loopback wait for delayed acknowledgements.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return serve(stream, service, journal).await };
    // A proxy that does not believe us goes away here.
    if let Ok(stream) = acceptor.accept(stream).await {
        if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            journal.resumed.fetch_add(1, Ordering::SeqCst);
        }
        serve(stream, service, journal).await;
    }
}

async fn serve<S>(stream: S, service: S3Service, journal: Arc<Journal>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    journal.open.fetch_add(1, Ordering::SeqCst);
    let noting = service_fn(|request: Request<Incoming>| {
        journal.note(&request);
        let answer = Service::call(&service, request);
        async move { answer.await.map(with_status) }
    });
    // Peers that go away in the middle of a body are what many tests are about.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), noting)
        .await;
    journal.open.fetch_sub(1, Ordering::SeqCst);
}

/// Makes the status of a store come true that it put into the extensions of its answer: `s3s`
/// itself lets an answer with a body be 200 or 206 only.
fn with_status(mut answer: HttpResponse) -> HttpResponse {
    if let Some(status) = answer.extensions().get::<StatusCode>().copied() {
        *answer.status_mut() = status;
    }
    answer
}
