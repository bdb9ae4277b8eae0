//! Cross-origin resource sharing, so that a genome browser on another site can read from this
//! server (Fetch Standard, "CORS protocol").

use crate::http1::request::CrossOrigin;

/// The web origins whose scripts may read responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `Access-Control-Allow-Origin: *` in every response; the default.
    Any,
    /// Only these origins (`https://igv.org`), each echoed with `Vary: Origin`.
    Only(Vec<String>),
    /// No CORS fields at all.
    Off,
}

const EXPOSED: &[u8] = b"Access-Control-Expose-Headers: \
    Content-Range, Content-Length, Content-Encoding, ETag, Accept-Ranges, Last-Modified, \
    Retry-After, x-amz-version-id\r\n";

/// Request fields that are allowed if the browser does not name any. `*` would not include
/// `Authorization`.
const ALLOWED_FIELDS: &[u8] = b"Authorization, Range, Cache-Control, If-Match, If-None-Match, \
    If-Modified-Since, If-Unmodified-Since, If-Range";

/// Longest list of request fields that is echoed, in bytes.
const ECHOED_BYTES: usize = 1024;

impl Policy {
    /// Appends the fields that belong to every response, errors included.
    pub fn write_fields(&self, request: &CrossOrigin<'_>, out: &mut Vec<u8>) {
        match self {
            Policy::Any => out.extend_from_slice(b"Access-Control-Allow-Origin: *\r\n"),
            Policy::Only(origins) => {
                out.extend_from_slice(b"Vary: Origin\r\n");
                let allowed = |origin: &&[u8]| origins.iter().any(|o| o.as_bytes() == *origin);
                let Some(origin) = request.origin.filter(allowed) else { return };
                out.extend_from_slice(b"Access-Control-Allow-Origin: ");
                out.extend_from_slice(origin);
                out.extend_from_slice(b"\r\n");
            }
            Policy::Off => return,
        }
        out.extend_from_slice(EXPOSED);
    }

    /// Appends the fields that belong only to the response to a preflight. All request fields that
    /// the browser names are allowed: a request can only read, whatever its fields are.
    pub fn write_preflight_fields(&self, request: &CrossOrigin<'_>, out: &mut Vec<u8>) {
        if *self == Policy::Off || request.request_method.is_none() {
            return;
        }
        out.extend_from_slice(b"Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\n");
        out.extend_from_slice(b"Access-Control-Allow-Headers: ");
        let requested = request.request_headers.filter(|names| is_list_of_names(names));
        out.extend_from_slice(requested.unwrap_or(ALLOWED_FIELDS));
        out.extend_from_slice(b"\r\nAccess-Control-Max-Age: 86400\r\n");
        if request.private_network {
            // Private Network Access: a public page reads from this machine or network.
            out.extend_from_slice(b"Access-Control-Allow-Private-Network: true\r\n");
        }
    }
}

fn is_list_of_names(value: &[u8]) -> bool {
    let is_part = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-_, ".contains(&byte);
    (1..=ECHOED_BYTES).contains(&value.len()) && value.iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(policy: &Policy, origin: &str) -> String {
        let request = CrossOrigin { origin: Some(origin.as_bytes()), ..CrossOrigin::default() };
        let mut out = Vec::new();
        policy.write_fields(&request, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn preflight(headers: Option<&[u8]>) -> String {
        let request = CrossOrigin {
            origin: Some(b"https://igv.org"),
            request_method: Some(b"GET"),
            request_headers: headers,
            private_network: true,
        };
        let mut out = Vec::new();
        Policy::Any.write_preflight_fields(&request, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn any_origin_may_read_by_default() {
        let fields = fields(&Policy::Any, "https://igv.org");
        assert!(fields.starts_with("Access-Control-Allow-Origin: *\r\n"));
        for exposed in ["Content-Range", "Content-Encoding", "ETag", "Retry-After"] {
            assert!(fields.contains(&format!(" {exposed},")), "{exposed}: {fields}");
        }
    }

    #[test]
    fn only_listed_origins_are_echoed() {
        let policy = Policy::Only(vec!["https://igv.org".to_owned()]);
        assert!(fields(&policy, "https://igv.org").contains("Allow-Origin: https://igv.org\r\n"));
        assert_eq!(fields(&policy, "https://evil.example"), "Vary: Origin\r\n");
        assert_eq!(fields(&Policy::Off, "https://igv.org"), "");
    }

    #[test]
    fn a_preflight_allows_the_fields_that_the_browser_names() {
        let allowed = preflight(Some(b"range,x-igv"));
        assert!(allowed.contains("Allow-Headers: range,x-igv\r\n"));
        assert!(allowed.contains("Allow-Private-Network: true\r\n"));
        assert!(preflight(None).contains("Allow-Headers: Authorization, Range,"));
        assert!(!preflight(Some(b"a\"b")).contains("a\"b"));
    }
}
