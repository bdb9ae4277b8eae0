//! Serves HEAD and GET of an object: evaluates conditions and ranges against cached metadata, and
//! sends S3 the requests that are still needed.

use std::time::Duration;

use crate::http1::conditional::{IfRange, Verdict};
use crate::http1::range::ByteRange;
use crate::policy::route::Mount;
use crate::s3::object::Metadata;
use crate::server::context::Context;
use crate::server::failure::Failure;
use crate::server::get::{Get, Step};
use crate::server::lookup::{accepted_age, cached_metadata, current_metadata, find_metadata};
use crate::server::response::{Head, Outcome};
use crate::server::worker::Scratch;
use crate::transport::Connection;

/// Serves a HEAD of the object that `scratch` names.
pub(crate) async fn head(
    context: &Context<'_>,
    mount: &Mount,
    client: &mut Connection,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    let Context { worker, request, .. } = *context;
    let max_age = accepted_age(request);
    let evaluate = |object: &Metadata| request.preconditions.evaluate(object.validators());
    let metadata = match cached_metadata(worker, mount, &scratch.object, max_age).transpose()? {
        Some(object) if evaluate(&object) != Verdict::PreconditionFailed => object,
        cached => {
            // A 412 from stale metadata would be wrong, so S3 confirms it first.
            let max_age = if cached.is_some() { Duration::ZERO } else { max_age };
            Box::pin(find_metadata(context, mount, scratch, max_age)).await?
        }
    };
    let out = &mut scratch.head;
    let outcome = match evaluate(&metadata) {
        Verdict::Proceed => context.write_head(out, &Head::of_object(&metadata, None)),
        Verdict::NotModified => context.write_head(out, &Head::not_modified(&metadata)),
        Verdict::PreconditionFailed => return Err(Failure::PreconditionFailed),
    };
    drop(metadata);
    Ok(context.send(client, out, outcome).await)
}

/// Serves a GET of the object that `scratch` names.
pub(crate) async fn get(
    context: &Context<'_>,
    mount: &Mount,
    client: &mut Connection,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    let Context { worker, request, .. } = *context;
    let range = request.range.and_then(ByteRange::parse);
    let if_range = request.if_range.map(IfRange::parse);
    let mut get = Get { context, mount, range, if_range, cached: None };

    // A cache hit is enough for a 304. It may be stale, so S3 confirms every other effect of a
    // condition or range first. Conditions that S3 does not evaluate need the metadata.
    let max_age = accepted_age(request);
    let mut found = match cached_metadata(worker, mount, &scratch.object, max_age).transpose()? {
        None if !request.preconditions.are_for_s3() => {
            Some(find_metadata(context, mount, scratch, max_age).await?)
        }
        Some(object) if get.would_refuse(&object) => {
            Some(current_metadata(context, mount, scratch).await?)
        }
        // The object's `Cache-Control` demands that S3 itself validates the client's copy.
        Some(object) if get.needs_validation(&object) => match request.preconditions.are_for_s3() {
            true => None,
            false => Some(current_metadata(context, mount, scratch).await?),
        },
        cached => cached,
    };
    let (mut unsatisfiable, mut unsized_responses) = (0, 0);
    loop {
        if let Some(metadata) = found.take() {
            match get.evaluate(&metadata) {
                Verdict::Proceed => {}
                Verdict::NotModified => {
                    let out = &mut scratch.head;
                    let outcome = context.write_head(out, &Head::not_modified(&metadata));
                    return Ok(context.send(client, out, outcome).await);
                }
                Verdict::PreconditionFailed => return Err(Failure::PreconditionFailed),
            }
            if !get.if_range_holds(&metadata) {
                get.range = None;
            }
            // S3's 416 may contradict the metadata because the object has just grown: one retry.
            if get.is_outside(&metadata) || (unsatisfiable > 1 && get.range.is_some()) {
                return Err(Failure::RangeNotSatisfiable { size: metadata.size });
            }
            get.cached = Some(metadata);
        }
        match get.send(client, scratch).await? {
            Step::Done(outcome) => return Ok(outcome),
            Step::WithoutRange => get.range = None,
            Step::Changed => get.cached = None,
            Step::UnknownSize if unsized_responses > 1 => return Err(Failure::BadResponse),
            Step::UnknownSize => {
                found = Some(current_metadata(context, mount, scratch).await?);
                unsized_responses += 1;
            }
            Step::Unsatisfiable => {
                found = Some(current_metadata(context, mount, scratch).await?);
                unsatisfiable += 1;
            }
        }
    }
}
