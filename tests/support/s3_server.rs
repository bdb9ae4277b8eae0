//! An S3 server inside this process that checks every signature.
//!
//! The protocol and the signatures are those of the `s3s` crate; the caller chooses the store:
//! [`s3s_fs::FileSystem`] in the demo, `memory_store` in the tests. All requests are recorded, also
//! those with an invalid signature.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::{HandshakeKind, ServerConfig};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpResponse, S3, S3Result, s3_error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// The permanent access key.
pub(crate) const ACCESS_KEY: &str = "AKIAS3PROXYFIXTURE00";
/// The secret access key of [`ACCESS_KEY`].
pub(crate) const SECRET_KEY: &str = "fixture/secret+that/is0only1for2loopback";
/// The region that requests are signed for.
pub(crate) const REGION: &str = "us-east-1";
/// The only bucket that may be read without a signature.
pub(crate) const PUBLIC_BUCKET: &str = "public-bucket";

/// A received request.
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

    /// Whether the request had a signature, valid or not.
    pub(crate) fn is_signed(&self) -> bool {
        self.fields.contains_key(AUTHORIZATION)
    }
}

/// Records of requests and connections.
#[derive(Default)]
struct Journal {
    requests: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// TLS handshakes that resumed a session.
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
    keyring: Keyring,
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
        let keyring = Keyring::default();
        let service = service(store, &keyring);
        runtime.spawn(accept(listener, acceptor, service, Arc::clone(&journal)));
        let thread = std::thread::Builder::new().name("s3".to_owned()).spawn(move || {
            // Ends when the sender is dropped; the connections end with the runtime.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(S3Server { address, tls, journal, keyring, stop: Some(stop), thread: Some(thread) })
    }

    /// The value of `endpoint:`.
    pub(crate) fn endpoint(&self) -> String {
        match self.tls {
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
    }

    /// The keys that the server accepts.
    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// All requests since the start, or since the last [`forget`](Self::forget), in order.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.journal.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Clears the list of requests.
    pub(crate) fn forget(&self) {
        self.journal.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Connections accepted since the start.
    pub(crate) fn accepted_connections(&self) -> usize {
        self.journal.accepted.load(Ordering::SeqCst)
    }

    /// TLS handshakes so far that resumed a session.
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

fn service(store: impl S3, keyring: &Keyring) -> S3Service {
    let mut builder = S3ServiceBuilder::new(store);
    builder.set_auth(keyring.clone());
    builder.set_access(SignedUnlessPublic(keyring.clone()));
    builder.build()
}

/// Signed requests may read everything, others only [`PUBLIC_BUCKET`].
struct SignedUnlessPublic(Keyring);

#[async_trait::async_trait]
impl S3Access for SignedUnlessPublic {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let public = matches!(
            context.s3_path(),
            S3Path::Object { bucket, .. } if bucket.as_ref() == PUBLIC_BUCKET
        );
        match context.credentials() {
            Some(_) if !everything_is_signed(context.headers()) => Err(s3_error!(
                AccessDenied,
                "There were headers present in the request which were not signed"
            )),
            Some(credentials) => {
                let token = context.headers().get("x-amz-security-token");
                let token = token.and_then(|token| token.to_str().ok());
                self.0.check_token(&credentials.access_key, token)
            }
            None if public => Ok(()),
            None => Err(s3_error!(AccessDenied, "Signature is required")),
        }
    }
}

/// Credentials that the server accepts until they expire.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    /// `None` accepts requests with any token or without one.
    pub(crate) token: Option<String>,
    /// In whole seconds; `None` does not expire.
    pub(crate) ends: Option<SystemTime>,
}

/// The credentials that a server accepts; clones share them.
#[derive(Clone)]
pub(crate) struct Keyring(Arc<Mutex<Rings>>);

struct Rings {
    accepted: Vec<Keys>,
    /// All credentials ever issued.
    issued: Vec<Keys>,
}

impl Default for Keyring {
    fn default() -> Keyring {
        let fixture = Keys {
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            token: None,
            ends: None,
        };
        Keyring(Arc::new(Mutex::new(Rings { accepted: vec![fixture], issued: Vec::new() })))
    }
}

impl Keyring {
    fn rings(&self) -> std::sync::MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues credentials that are accepted until they expire.
    pub(crate) fn issue(&self, lifetime: Duration) -> Keys {
        let mut rings = self.rings();
        let number = rings.issued.len();
        let end = SystemTime::now() + lifetime;
        let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let keys = Keys {
            access_key: format!("ASIATEMPORARY{number:07}"),
            secret_key: format!("temporary/secret+number{number:07}"),
            token: Some(format!("temporary-token-{number:07}/+==")),
            ends: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())),
        };
        rings.accepted.push(keys.clone());
        rings.issued.push(keys.clone());
        keys
    }

    /// All credentials issued so far, also those that are no longer accepted.
    pub(crate) fn issued(&self) -> Vec<Keys> {
        self.rings().issued.clone()
    }

    /// Revokes all keys issued so far.
    pub(crate) fn revoke_all(&self) {
        self.rings().accepted.clear();
    }

    /// Expires all keys issued so far, before the expiry that was announced.
    pub(crate) fn expire_all(&self) {
        let now = Some(SystemTime::now());
        self.rings().accepted.iter_mut().for_each(|keys| keys.ends = now);
    }

    /// Revokes all tokens issued so far.
    pub(crate) fn spoil_all_tokens(&self) {
        let spoiled = || Some("another".to_owned());
        self.rings().accepted.iter_mut().for_each(|keys| keys.token = spoiled());
    }

    /// Whether this access key is accepted now.
    pub(crate) fn accepts(&self, access_key: &str) -> bool {
        self.find(access_key).is_ok()
    }

    fn find(&self, access_key: &str) -> S3Result<Keys> {
        let rings = self.rings();
        let keys = rings.accepted.iter().find(|keys| keys.access_key == access_key);
        let keys = keys.ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        if keys.ends.is_some_and(|end| end <= SystemTime::now()) {
            return Err(s3_error!(ExpiredToken, "The provided token has expired."));
        }
        Ok(keys.clone())
    }

    fn check_token(&self, access_key: &str, token: Option<&str>) -> S3Result<()> {
        let keys = self.find(access_key)?;
        if keys.token.is_some() && keys.token.as_deref() != token {
            return Err(s3_error!(InvalidToken, "The provided token is malformed"));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl S3Auth for Keyring {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(self.find(access_key)?.secret_key.into())
    }
}

/// Whether the signature covers `host` and every `x-amz-…` field, as S3 requires. `s3s` only
/// verifies it against the fields in `SignedHeaders`.
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
    // An error of `accept` concerns one connection that has already ended: accept the next one.
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
    // Without this, small responses on loopback wait for delayed acknowledgements.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return serve(stream, service, journal).await };
    // A proxy that does not trust the certificate disconnects here.
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
        let response = Service::call(&service, request);
        async move { response.await.map(with_status) }
    });
    // Many tests disconnect in the middle of a body.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), noting)
        .await;
    journal.open.fetch_sub(1, Ordering::SeqCst);
}

/// Applies the status that a store put into the extensions of its response: with a body, `s3s`
/// itself allows only 200 and 206.
fn with_status(mut response: HttpResponse) -> HttpResponse {
    if let Some(status) = response.extensions().get::<StatusCode>().copied() {
        *response.status_mut() = status;
    }
    response
}
