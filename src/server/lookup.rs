//! Looks up an object's metadata in the cache and, on a miss, at S3. Concurrent misses of one
//! object share one request.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::cache::metadata::{Cached, Negative};
use crate::cache::single_flight::Role;
use crate::http1::conditional::Preconditions;
use crate::http1::range::ByteRange;
use crate::http1::request::Request;
use crate::policy::route::Mount;
use crate::s3::client::Reply;
use crate::s3::error::Kind;
use crate::s3::object::Metadata;
use crate::s3::object_name::ObjectName;
use crate::s3::request::{ObjectRequest, Operation};
use crate::server::context::Context;
use crate::server::error_mapping::{map_client_error, map_service_error};
use crate::server::failure::Failure;
use crate::server::worker::{Scratch, Worker};

/// Cached metadata of at most this age is used even for `Cache-Control: no-cache`: viewers send
/// several such HEAD requests for a file in a row.
const ALWAYS_ACCEPTED_AGE: Duration = Duration::from_secs(5);

/// The maximum age of cached metadata that a request accepts.
pub(crate) fn accepted_age(request: &Request<'_>) -> Duration {
    let max_age = request.max_age_s.map(|seconds| Duration::from_secs(u64::from(seconds)));
    max_age.map_or(Duration::MAX, |age| age.max(ALWAYS_ACCEPTED_AGE))
}

/// The object's entry in the worker's cache, positive or negative, if younger than `max_age`.
pub(crate) fn cached_metadata(
    worker: &Worker,
    mount: &Mount,
    object: &ObjectName,
    max_age: Duration,
) -> Option<Result<Rc<Metadata>, Failure>> {
    let (id, now) = (object.id(mount.bucket.id), Instant::now());
    let cached = worker.metadata.borrow_mut().get(id, now, max_age)?;
    Some(existing(cached))
}

fn existing(cached: Cached) -> Result<Rc<Metadata>, Failure> {
    match cached {
        Cached::Object(metadata) => Ok(metadata),
        Cached::Negative(negative) => Err(negative.into()),
    }
}

/// The object's metadata, younger than `max_age`: from the cache or, shared with other requests for
/// it, from S3.
pub(crate) async fn find_metadata(
    context: &Context<'_>,
    mount: &Mount,
    scratch: &mut Scratch,
    max_age: Duration,
) -> Result<Rc<Metadata>, Failure> {
    let worker = context.worker;
    if let Some(cached) = cached_metadata(worker, mount, &scratch.object, max_age) {
        return cached;
    }
    // A request in progress counts as old as the time at which it was sent.
    let oldest = Instant::now().checked_sub(max_age);
    loop {
        match worker.flights.join(scratch.object.id(mount.bucket.id)).await {
            Role::Follower(Some((found, sent_at)))
                if oldest.is_none_or(|oldest| sent_at >= oldest) =>
            {
                return existing(found?);
            }
            // Too old, or abandoned. The next one was sent after this call.
            Role::Follower(_) => {}
            Role::Leader(leader) => {
                let sent_at = Instant::now();
                // Boxed, or its state would be part of every request's.
                let found = Box::pin(request_metadata(context, mount, scratch, sent_at)).await;
                leader.complete((found.clone(), sent_at));
                return existing(found?);
            }
        }
    }
}

/// The object's metadata from S3, requested after this call.
pub(crate) async fn current_metadata(
    context: &Context<'_>,
    mount: &Mount,
    scratch: &mut Scratch,
) -> Result<Rc<Metadata>, Failure> {
    find_metadata(context, mount, scratch, Duration::ZERO).await
}

/// Evicts the object's cache entry, which a response of S3 contradicts.
pub(crate) fn invalidate(worker: &Worker, mount: &Mount, object: &ObjectName) {
    worker.metadata.borrow_mut().invalidate(object.id(mount.bucket.id), Instant::now());
}

