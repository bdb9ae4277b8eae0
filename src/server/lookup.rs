//! What is known of an object without its bytes: remembered, or asked of S3 once for all who want it.

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

/// Memory answers even those who want no old response, if it is not older than this: a viewer asks
/// for the head of each of its files several times in a row, with `Cache-Control: no-cache`.
const ALWAYS_ACCEPTED_AGE: Duration = Duration::from_secs(5);

/// The greatest age of remembered metadata that may answer a request.
pub(crate) fn accepted_age(request: &Request<'_>) -> Duration {
    let asked = request.max_age_s.map(|seconds| Duration::from_secs(u64::from(seconds)));
    asked.map_or(Duration::MAX, |age| age.max(ALWAYS_ACCEPTED_AGE))
}

/// What the worker remembers of an object and is younger than `max_age`, a remembered failure
/// included.
pub(crate) fn recall(
    worker: &Worker,
    mount: &Mount,
    object: &ObjectName,
    max_age: Duration,
) -> Option<Result<Rc<Metadata>, Failure>> {
    let (id, now) = (object.id(mount.bucket.id), Instant::now());
    let known = worker.metadata.borrow_mut().get(id, now, max_age)?;
    Some(existing(known))
}

fn existing(cached: Cached) -> Result<Rc<Metadata>, Failure> {
    match cached {
        Cached::Object(metadata) => Ok(metadata),
        Cached::Negative(negative) => Err(negative.into()),
    }
}

/// An object's metadata that is younger than `max_age`: from memory or, asked once for all who want
/// it, from S3.
pub(crate) async fn known_object(
    context: &Context<'_>,
    mount: &Mount,
    scratch: &mut Scratch,
    max_age: Duration,
) -> Result<Rc<Metadata>, Failure> {
    let worker = context.worker;
    if let Some(known) = recall(worker, mount, &scratch.object, max_age) {
        return known;
    }
    // A request that is under way already says what was true when it was sent.
    let oldest = Instant::now().checked_sub(max_age);
    loop {
        match worker.flights.join(scratch.object.id(mount.bucket.id)).await {
            Role::Follower(Some((known, asked))) if oldest.is_none_or(|oldest| asked >= oldest) => {
                return existing(known?);
            }
            // Too old; the next one was sent after this call.
            Role::Follower(_) => {}
            Role::Leader(leader) => {
                let asked = Instant::now();
                // Boxed: its state would be part of every request's.
                let known = Box::pin(ask_for_metadata(context, mount, scratch, asked)).await;
                leader.complete((known.clone(), asked));
                return existing(known?);
            }
        }
    }
}

/// The metadata as S3 has it now.
pub(crate) async fn current_object(
    context: &Context<'_>,
    mount: &Mount,
    scratch: &mut Scratch,
) -> Result<Rc<Metadata>, Failure> {
    known_object(context, mount, scratch, Duration::ZERO).await
}

/// Forgets an object, since S3 has contradicted what was known of it.
pub(crate) fn forget(worker: &Worker, mount: &Mount, object: &ObjectName) {
    worker.metadata.borrow_mut().invalidate(object.id(mount.bucket.id), Instant::now());
}

async fn ask_for_metadata(
    context: &Context<'_>,
    mount: &Mount,
    scratch: &mut Scratch,
    asked: Instant,
) -> Result<Cached, Failure> {
    let Context { worker, live, .. } = *context;
    let Scratch { object, metadata, .. } = scratch;
    let (mut operation, mut has_head) = (Operation::Head, false);
    loop {
        // A HEAD's refusal has no body and so no reason; one byte of the object has either.
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
                    return Ok(learn(worker, mount, object, metadata, asked));
                }
                if operation == Operation::Get {
                    log::warn!("S3 does not say how large {object:?} is");
                    return Err(Failure::BadResponse);
                }
                // A HEAD without a length; with one byte comes the size.
                operation = Operation::Get;
                has_head = true;
                continue;
            }
            Reply::NotModified(response) => {
                response.dismiss().await;
                log::warn!("S3 answered 304 to a request without a condition");
                return Err(Failure::BadResponse);
            }
            Reply::Error(error) => error,
        };
        if has_head && error.kind() == Kind::RangeNotSatisfiable {
            // There is an object, but not one byte of it.
            metadata.size = 0;
            return Ok(learn(worker, mount, object, metadata, asked));
        }
        if error.kind() == Kind::Unexplained && operation == Operation::Head {
            operation = Operation::Get;
            continue;
        }
        return match map_service_error(worker, mount, object, &error, asked) {
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
    asked: Instant,
) -> Cached {
    let (id, now) = (object.id(mount.bucket.id), Instant::now());
    worker.metadata.borrow_mut().store_object(id, metadata, asked, now);
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
    fn mounts_that_change_places_in_a_reload_never_see_each_others_metadata() {
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
