//! `Cache-Control` in requests: how old cached metadata may be (RFC 9111 §5.2.1). Only `no-cache`
//! and `max-age` have an effect; `no-cache` counts as `max-age=0`.

/// Collects the `Cache-Control` and `Pragma` fields of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CacheControl {
    is_given: bool,
    no_cache_by_pragma: bool,
    max_age_s: Option<u32>,
}

impl CacheControl {
    /// Reads a `Cache-Control` field; there may be several.
    pub(crate) fn cache_control(&mut self, value: &[u8]) {
        self.is_given = true;
        for directive in value.split(|&byte| byte == b',') {
            let mut parts = directive.splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let limit = if name.eq_ignore_ascii_case(b"no-cache") {
                0
            } else if name.eq_ignore_ascii_case(b"max-age") {
                seconds(parts.next().unwrap_or_default())
            } else {
                continue;
            };
            self.max_age_s = Some(self.max_age_s.map_or(limit, |other| other.min(limit)));
        }
    }

    /// Reads a `Pragma` field, which is ignored if there is a `Cache-Control` (RFC 9111 §5.4).
    pub(crate) fn pragma(&mut self, value: &[u8]) {
        let is_no_cache = |item: &[u8]| item.trim_ascii().eq_ignore_ascii_case(b"no-cache");
        self.no_cache_by_pragma |= value.split(|&byte| byte == b',').any(is_no_cache);
    }

    /// The greatest accepted age in seconds; `None` accepts any.
    pub(crate) fn max_age_s(&self) -> Option<u32> {
        match self.is_given {
            true => self.max_age_s,
            false => self.no_cache_by_pragma.then_some(0),
        }
    }
}

/// An age, with or without quotation marks (RFC 9111 §5.2). An invalid one is read as 0 (§4.2.1).
fn seconds(value: &[u8]) -> u32 {
    let value = value.trim_ascii();
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    let digits = inner.unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    digits
        .iter()
        .fold(0, |age: u32, digit| age.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max_age(fields: &[&str], pragma: &[&str]) -> Option<u32> {
        let mut control = CacheControl::default();
        for value in fields {
            control.cache_control(value.as_bytes());
        }
        for value in pragma {
            control.pragma(value.as_bytes());
        }
        control.max_age_s()
    }

    #[test]
    fn the_strictest_directive_counts_in_any_notation() {
        for fields in [
            &["no-cache"][..],
            &["No-Cache"],
            &["max-age=0"],
            &["MAX-AGE = 0"],
            &["max-age=\"0\""],
            &["no-store,no-cache"],
            &["no-store", "no-cache"],
            &["max-age=600,\t no-cache ,max-stale"],
            &["no-cache=\"x\""],
            &["max-age"],
            &["max-age=-1"],
            &["max-age=x"],
        ] {
            assert_eq!(max_age(fields, &[]), Some(0), "{fields:?}");
        }
        assert_eq!(max_age(&["max-age=60", "max-age=30"], &[]), Some(30));
        assert_eq!(max_age(&["max-age=99999999999999999999"], &[]), Some(u32::MAX));
    }

    #[test]
    fn other_directives_are_ignored() {
        for fields in
            [&[][..], &[""], &["no-store"], &["max-stale"], &["no-cachet"], &["x=no-cache"]]
        {
            assert_eq!(max_age(fields, &[]), None, "{fields:?}");
        }
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert_eq!(max_age(&[], &["no-cache"]), Some(0));
        assert_eq!(max_age(&[], &["x, NO-CACHE"]), Some(0));
        assert_eq!(max_age(&[], &["x"]), None);
        assert_eq!(max_age(&["max-age=30"], &["no-cache"]), Some(30));
        assert_eq!(max_age(&["no-store"], &["no-cache"]), None);
    }
}
