//! One request, from its head to the last byte of its answer.
//!
//! The steps, in order: method → CORS preflight → mount and key → what is known of the object →
//! conditions and range → S3 → the answer's head → the body. Each step may end the request with a
//! [`Failure`]. What S3 is asked is in [`known`](super::known) and [`fetch`](super::fetch).
//!
//! # What a request costs
//!
//! In steady state, on a connection that is kept. Operations of the event loop are, with io_uring,
//! entries of a queue that all connections submit together; with epoll each is a system call, and
//! one that finds nothing to receive is one more. `tests/request_allocations.rs` counts the heap.
//!
//! | | HEAD of a known object | GET of up to 64 KiB | GET that is spliced |
//! |---|---|---|---|
//! | operations | receive, send | receive, send to S3, receive, send | the same, and a wait for each time that S3 or the client is not ready |
//! | system calls besides | – | peek at the pooled connection | the peek; two `splice(2)` for each wait |
//! | allocations | 0 | 1 (the request's own state) | 1 |
//! | bytes copied here | the head, once | the client's head, in front of the body where S3's was | as before |
//! | bytes copied by the kernel | the head | head and body, in and out | what came with S3's head |

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::http1::conditional::{IfRange, Verdict};
use crate::http1::range::ByteRange;
use crate::http1::request::{Method, Request};
use crate::http1::target::{Target, percent_decode};
use crate::limits;
use crate::policy::route::{self, Mount};
use crate::s3::object::Metadata;
use crate::s3::object_name::ObjectName;
use crate::server::failure::Failure;
use crate::server::get::{Fetch, Step};
use crate::server::live::Live;
use crate::server::lookup::{accepted_age, current_object, known_object, recall};
use crate::server::response::{Head, HeadWriter, Outcome};
use crate::server::worker::{Scratch, Worker};
use crate::sys::stream::Stream;

/// Answers one request.
pub async fn handle(
    worker: &Worker,
    request: &Request<'_>,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Outcome {
    let writer = HeadWriter { worker, request };
    let answered = match request.method {
        Method::Other => Err(Failure::Method),
        _ if request.has_body => Err(Failure::Body),
        Method::Options => {
            writer.options(&mut scratch.head);
            return writer.send(client, scratch, StatusCode::NO_CONTENT).await;
        }
        Method::Head | Method::Get => match locate(worker, request, None, &mut scratch.object) {
            Ok(mount) => object(worker, request, mount, client, scratch).await,
            Err(failure) => Err(failure),
        },
    };
    let answered = match answered {
        Err(Failure::NotFound) if worker.live().rewrite_rules.for_missing() > 0 => {
            Box::pin(other_object(worker, request, client, scratch)).await
        }
        answered => answered,
    };
    match answered {
        Ok(outcome) => outcome,
        Err(failure) => writer.send_failure(client, scratch, failure).await,
    }
}

/// Answers with the object in `scratch`.
async fn object(
    worker: &Worker,
    request: &Request<'_>,
    mount: &Mount,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    match request.method {
        Method::Head => head(worker, request, mount, client, scratch).await,
        // In a box of its own for as long as it lasts: its many states would otherwise be part of
        // every idle connection. One allocation, some tens of nanoseconds.
        _ => Box::pin(get(worker, request, mount, client, scratch)).await,
    }
}

/// Answers with the first object that exists of those that the rules for missing keys name.
async fn other_object(
    worker: &Worker,
    request: &Request<'_>,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    for rule in 0..worker.live().rewrite_rules.for_missing() {
        // A key that cannot be is one that does not exist.
        let Ok(mount) = locate(worker, request, Some(rule), &mut scratch.object) else { continue };
        match object(worker, request, mount, client, scratch).await {
            Err(Failure::NotFound) => {}
            answered => return answered,
        }
    }
    Err(Failure::NotFound)
}

/// The object that a request is about, as [`locate_in`].
fn locate<'w>(
    worker: &'w Worker,
    request: &Request<'_>,
    rule: Option<usize>,
    object: &mut ObjectName,
) -> Result<&'w Arc<Mount>, Failure> {
    let Target::Resource { path, query } = request.target else { return Err(Failure::NotMounted) };
    locate_in(worker.live(), path, query, rule, object)
}

