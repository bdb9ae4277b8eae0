//! An in-memory store for the `s3s` server. Keys are compared byte for byte, and responses are as
//! S3 documents them: ranges, preconditions, errors and all header fields.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use s3s::dto::{
    ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, Range, StreamingBlob,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::conditions::Verdict;
use super::object::{Object, last_modified};
use super::object_request::ObjectRequest;
use super::s3_server::S3Server;

/// The bucket of most tests.
pub(crate) const BUCKET: &str = "genomics-lab";

/// Bytes that one poll of a body yields, as when a real server reads from its disk.
const CHUNK_BYTES: u64 = 64 * 1024;

#[derive(Default)]
struct State {
    /// The latest version of each object.
    objects: HashMap<(String, String), Object>,
    /// All versions with an id; `None` is a delete marker.
    versions: HashMap<(String, String, String), Option<Object>>,
    /// Keys whose latest version is a delete marker.
    deleted: HashSet<(String, String)>,
    /// Requester-pays buckets.
    requester_pays: HashSet<String>,
    denied: Vec<String>,
    /// The response to every request while it is set.
    outage: Option<S3ErrorCode>,
    /// The chance of a `SlowDown` in response to a request.
    slow_downs: Option<(f64, fastrand::Rng)>,
    delay: Duration,
}

/// The store; clones share their objects.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    state: Arc<Mutex<State>>,
    pulled_bytes: Arc<AtomicU64>,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, request: &ObjectRequest<'_>) -> S3Result<Object> {
        let object = self.stored(request)?;
        request.encryption.check(object.customer_key.as_ref())?;
        Ok(object)
    }

    fn stored(&self, request: &ObjectRequest<'_>) -> S3Result<Object> {
        let ObjectRequest { bucket, key, .. } = *request;
        let mut state = self.state();
        if let Some(code) = &state.outage {
            return Err(S3Error::with_message(code.clone(), "Injected by the test."));
        }
        if let Some((chance, rng)) = &mut state.slow_downs
            && rng.f64() < *chance
        {
            return Err(s3_error!(SlowDown, "Injected at random."));
        }
        if state.denied.iter().any(|denied| denied == key) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if !state.objects.keys().any(|(known, _)| known == bucket) {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
        }
        if state.requester_pays.contains(bucket) && !request.requester_pays {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        let place = (bucket.to_owned(), key.to_owned());
        if let Some(version_id) = request.version_id {
            return state.version(place, version_id);
        }
        let object = state.objects.get(&place).cloned();
        let missing = s3_error!(NoSuchKey, "The specified key does not exist.");
        object.ok_or(if state.deleted.contains(&place) { deleted(missing) } else { missing })
    }

    async fn pause(&self) {
        let delay = self.state().delay;
        tokio::time::sleep(delay).await;
    }
}

impl State {
    fn version(&self, (bucket, key): (String, String), version_id: &str) -> S3Result<Object> {
        if !version_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(s3_error!(InvalidArgument, "Invalid version id specified"));
        }
        match self.versions.get(&(bucket, key, version_id.to_owned())) {
            Some(Some(object)) => Ok(object.clone()),
            Some(None) => Err(deleted(s3_error!(
                MethodNotAllowed,
                "The specified method is not allowed against this resource."
            ))),
            None => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
        }
    }
}

/// Adds the field that marks a delete marker to the error.
fn deleted(mut error: S3Error) -> S3Error {
    let name = HeaderName::from_static("x-amz-delete-marker");
    error.set_headers(HeaderMap::from_iter([(name, HeaderValue::from_static("true"))]));
    error
}

/// A signature-checking server over a [`MemoryStore`], as nearly every test needs it.
pub(crate) struct TestS3 {
    pub(crate) server: S3Server,
    store: MemoryStore,
}

