//! Conditional requests (RFC 9110 §13): entity tags, dates, and their order of precedence.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// The validators of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validators<'a> {
    /// The entity tag, quotation marks included.
    pub etag: Option<&'a [u8]>,
    /// `Last-Modified` in seconds since 1970.
    pub last_modified: Option<u64>,
}

/// The preconditions of a request, except `If-Range`, as field values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preconditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a [u8]>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a [u8]>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a [u8]>,
}

/// The result of evaluating preconditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Respond as if there were no conditions.
    Proceed,
    /// Respond with 304.
    NotModified,
    /// Respond with 412.
    PreconditionFailed,
}

impl<'a> Preconditions<'a> {
    /// Whether there are no conditions.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none()
            && self.if_none_match.is_none()
            && self.if_modified_since.is_none()
            && self.if_unmodified_since.is_none()
    }

    /// Evaluates the conditions of a GET or HEAD for an existing object, in the order of RFC 9110
    /// §13.2.2.
    pub fn evaluate(&self, object: Validators<'_>) -> Verdict {
        match (self.if_match, self.if_unmodified_since.and_then(http_date)) {
            (Some(list), _) if !matches_strongly(list, object.etag) => {
                return Verdict::PreconditionFailed;
            }
            (None, Some(date)) if object.last_modified.is_some_and(|time| time > date) => {
                return Verdict::PreconditionFailed;
            }
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since.and_then(http_date)) {
            (Some(list), _) if matches_weakly(list, object.etag) => Verdict::NotModified,
            (None, Some(date)) if object.last_modified.is_some_and(|time| time <= date) => {
                Verdict::NotModified
            }
            _ => Verdict::Proceed,
        }
    }

    /// The conditions that can be forwarded to any S3 server. Lists, weak tags and `*` are not: S3
    /// documents a single entity tag. If S3 sends a 200 or 206, all conditions are evaluated
    /// against it with [`evaluate`](Self::evaluate).
    pub fn for_s3(&self) -> Preconditions<'a> {
        let date = |value: Option<&'a [u8]>| value.filter(|&value| http_date(value).is_some());
        Preconditions {
            if_match: self.if_match.filter(|&value| is_tag_for_s3(value)),
            if_none_match: self.if_none_match.filter(|&value| is_tag_for_s3(value)),
            // A tag takes precedence over its date, whether or not the tag is forwarded.
            if_modified_since: date(self.if_modified_since)
                .filter(|_| self.if_none_match.is_none()),
            if_unmodified_since: date(self.if_unmodified_since).filter(|_| self.if_match.is_none()),
        }
    }

    /// Whether [`for_s3`](Self::for_s3) forwards all of them. If it does not, a 304 or 416 of S3
    /// may be wrong, because a condition that was not forwarded may take precedence (RFC 9110
    /// §13.2.2): the object's metadata is then needed before the GET. `If-Match: *` is true for any
    /// object.
    pub fn are_for_s3(&self) -> bool {
        self.if_match.is_none_or(|value| value == b"*" || is_tag_for_s3(value))
            && self.if_none_match.is_none_or(is_tag_for_s3)
    }
}

/// Longest entity tag that is forwarded to S3, in bytes. S3's own have 34 to about 70. S3 rejects a
/// request head of more than 8 KiB, which would look like a failure of S3.
const TAG_BYTES: usize = 256;

fn is_tag_for_s3(value: &[u8]) -> bool {
    value.len() <= TAG_BYTES && single_strong_tag(value) && value.iter().all(u8::is_ascii_graphic)
}

/// An entity tag from S3 in the syntax of RFC 9110 §8.8.3: adds the quotation marks that some
/// servers omit. `None` if it is empty or malformed.
pub fn entity_tag(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (prefix, opaque) = match value.strip_prefix(b"W/") {
        Some(opaque) => (&b"W/"[..], opaque),
        None => (&b""[..], value),
    };
    let quoted = opaque.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let inner = quoted.unwrap_or(opaque);
    // etagc: visible ASCII characters except the quotation mark, and bytes from 0x80 on.
    if inner.is_empty() || !inner.iter().all(|&byte| byte > b' ' && byte != b'"' && byte != 0x7f) {
        return None;
    }
    Some(match quoted {
        Some(_) => Cow::Borrowed(value),
        None => Cow::Owned([prefix, b"\"", inner, b"\""].concat()),
    })
}

