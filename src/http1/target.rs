//! The request target (RFC 9112 §3.2): splitting into path and query, and percent-decoding.

use crate::http1::authority;

/// A request target, split but not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Origin-form, or absolute-form without its scheme and authority.
    Resource {
        /// The path, starting with `/`, still percent-encoded.
        path: &'a str,
        /// The query without its `?`; empty if there is none.
        query: &'a str,
    },
    /// Asterisk-form, as in `OPTIONS *`.
    Asterisk,
}

impl<'a> Target<'a> {
    /// Splits a request target. `None` if it is not in origin-form, absolute-form with an http or
    /// https URL, or asterisk-form, or if it has a fragment, which clients must not send.
    pub fn parse(target: &'a str) -> Option<Target<'a>> {
        if target == "*" {
            return Some(Target::Asterisk);
        }
        if memchr::memchr(b'#', target.as_bytes()).is_some() {
            return None;
        }
        let resource = if target.starts_with('/') { target } else { after_authority(target)? };
        let (path, query) = resource.split_once('?').unwrap_or((resource, ""));
        Some(Target::Resource { path: if path.is_empty() { "/" } else { path }, query })
    }
}

/// Path and query of a target in absolute-form, which servers must accept (RFC 9112 §3.2.2).
fn after_authority(target: &str) -> Option<&str> {
    let scheme_end = ["http://", "https://"].into_iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(scheme.len())
    })?;
    let rest = &target[scheme_end..];
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    // An http URI without a host is invalid (RFC 9110 §4.2.1).
    let authority = &rest.as_bytes()[..authority_end];
    (!authority.is_empty() && authority::is_valid(authority)).then(|| &rest[authority_end..])
}

/// Why a path cannot be decoded to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// `%` is not followed by two hexadecimal digits.
    #[error("'%' in the path is not followed by two hexadecimal digits")]
    PercentSign,
    /// The decoded bytes are not UTF-8, as S3 requires of keys.
    #[error("the path is not UTF-8")]
    Utf8,
    /// `%00`: no S3 server stores such keys, and some software ends a string there.
    #[error("the path contains a NUL byte")]
    Nul,
    /// Longer than the limit, which is [`limits::KEY_BYTES`](crate::limits::KEY_BYTES) for keys.
    #[error("the key is longer than 1024 bytes")]
    TooLong,
}

/// Percent-decodes `path` once and appends the result to `out`. Nothing is normalised: `+` remains
/// a plus, `%2F` becomes a slash like any other, and `//`, `.` and `..` are kept.
///
/// # Errors
/// See [`DecodeError`]; `limit` is the number of bytes that may be appended. The content of `out` is then
/// unspecified.
pub fn percent_decode(path: &str, limit: usize, out: &mut String) -> Result<(), DecodeError> {
    let mut bytes = std::mem::take(out).into_bytes();
    append_decoded(path.as_bytes(), limit, &mut bytes)?;
    *out = String::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
    Ok(())
}

fn append_decoded(path: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let end = out.len() + limit;
    let mut rest = path;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..percent]);
        let byte = match rest.get(percent + 1..percent + 3) {
            Some([high, low]) => hex_pair(*high, *low),
            _ => None,
        };
        match byte.ok_or(DecodeError::PercentSign)? {
            0 => return Err(DecodeError::Nul),
            byte => out.push(byte),
        }
        rest = &rest[percent + 3..];
        if out.len() > end {
            return Err(DecodeError::TooLong);
        }
    }
    out.extend_from_slice(rest);
    if out.len() > end { Err(DecodeError::TooLong) } else { Ok(()) }
}

/// The byte that two hexadecimal digits stand for.
pub(crate) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(path: &str) -> Result<String, DecodeError> {
        let mut out = String::from("prefix/");
        percent_decode(path, 1024, &mut out)?;
        Ok(out.strip_prefix("prefix/").unwrap().to_owned())
    }

    #[test]
    fn a_target_is_split_at_its_first_question_mark() {
        let resource = |path, query| Some(Target::Resource { path, query });
        assert_eq!(Target::parse("/files/a?b?c"), resource("/files/a", "b?c"));
        assert_eq!(Target::parse("http://h:5000/files/a?x"), resource("/files/a", "x"));
        assert_eq!(Target::parse("HTTP://h"), resource("/", ""));
        assert_eq!(Target::parse("http://h?q"), resource("/", "q"));
        assert_eq!(Target::parse("*"), Some(Target::Asterisk));
    }

    #[test]
    fn other_forms_of_target_are_rejected() {
        for target in [
            "",
            "files/a",
            "h:443",
            "ftp://h/a",
            "http:///a",
            "/a#b",
            "**",
            "http://u@h/a",
            "http://u:p@h/a",
            "http://h:9000:80/a",
            "http://:80/a",
            "http://[::1/a",
            "http://h x/a",
        ] {
            assert_eq!(Target::parse(target), None, "{target}");
        }
    }

    #[test]
    fn decoding_happens_once_and_normalises_nothing() {
        assert_eq!(decode("a+b%20c%2Fd%2fe%252F").as_deref(), Ok("a+b c/d/e%2F"));
        assert_eq!(decode("a//b/./c/../d/").as_deref(), Ok("a//b/./c/../d/"));
        assert_eq!(decode("%C3%A9e%CC%81é🧬").as_deref(), Ok("ée\u{301}é🧬"));
        assert_eq!(decode("%01%7F").as_deref(), Ok("\u{1}\u{7f}"));
    }

    #[test]
    fn an_invalid_path_is_rejected() {
        for (path, error) in [
            ("%", DecodeError::PercentSign),
            ("%4", DecodeError::PercentSign),
            ("%zz", DecodeError::PercentSign),
            ("%+1", DecodeError::PercentSign),
            ("a%00b", DecodeError::Nul),
            ("%FF", DecodeError::Utf8),
            ("%C3", DecodeError::Utf8),
        ] {
            assert_eq!(decode(path), Err(error), "{path}");
        }
        assert_eq!(decode(&"k".repeat(1025)), Err(DecodeError::TooLong));
        assert_eq!(decode(&"%6B".repeat(1025)), Err(DecodeError::TooLong));
        assert_eq!(decode(&"%6B".repeat(1024)).unwrap().len(), 1024);
    }
}
