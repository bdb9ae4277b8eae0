//! One request, from its head to the last byte of its response.
//!
//! Read it as the steps that it is: [`respond`] finds the mount, answers OPTIONS, names the object,
//! and serves it by [`head`] or [`get`]. Each step may end the request with a [`Failure`], which
//! becomes the response. A step that decides by mount and peer who may read belongs between the
//! preflight, which browsers send without credentials, and the object's name.
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

use crate::http1::request::Method;
use crate::http1::target::{Target, percent_decode};
use crate::limits;
use crate::policy::route::Mount;
use crate::policy::route::{NoRoute, route};
use crate::s3::object_name::ObjectName;
use crate::server::context::Context;
use crate::server::failure::Failure;
use crate::server::live::Live;
use crate::server::object::{get, head};
use crate::server::response::Outcome;
use crate::server::worker::Scratch;
use crate::transport::Connection;

/// Serves one request. A failure is a response too.
pub(crate) async fn handle(
    context: &Context<'_>,
    client: &mut Connection,
    scratch: &mut Scratch,
) -> Outcome {
    match respond(context, client, scratch).await {
        Ok(outcome) => outcome,
        Err(failure) => context.send_failure(client, scratch, failure).await,
    }
}

/// The steps, in order.
async fn respond(
    context: &Context<'_>,
    client: &mut Connection,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    let request = context.request;
    if request.method == Method::Other {
        return Err(Failure::Method);
    }
    if request.has_body {
        return Err(Failure::Body);
    }
    let located = locate(context.live, request.target);
    if request.method == Method::Options {
        return Ok(context.send_options(client, scratch).await);
    }
    let located = located?;
    name_object(context.live, &located, None, &mut scratch.object)?;
    match serve(context, located.mount, client, scratch).await {
        Err(Failure::NotFound) if context.live.rewrite_rules.for_missing() > 0 => {
            Box::pin(serve_other_name(context, &located, client, scratch)).await
        }
        served => served,
    }
}

/// Where a request target leads.
pub(crate) struct Located<'a> {
    /// The mount that the path is below.
    pub mount: &'a Arc<Mount>,
    /// The path behind the mount, still percent-encoded.
    rest: &'a str,
    query: &'a str,
}

/// Finds the mount of a request target.
///
/// # Errors
/// [`Failure::NotMounted`], [`Failure::NoKey`].
pub(crate) fn locate<'a>(live: &'a Live, target: Target<'a>) -> Result<Located<'a>, Failure> {
    let Target::Resource { path, query } = target else { return Err(Failure::NotMounted) };
    match route(&live.mounts, path) {
        Ok((mount, rest)) => Ok(Located { mount, rest, query }),
        Err(NoRoute::NotMounted) => Err(Failure::NotMounted),
        Err(NoRoute::NoKey) => Err(Failure::NoKey),
    }
}

/// Reads the name of the object that is located: decodes the key once, rewrites it, and puts the
/// mount's prefix in front. With the number of a rule for missing keys the name is the one that
/// this rule offers instead.
///
/// # Errors
/// The failures about keys and version ids; [`Failure::NotFound`] if the rule offers no name.
pub(crate) fn name_object(
    live: &Live,
    located: &Located<'_>,
    rule: Option<usize>,
    object: &mut ObjectName,
) -> Result<(), Failure> {
    let key = object.start();
    percent_decode(located.rest, limits::KEY_BYTES, key).map_err(Failure::Key)?;
    live.rewrite_rules.apply(key);
    if rule.is_some_and(|number| !live.rewrite_rules.apply_to_missing(number, key)) {
        return Err(Failure::NotFound);
    }
    located.mount.prepend_prefix(key).map_err(Failure::Key)?;
    if key.is_empty() {
        return Err(Failure::NoKey);
    }
    if located.mount.allow_version_id {
        object.read_version_id(located.query).map_err(Failure::VersionId)?;
    }
    Ok(())
}

/// Serves the object that `scratch` names.
async fn serve(
    context: &Context<'_>,
    mount: &Mount,
    client: &mut Connection,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    match context.request.method {
        Method::Head => head(context, mount, client, scratch).await,
        // Boxed while it lasts: its many states would otherwise be part of every idle connection.
        // One allocation, some tens of nanoseconds.
        _ => Box::pin(get(context, mount, client, scratch)).await,
    }
}

/// Serves the first object that exists under the names that the rules for missing keys offer.
async fn serve_other_name(
    context: &Context<'_>,
    located: &Located<'_>,
    client: &mut Connection,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    for rule in 0..context.live.rewrite_rules.for_missing() {
        // No object has a name that is not valid.
        if name_object(context.live, located, Some(rule), &mut scratch.object).is_err() {
            continue;
        }
        match serve(context, located.mount, client, scratch).await {
            Err(Failure::NotFound) => {}
            served => return served,
        }
    }
    Err(Failure::NotFound)
}