/// The value of `If-Range` (RFC 9110 §13.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfRange<'a> {
    /// A strong entity tag, quotation marks included.
    Tag(&'a [u8]),
    /// A date in seconds since 1970.
    Date(u64),
    /// A weak tag or an invalid value: never true.
    Never,
}

impl<'a> IfRange<'a> {
    pub(crate) fn parse(value: &'a [u8]) -> IfRange<'a> {
        if single_strong_tag(value) {
            return IfRange::Tag(value);
        }
        http_date(value).map_or(IfRange::Never, IfRange::Date)
    }

    /// Whether the condition is true, so that the range applies: the tag is the object's own, or
    /// the date is exactly its `Last-Modified`.
    pub(crate) fn is_true(self, object: Validators<'_>) -> bool {
        match self {
            IfRange::Tag(tag) => object.etag == Some(tag),
            IfRange::Date(date) => object.last_modified == Some(date),
            IfRange::Never => false,
        }
    }
}

/// An HTTP date in any of the three forms of RFC 9110 §5.6.7, in seconds since 1970. `None` for
/// anything else, so that the condition is ignored (RFC 9110 §13.1.3).
pub(crate) fn http_date(value: &[u8]) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// `If-Match`: `*`, or the list contains the object's tag, by strong comparison (RFC 9110
/// §8.8.3.2).
fn matches_strongly(list: &[u8], etag: Option<&[u8]>) -> bool {
    list == b"*" || tags(list).any(|tag| Some(tag) == etag && tag.first() == Some(&b'"'))
}

/// `If-None-Match`: `*`, or the list contains the object's tag, by weak comparison (RFC 9110
/// §8.8.3.2).
fn matches_weakly(list: &[u8], etag: Option<&[u8]>) -> bool {
    let opaque = |tag| <[u8]>::strip_prefix(tag, b"W/").unwrap_or(tag);
    list == b"*" || etag.is_some_and(|etag| tags(list).any(|tag| opaque(tag) == opaque(etag)))
}

fn single_strong_tag(value: &[u8]) -> bool {
    value.first() == Some(&b'"') && tags(value).next() == Some(value)
}

/// The entity tags in a list, weak ones with their `W/`. A tag may contain commas. Iteration ends
/// at the first syntax error.
fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let skipped = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b',')).count();
        rest = &rest[skipped..];
        let opening = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(opening) != Some(&b'"') {
            return None;
        }
        let closing = opening + 1 + memchr::memchr(b'"', &rest[opening + 1..])?;
        let (tag, after) = rest.split_at(closing + 1);
        rest = after;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &[u8] = b"Tue, 24 Nov 2026 12:00:00 GMT";
    const LATER: &[u8] = b"Tue, 24 Nov 2026 12:00:01 GMT";
    const EARLIER: &[u8] = b"Tue, 24 Nov 2026 11:59:59 GMT";

    fn object() -> Validators<'static> {
        Validators { etag: Some(b"\"a,b\""), last_modified: http_date(NOON) }
    }

    fn evaluate(preconditions: Preconditions<'_>) -> Verdict {
        preconditions.evaluate(object())
    }

    #[test]
    fn if_none_match_compares_weakly_and_allows_commas_in_tags() {
        for value in [&b"\"a,b\""[..], b"W/\"a,b\"", b"\"x\", \"a,b\"", b"*", b" , \"a,b\""] {
            let conditions = Preconditions { if_none_match: Some(value), ..Default::default() };
            assert_eq!(evaluate(conditions), Verdict::NotModified);
        }
        for value in [&b"\"a\""[..], b"a,b", b"\"a,b", b""] {
            let conditions = Preconditions { if_none_match: Some(value), ..Default::default() };
            assert_eq!(evaluate(conditions), Verdict::Proceed);
        }
    }

    #[test]
    fn if_match_compares_strongly() {
        for value in [&b"\"a,b\""[..], b"\"x\",\"a,b\"", b"*"] {
            let conditions = Preconditions { if_match: Some(value), ..Default::default() };
            assert_eq!(evaluate(conditions), Verdict::Proceed);
        }
        for value in [&b"W/\"a,b\""[..], b"\"x\"", b""] {
            let conditions = Preconditions { if_match: Some(value), ..Default::default() };
            assert_eq!(evaluate(conditions), Verdict::PreconditionFailed);
        }
    }

    #[test]
    fn dates_are_compared_to_the_second() {
        let since = |if_modified_since| Preconditions { if_modified_since, ..Default::default() };
        assert_eq!(evaluate(since(Some(NOON))), Verdict::NotModified);
        assert_eq!(evaluate(since(Some(EARLIER))), Verdict::Proceed);
        assert_eq!(evaluate(since(Some(b"yesterday"))), Verdict::Proceed);

        let until =
            |if_unmodified_since| Preconditions { if_unmodified_since, ..Default::default() };
        assert_eq!(evaluate(until(Some(NOON))), Verdict::Proceed);
        assert_eq!(evaluate(until(Some(EARLIER))), Verdict::PreconditionFailed);
    }

    #[test]
    fn a_tag_takes_precedence_over_its_date() {
        let changed_by_date_not_by_tag = Preconditions {
            if_none_match: Some(b"\"a,b\""),
            if_modified_since: Some(EARLIER),
            ..Default::default()
        };
        assert_eq!(evaluate(changed_by_date_not_by_tag), Verdict::NotModified);
        let other_tag = Preconditions {
            if_none_match: Some(b"\"x\""),
            if_modified_since: Some(LATER),
            ..Default::default()
        };
        assert_eq!(evaluate(other_tag), Verdict::Proceed);
        let same_tag_old_date = Preconditions {
            if_match: Some(b"\"a,b\""),
            if_unmodified_since: Some(EARLIER),
            ..Default::default()
        };
        assert_eq!(evaluate(same_tag_old_date), Verdict::Proceed);
    }

    #[test]
    fn a_false_if_match_takes_precedence_over_if_none_match() {
        let both = Preconditions {
            if_match: Some(b"\"x\""),
            if_none_match: Some(b"\"a,b\""),
            ..Default::default()
        };
        assert_eq!(evaluate(both), Verdict::PreconditionFailed);
    }

    #[test]
    fn if_range_needs_a_strong_tag_or_the_exact_date() {
        assert!(IfRange::parse(b"\"a,b\"").is_true(object()));
        assert!(IfRange::parse(NOON).is_true(object()));
        assert!(!IfRange::parse(b"W/\"a,b\"").is_true(object()));
        assert!(!IfRange::parse(LATER).is_true(object()));
        assert!(!IfRange::parse(b"\"a,b\", \"x\"").is_true(object()));
    }

    #[test]
    fn missing_quotation_marks_are_added_and_invalid_tags_dropped() {
        let tag = |value: &'static [u8]| entity_tag(value).map(Cow::into_owned);
        for (value, expected) in [
            (&b"\"a\""[..], &b"\"a\""[..]),
            (b"a", b"\"a\""),
            (b"W/\"a\"", b"W/\"a\""),
            (b"W/a", b"W/\"a\""),
            (b"\"a-1\"", b"\"a-1\""),
            (b"\"\xe9\"", b"\"\xe9\""),
        ] {
            assert_eq!(tag(value).as_deref(), Some(expected));
        }
        for value in [
            &b""[..],
            b"\"\"",
            b"W/\"\"",
            b"W/",
            b"\"",
            b"\"a",
            b"a\"",
            b"\"a\"b\"",
            b"a b",
            b"\x7f",
        ] {
            assert_eq!(tag(value), None, "{:?}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn conditions_that_s3_may_not_support_are_not_forwarded() {
        let none_match = |value| Preconditions { if_none_match: Some(value), ..Default::default() };
        let matches = |value| Preconditions { if_match: Some(value), ..Default::default() };
        let long = [b"\"", &b"x".repeat(9_000)[..], b"\""].concat();
        for value in [&b"\"a\", \"b\""[..], b"W/\"a\"", b"a", b"\"a b\"", b"\"\xe9\"", &long] {
            for conditions in [none_match(value), matches(value)] {
                assert!(!conditions.are_for_s3() && conditions.for_s3().is_empty());
            }
        }
        assert!(!none_match(b"*").are_for_s3());
        assert!(matches(b"*").are_for_s3() && matches(b"*").for_s3().is_empty());
        assert!(none_match(b"\"a\"").are_for_s3() && Preconditions::default().are_for_s3());
    }

    #[test]
    fn dates_are_not_forwarded_beside_a_tag() {
        let conditions = Preconditions {
            if_match: Some(b"\"a\", \"b\""),
            if_none_match: Some(b"\"a\""),
            if_modified_since: Some(NOON),
            if_unmodified_since: Some(NOON),
        };
        let sent = conditions.for_s3();
        assert_eq!(sent.if_match, None);
        assert_eq!(sent.if_none_match, Some(&b"\"a\""[..]));
        assert_eq!(sent.if_modified_since, None);
        assert_eq!(sent.if_unmodified_since, None);
    }
}
