//! Serves an object: HEAD and GET, from the metadata cache or by asking S3.

use std::time::Duration;

use crate::http1::conditional::{IfRange, Verdict};
use crate::http1::range::ByteRange;
use crate::policy::route::Mount;
use crate::s3::object::Metadata;
use crate::server::context::Context;
use crate::server::failure::Failure;
use crate::server::get::{Fetch, Step};
use crate::server::lookup::{accepted_age, current_object, known_object, recall};
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
    let judge = |object: &Metadata| request.preconditions.evaluate(object.validators());
    let metadata = match recall(worker, mount, &scratch.object, max_age).transpose()? {
        Some(object) if judge(&object) != Verdict::PreconditionFailed => object,
        cached => {
            // The cache may be out of date: it does not refuse what S3 may allow.
            let max_age = if cached.is_some() { Duration::ZERO } else { max_age };
            Box::pin(known_object(context, mount, scratch, max_age)).await?
        }
    };
    let out = &mut scratch.head;
    let outcome = match judge(&metadata) {
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
    let mut fetch = Fetch { context, mount, range, if_range, known: None };

    // What memory can answer does not go to S3, but memory may be out of date: it does not refuse
    // what S3 may allow. Conditions that S3 cannot judge are judged from the metadata.
    let max_age = accepted_age(request);
    let mut known = match recall(worker, mount, &scratch.object, max_age).transpose()? {
        None if !request.preconditions.are_for_s3() => {
            Some(known_object(context, mount, scratch, max_age).await?)
        }
        Some(object) if fetch.would_refuse(&object) => {
            Some(current_object(context, mount, scratch).await?)
        }
        // The client validates a copy that it may only use if S3 says that it is right.
        Some(object) if fetch.is_validation(&object) => match request.preconditions.are_for_s3() {
            true => None,
            false => Some(current_object(context, mount, scratch).await?),
        },
        known => known,
    };
    let (mut unsatisfiable, mut unsized_responses) = (0, 0);
    loop {
        if let Some(metadata) = known.take() {
            match fetch.judge(&metadata) {
                Verdict::Proceed => {}
                Verdict::NotModified => {
                    let out = &mut scratch.head;
                    let outcome = context.write_head(out, &Head::not_modified(&metadata));
                    return Ok(context.send(client, out, outcome).await);
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
                known = Some(current_object(context, mount, scratch).await?);
                unsized_responses += 1;
            }
            Step::Unsatisfiable => {
                known = Some(current_object(context, mount, scratch).await?);
                unsatisfiable += 1;
            }
        }
    }
}
