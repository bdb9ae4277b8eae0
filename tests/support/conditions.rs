//! Preconditions as S3 evaluates them.

use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};

use super::object::{Object, last_modified};

/// The preconditions of one request.
#[expect(clippy::struct_field_names, reason = "the names of the header fields")]
#[derive(Clone, Copy)]
pub(crate) struct Conditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
}

#[derive(PartialEq, Eq)]
pub(crate) enum Verdict {
    Serve,
    NotModified,
}

impl Conditions<'_> {
    /// Evaluates them in the order of RFC 9110 §13.2.2. An error is 412.
    pub(crate) fn verdict(self, object: &Object) -> S3Result<Verdict> {
        let matches = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(e_tag) => e_tag.value() == object.e_tag,
        };
        let failed = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => !matches(condition),
            (None, Some(since)) => last_modified() > *since,
            (None, None) => false,
        };
        if failed {
            return Err(s3_error!(PreconditionFailed));
        }
        let not_modified = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => matches(condition),
            (None, Some(since)) => last_modified() <= *since,
            (None, None) => false,
        };
        Ok(if not_modified { Verdict::NotModified } else { Verdict::Serve })
    }
}