impl TestS3 {
    /// Starts with TLS, with [`BUCKET`] and nothing in it.
    pub(crate) fn start_tls(tls: Arc<rustls::ServerConfig>) -> TestS3 {
        let store = MemoryStore::default();
        let server = S3Server::start_tls(store.clone(), tls).expect("a port and a thread");
        let s3 = TestS3 { server, store };
        s3.put(".bucket-exists", "");
        s3
    }

    /// Starts with [`BUCKET`] and nothing in it.
    pub(crate) fn start() -> TestS3 {
        let store = MemoryStore::default();
        let server = S3Server::start(store.clone()).expect("a server on a free loopback port");
        let s3 = TestS3 { server, store };
        s3.put(".bucket-exists", "");
        s3
    }

    /// Starts with one object.
    pub(crate) fn with(key: &str, object: impl Into<Object>) -> TestS3 {
        let s3 = TestS3::start();
        s3.put(key, object);
        s3
    }

    /// Stores an object in [`BUCKET`], in place of any that was there.
    pub(crate) fn put(&self, key: &str, object: impl Into<Object>) {
        self.put_in(BUCKET, key, object);
    }

    /// An object of [`BUCKET`].
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn get(&self, key: &str) -> Object {
        let place = (BUCKET.to_owned(), key.to_owned());
        self.store.state().objects.get(&place).expect("a stored object").clone()
    }

    /// Stores an object in any bucket, which exists from then on.
    pub(crate) fn put_in(&self, bucket: &str, key: &str, object: impl Into<Object>) {
        let place = (bucket.to_owned(), key.to_owned());
        self.store.state().objects.insert(place, object.into());
    }

    /// Stores a version of an object in [`BUCKET`], which is the latest one from then on.
    pub(crate) fn put_version(&self, key: &str, version_id: &str, object: impl Into<Object>) {
        let mut object = object.into();
        object.version_id = Some(version_id.to_owned());
        self.put(key, object.clone());
        let place = (BUCKET.to_owned(), key.to_owned(), version_id.to_owned());
        self.store.state().versions.insert(place, Some(object));
    }

    /// Puts a delete marker on top of an object's versions in [`BUCKET`].
    pub(crate) fn put_delete_marker(&self, key: &str, version_id: &str) {
        self.delete(key);
        let place = (BUCKET.to_owned(), key.to_owned());
        let mut state = self.store.state();
        state.deleted.insert(place.clone());
        state.versions.insert((place.0, place.1, version_id.to_owned()), None);
    }

    /// Makes [`BUCKET`] a requester-pays bucket.
    pub(crate) fn let_requesters_pay(&self) {
        self.store.state().requester_pays.insert(BUCKET.to_owned());
    }

    /// Removes an object from [`BUCKET`].
    pub(crate) fn delete(&self, key: &str) {
        self.store.state().objects.remove(&(BUCKET.to_owned(), key.to_owned()));
    }

    /// Requests for `key` get `AccessDenied` from now on, in every bucket.
    pub(crate) fn deny(&self, key: &str) {
        self.store.state().denied.push(key.to_owned());
    }

    /// Responds to every request with this error, or normally again.
    pub(crate) fn set_outage(&self, code: Option<S3ErrorCode>) {
        self.store.state().outage = code;
    }

    /// Responds with `SlowDown` at random, with this chance from 0 to 1.
    pub(crate) fn slow_down(&self, chance: f64, seed: u64) {
        self.store.state().slow_downs = Some((chance, fastrand::Rng::with_seed(seed)));
    }

    /// Waits this long before each response.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.store.state().delay = delay;
    }

    /// Body bytes written to connections so far, including those still in socket buffers.
    pub(crate) fn pulled_bytes(&self) -> u64 {
        self.store.pulled_bytes.load(Ordering::SeqCst)
    }

    /// Number of requests with this method for this key of [`BUCKET`].
    pub(crate) fn count(&self, method: &str, key: &str) -> usize {
        let target = format!("/{BUCKET}/{key}");
        let requests = self.server.requests();
        requests.iter().filter(|seen| seen.method == method && seen.target == target).count()
    }
}