/// Sends S3 a HEAD or, if its response lacks the size or the reason of an error, a GET of one byte.
async fn request_metadata(
    context: &Context<'_>,
    mount: &Mount,
    scratch: &mut Scratch,
    sent_at: Instant,
) -> Result<Cached, Failure> {
    let Context { worker, live, .. } = *context;
    let Scratch { object, metadata, .. } = scratch;
    let (mut operation, mut has_head) = (Operation::Head, false);
    loop {
        let range = match operation {
            Operation::Head => None,
            Operation::Get => Some(ByteRange::Closed { first: 0, last: 0 }),
        };
        let conditions = Preconditions::default();
        let (key, version_id) = (object.key(), object.version_id());
        let leave_body_in_socket = false;
        let s3_request =
            ObjectRequest { operation, key, version_id, range, conditions, leave_body_in_socket };
        let sent = worker.s3.send(&mount.bucket, &s3_request).await;
        let error = match sent.map_err(|error| map_client_error(&error))? {
            Reply::Object(response) => {
                let shown = live.shown(mount, object.key());
                let complete = metadata.read(response.head(), response.head_bytes(), shown);
                response.dismiss().await;
                if complete {
                    return Ok(learn(worker, mount, object, metadata, sent_at));
                }
                if operation == Operation::Get {
                    log::warn!("S3 sent {object:?} without its size");
                    return Err(Failure::BadResponse);
                }
                // The `Content-Range` of a part has the size.
                operation = Operation::Get;
                has_head = true;
                continue;
            }
            Reply::NotModified(response) => {
                response.dismiss().await;
                log::warn!("S3 responded 304 to a request without a condition");
                return Err(Failure::BadResponse);
            }
            Reply::Error(error) => error,
        };
        if has_head && error.kind() == Kind::RangeNotSatisfiable {
            // The object exists, but has no first byte.
            metadata.size = 0;
            return Ok(learn(worker, mount, object, metadata, sent_at));
        }
        // The response to a HEAD has no body, and so no error code.
        if error.kind() == Kind::Unexplained && operation == Operation::Head {
            operation = Operation::Get;
            continue;
        }
        return match map_service_error(worker, mount, object, &error, sent_at) {
            Failure::NotFound => Ok(Cached::Negative(Negative::NotFound)),
            Failure::AccessDenied => Ok(Cached::Negative(Negative::AccessDenied)),
            failure => Err(failure),
        };
    }
}

fn learn(
    worker: &Worker,
    mount: &Mount,
    object: &ObjectName,
    metadata: &Metadata,
    sent_at: Instant,
) -> Cached {
    let (id, now) = (object.id(mount.bucket.id), Instant::now());
    worker.metadata.borrow_mut().store_object(id, metadata, sent_at, now);
    Cached::Object(Rc::new(metadata.clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::latest::LatestResponses;
    use crate::cache::metadata::{MetadataCache, Settings};
    use crate::policy::route::route;
    use crate::s3::bucket::Bucket;
    use crate::s3::endpoint::{Addressing, Aws, Endpoint};
    use crate::s3::object_name::ObjectId;

    fn mount(path: &str) -> Arc<Mount> {
        let endpoint = Endpoint::Aws(Aws::default());
        let bucket = Bucket::new("lab".to_owned(), "us-east-1", endpoint, Addressing::Auto, None);
        Arc::new(Mount {
            path: path.to_owned(),
            prefix: String::new(),
            bucket: Arc::new(bucket),
            allow_version_id: false,
            denied_is_missing: false,
            cache_control: None,
        })
    }

    #[test]
    fn mounts_that_are_swapped_by_a_reload_never_share_metadata() {
        let mut map = MetadataCache::new(Settings::default(), Arc::new(LatestResponses::new(1000)));
        let now = Instant::now();
        let before = [mount("/one/"), mount("/two/")];
        let mut metadata = Metadata::default();
        metadata.size = 1;
        let id = |mount: &Mount, key| ObjectId { bucket: mount.bucket.id, key, version_id: None };
        map.store_object(id(&before[0], "a"), &metadata, now, now);
        let mut size_at = |mounts: &[Arc<Mount>], path| {
            let (mount, key) = route(mounts, path).unwrap();
            match map.get(id(mount, key), now, Duration::MAX)? {
                Cached::Object(metadata) => Some(metadata.size),
                Cached::Negative(_) => None,
            }
        };
        let swapped = [Arc::clone(&before[1]), Arc::clone(&before[0])];
        let replaced = [mount("/one/"), mount("/two/")];
        for (mounts, one) in [(&before, Some(1)), (&swapped, Some(1)), (&replaced, None)] {
            assert_eq!((size_at(mounts, "/one/a"), size_at(mounts, "/two/a")), (one, None));
        }
    }
}
