//! What is known of an object without its bytes: remembered, or asked of S3 once for all who want it.

use std::rc::Rc;
use std::time::Instant;

use crate::cache::flight::Turn;
use crate::cache::metadata::Known;
use crate::http1::conditional::{Preconditions, Verdict};
use crate::http1::range::ByteRange;
use crate::s3::client::{BucketId, Reply};
use crate::s3::error::Kind;
use crate::s3::name::ObjectName;
use crate::s3::object::Metadata;
use crate::s3::request::{ObjectRequest, Operation};
use crate::server::answer::Failure;
use crate::server::core::{Core, Scratch};
use crate::server::explain::{describe, explain};

/// 200 or 304, or the failure 412.
pub fn judge(conditions: &Preconditions<'_>, metadata: &Metadata) -> Result<u16, Failure> {
    match conditions.evaluate(metadata.validators()) {
        Verdict::Proceed => Ok(200),
        Verdict::NotModified => Ok(304),
        Verdict::PreconditionFailed => Err(Failure::PreconditionFailed),
    }
}

/// What the core remembers of an object, a remembered failure included.
pub fn recall(
    core: &Core,
    bucket: BucketId,
    object: &ObjectName,
) -> Option<Result<Rc<Metadata>, Failure>> {
    let known = core.metadata.borrow_mut().get(bucket, object.as_str(), Instant::now())?;
    Some(existing(known))
}

fn existing(known: Known) -> Result<Rc<Metadata>, Failure> {
    match known {
        Known::Object(metadata) => Ok(metadata),
        Known::NotFound => Err(Failure::NotFound),
        Known::AccessDenied => Err(Failure::AccessDenied),
    }
}

/// An object's metadata from memory or, asked once for all who want it, from S3.
pub async fn known_object(
    core: &Core,
    bucket: BucketId,
    scratch: &mut Scratch,
) -> Result<Rc<Metadata>, Failure> {
    if let Some(known) = recall(core, bucket, &scratch.object) {
        return known;
    }
    let asked = match core.flights.join(bucket, scratch.object.as_str()).await {
        Turn::Landed(answer) => answer.unwrap_or(Err(Failure::BadAnswer)),
        Turn::Lead(lead) => {
            let answer = ask_for_metadata(core, bucket, scratch).await;
            lead.land(answer.clone());
            answer
        }
    };
    existing(asked?)
}

async fn ask_for_metadata(
    core: &Core,
    bucket: BucketId,
    scratch: &mut Scratch,
) -> Result<Known, Failure> {
    let asked = Instant::now();
    let Scratch { object, metadata, .. } = scratch;
    let mut operation = Operation::Head;
    loop {
        // A HEAD's refusal has no body and so no reason; one byte of the object has either.
        let range = match operation {
            Operation::Head => None,
            Operation::Get => Some(ByteRange::Closed { first: 0, last: 0 }),
        };
        let conditions = Preconditions::default();
        let (key, version_id) = (object.key(), object.version_id());
        let s3_request = ObjectRequest { operation, key, version_id, range, conditions };
        let error = match core.s3.send(bucket, &s3_request).await.map_err(|e| describe(&e))? {
            Reply::Object(answer) => {
                let shown = core.shown(bucket, object);
                // No condition was sent, so a 304 is nonsense.
                let complete = answer.head().status != 304
                    && metadata.read(answer.head(), answer.head_bytes(), shown);
                answer.dismiss().await;
                if !complete {
                    log::warn!("S3 does not say how large {object:?} is");
                    return Err(Failure::BadAnswer);
                }
                core.metadata.borrow_mut().learn_object(bucket, object.as_str(), metadata, asked);
                return Ok(Known::Object(Rc::new(metadata.clone())));
            }
            Reply::Refused(error) => error,
        };
        if error.kind() == Kind::Unexplained && operation == Operation::Head {
            operation = Operation::Get;
            continue;
        }
        return match explain(core, bucket, object, &error, asked) {
            Failure::NotFound => Ok(Known::NotFound),
            Failure::AccessDenied => Ok(Known::AccessDenied),
            failure => Err(failure),
        };
    }
}
