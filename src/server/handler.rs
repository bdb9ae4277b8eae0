//! The steps of a request, from its parsed head to the end of the response.
//!
//! [`respond`] has them in order: find the mount, respond to OPTIONS, build the object's name, and
//! serve the object with [`head`] or [`get`]. Each step may end the request with a [`Failure`],
//! which becomes the response. Authorization by mount and peer belongs after OPTIONS, since
//! browsers send preflights without credentials, and before the object's name.
//!
//! # The cost of a request
//!
//! In steady state, on kept-alive connections. With io_uring, an operation is an entry of a queue
//! that all connections submit together; with epoll it is a system call, and one more if it finds
//! nothing to receive. `tests/request_allocations.rs` counts the allocations.
//!
//! | | HEAD, cache hit | GET of up to 64 KiB | GET that is spliced |
//! |---|---|---|---|
//! | operations | receive, send | receive, send to S3, receive, send | the same, and a wait whenever S3 or the client is not ready |
//! | other system calls | – | peek at the pooled connection | the peek; two `splice(2)` per wait |
//! | allocations | 0 | 1 (the boxed future) | 1 |
//! | bytes copied here | the head, once | the client's head, in front of the body where S3's was | the same |
//! | bytes copied by the kernel | the head | head and body, in and out | the bytes received with S3's head |

use std::sync::Arc;

use crate::http1::request::Method;
use crate::http1::target::{Target, percent_decode};
use crate::limits;
use crate::policy::route::{Mount, NoRoute, route};
use crate::s3::object_name::ObjectName;
use crate::server::context::Context;
use crate::server::failure::Failure;
use crate::server::live::Live;
use crate::server::object::{get, head};
use crate::server::response::Outcome;
use crate::server::worker::Scratch;
use crate::transport::Connection;

/// Serves one request. A failure becomes an error response.
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

/// A request target, split at the mount that it belongs to.
pub(crate) struct Located<'a> {
    pub mount: &'a Arc<Mount>,
    /// The rest of the path, still percent-encoded.
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

/// Writes the object's name to `object`: decodes the key once, applies the rewrite rules and, if a
/// `rule` for missing keys is given by its number, that rule, and prepends the mount's prefix.
///
/// # Errors
/// Failures of keys and version ids; [`Failure::NotFound`] if `rule` does not match the key.
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
        // Boxed, or its state would be part of every idle connection. One allocation costs some
        // tens of nanoseconds.
        _ => Box::pin(get(context, mount, client, scratch)).await,
    }
}

/// Tries the keys of the rewrite rules for missing keys, and serves the first object that exists.
async fn serve_other_name(
    context: &Context<'_>,
    located: &Located<'_>,
    client: &mut Connection,
    scratch: &mut Scratch,
) -> Result<Outcome, Failure> {
    for rule in 0..context.live.rewrite_rules.for_missing() {
        // The rule does not match, or its key is invalid and so no object has it.
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