#[async_trait::async_trait]
impl S3 for MemoryStore {
    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.pause().await;
        let input = request.input;
        let request = ObjectRequest::from(&input);
        let object = self.find(&request)?;
        if request.conditions.verdict(&object)? == Verdict::NotModified {
            return Ok(with_status(head_only(&object), StatusCode::NOT_MODIFIED));
        }
        let size = object.size();
        let span = match input.range.as_ref().map(|range| satisfy(range, size)) {
            None => 0..size,
            Some(Some(span)) => span,
            Some(None) => return Ok(not_satisfiable(size)),
        };
        let length = span.end - span.start;
        let mut output = head_only(&object);
        output.content_length = Some(length as i64);
        output.content_type = Some(object.content_type.clone());
        output.content_encoding.clone_from(&object.content_encoding);
        output.content_disposition.clone_from(&object.content_disposition);
        if input.range.is_some() {
            output.content_range =
                Some(format!("bytes {}-{}/{size}", span.start, span.end.saturating_sub(1)));
        }
        let pulled_bytes = Arc::clone(&self.pulled_bytes);
        output.body = Some(StreamingBlob::wrap(Body { object, span, pulled_bytes }));
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.pause().await;
        let input = request.input;
        let request = ObjectRequest::from(&input);
        let object = self.find(&request)?;
        let verdict = request.conditions.verdict(&object)?;
        let output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(object.size() as i64),
            version_id: object.version_id.clone(),
            content_type: Some(object.content_type.clone()),
            content_encoding: object.content_encoding.clone(),
            content_disposition: object.content_disposition.clone(),
            cache_control: object.cache_control.clone(),
            e_tag: Some(ETag::Strong(object.e_tag.clone())),
            last_modified: Some(last_modified()),
            ..HeadObjectOutput::default()
        };
        Ok(match verdict {
            Verdict::NotModified => with_status(output, StatusCode::NOT_MODIFIED),
            Verdict::Serve => S3Response::new(output),
        })
    }
}

/// A response with a status that `s3s` cannot send; `s3_server` replaces it.
fn with_status<T>(output: T, status: StatusCode) -> S3Response<T> {
    let mut response = S3Response::new(output);
    response.extensions.insert(status);
    response
}

/// The header fields of a 200, 206 or 304.
fn head_only(object: &Object) -> GetObjectOutput {
    GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: object.cache_control.clone(),
        version_id: object.version_id.clone(),
        e_tag: Some(ETag::Strong(object.e_tag.clone())),
        last_modified: Some(last_modified()),
        ..GetObjectOutput::default()
    }
}

/// 416 as S3 sends it: the size is in the XML, not in `Content-Range`.
fn not_satisfiable(size: u64) -> S3Response<GetObjectOutput> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidRange</Code>\
         <Message>The requested range is not satisfiable</Message>\
         <ActualObjectSize>{size}</ActualObjectSize></Error>"
    );
    let output = GetObjectOutput {
        content_length: Some(xml.len() as i64),
        content_type: Some("application/xml".to_owned()),
        body: Some(StreamingBlob::from(s3s::Body::from(xml))),
        ..GetObjectOutput::default()
    };
    with_status(output, StatusCode::RANGE_NOT_SATISFIABLE)
}

/// The bytes that a range selects, if any.
fn satisfy(range: &Range, size: u64) -> Option<std::ops::Range<u64>> {
    if size == 0 {
        return None;
    }
    range.check(size).ok()
}

/// A body that is generated while it is read, and counts the bytes read.
struct Body {
    object: Object,
    span: std::ops::Range<u64>,
    pulled_bytes: Arc<AtomicU64>,
}

impl Stream for Body {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let left = self.span.end - self.span.start;
        if left == 0 {
            return Poll::Ready(None);
        }
        let piece = self.object.piece(self.span.start, left.min(CHUNK_BYTES));
        self.span.start += piece.len() as u64;
        self.pulled_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
        Poll::Ready(Some(Ok(piece)))
    }
}