/// The object that a path and a query name; with the number of a rule for missing keys the one that
/// the rule names instead, [`Failure::NotFound`] if it names none.
pub fn locate_in<'w>(
    live: &'w Live,
    path: &str,
    query: &str,
    rule: Option<usize>,
    object: &mut ObjectName,
) -> Result<&'w Arc<Mount>, Failure> {
    let Some((mount, rest)) = route::route(&live.mounts, path) else {
        let is_mount = route::is_mount_without_slash(&live.mounts, path);
        return Err(if is_mount { Failure::NoKey } else { Failure::NotMounted });
    };
    if rest.is_empty() {
        return Err(Failure::NoKey);
    }
    let key = object.start();
    percent_decode(rest, limits::KEY_BYTES, key).map_err(Failure::Key)?;
    live.rewrite_rules.apply(key);
    if rule.is_some_and(|number| !live.rewrite_rules.apply_to_missing(number, key)) {
        return Err(Failure::NotFound);
    }
    mount.prepend_prefix(key).map_err(Failure::Key)?;
    if key.is_empty() {
        return Err(Failure::NoKey);
    }
    if mount.allow_version_id {
        object.read_version_id(query).map_err(Failure::VersionId)?;
    }
    Ok(mount)
}

async fn head(
    worker: &Worker,
    request: &Request<'_>,
    mount: &Mount,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    let max_age = accepted_age(request);
    let judge = |object: &Metadata| request.preconditions.evaluate(object.validators());
    let metadata = match recall(worker, mount, &scratch.object, max_age).transpose()? {
        Some(object) if judge(&object) != Verdict::PreconditionFailed => object,
        remembered => {
            // Memory may be out of date: it does not refuse what S3 may allow.
            let max_age = if remembered.is_some() { Duration::ZERO } else { max_age };
            known_object(worker, mount, scratch, max_age).await?
        }
    };
    let writer = HeadWriter { worker, request };
    let head = match judge(&metadata) {
        Verdict::Proceed => Head::of_object(&metadata, None),
        Verdict::NotModified => Head::not_modified(&metadata),
        Verdict::PreconditionFailed => return Err(Failure::PreconditionFailed),
    };
    let status = head.status;
    writer.write(&mut scratch.head, &head);
    Ok(writer.send(client, scratch, status).await)
}

async fn get(
    worker: &Worker,
    request: &Request<'_>,
    mount: &Mount,
    client: &mut Stream,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    let range = request.range.and_then(ByteRange::parse);
    let if_range = request.if_range.map(IfRange::parse);
    let mut fetch = Fetch { worker, request, mount, range, if_range, known: None };

    // What memory can answer does not go to S3, but memory may be out of date: it does not refuse
    // what S3 may allow. Conditions that S3 cannot judge are judged from the metadata.
    let max_age = accepted_age(request);
    let mut known = match recall(worker, mount, &scratch.object, max_age).transpose()? {
        None if !request.preconditions.are_for_s3() => {
            Some(known_object(worker, mount, scratch, max_age).await?)
        }
        Some(object) if fetch.would_refuse(&object) => {
            Some(current_object(worker, mount, scratch).await?)
        }
        // The client validates a copy that it may only use if S3 says that it is right.
        Some(object) if fetch.is_validation(&object) => match request.preconditions.are_for_s3() {
            true => None,
            false => Some(current_object(worker, mount, scratch).await?),
        },
        known => known,
    };
    let (mut unsatisfiable, mut unsized_responses) = (0, 0);
    loop {
        if let Some(metadata) = known.take() {
            match fetch.judge(&metadata) {
                Verdict::Proceed => {}
                Verdict::NotModified => {
                    let writer = HeadWriter { worker, request };
                    writer.write(&mut scratch.head, &Head::not_modified(&metadata));
                    return Ok(writer.send(client, scratch, StatusCode::NOT_MODIFIED).await);
                }
                Verdict::PreconditionFailed => return Err(Failure::PreconditionFailed),
            }
            if !fetch.if_range_holds(&metadata) {
                fetch.range = None;
            }
            // An object that grew meanwhile is asked for once more.
            if fetch.is_outside(&metadata) || (unsatisfiable > 1 && fetch.range.is_some()) {
                return Err(Failure::RangeNotSatisfiable { size: metadata.size });
            }
            fetch.known = Some(metadata);
        }
        match fetch.once(client, scratch).await? {
            Step::Answered(outcome) => return Ok(outcome),
            Step::WithoutRange => fetch.range = None,
            Step::Changed => fetch.known = None,
            Step::UnknownSize if unsized_responses > 1 => return Err(Failure::BadResponse),
            Step::UnknownSize => {
                known = Some(current_object(worker, mount, scratch).await?);
                unsized_responses += 1;
            }
            Step::Unsatisfiable => {
                known = Some(current_object(worker, mount, scratch).await?);
                unsatisfiable += 1;
            }
        }
    }
}
