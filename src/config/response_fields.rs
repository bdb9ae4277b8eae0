//! The values of `cache_control`, `cors` and `genomic_suffixes`.

use crate::config::diagnostic::{Fault, quoted};
use crate::config::key::Reading;
use crate::config::values::{Kind, Word};
use crate::policy::cors::Policy;

/// Longest `cache_control`, in bytes. Realistic values have less than 100.
const CACHE_CONTROL_BYTES: usize = 256;

/// The `Cache-Control` of objects that are stored without one: a field value, or `off`.
pub(super) struct CacheControl;

impl Word<Option<String>> for CacheControl {
    fn parse(&self, text: &str) -> Result<Option<String>, Fault> {
        let text = text.trim_matches([' ', '\t']);
        if matches!(text, "off" | "false") {
            return Ok(None);
        }
        let help = "write directives such as 'no-cache' or 'max-age=60', or off";
        if text.is_empty() {
            return Err(Fault::new("is empty", help));
        }
        if text.len() > CACHE_CONTROL_BYTES {
            let problem = format!("is longer than {CACHE_CONTROL_BYTES} bytes");
            return Err(Fault::new(problem, help));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(Fault::new("has a character that is not allowed in a header field", help));
        }
        Ok(Some(text.to_owned()))
    }

    fn show(&self, value: &Option<String>) -> Option<String> {
        Some(value.clone().unwrap_or_else(|| "off".to_owned()))
    }
}

/// `'*'`, `off`, or a list of origins.
pub(super) struct Cors;

impl Kind<Policy> for Cors {
    fn read(&self, mut reading: Reading<'_>, into: &mut Policy) {
        let Some(words) = reading.list(origin) else { return };
        *into = match words.as_slice() {
            [Allowed::Any] => Policy::Any,
            [Allowed::None] | [] => Policy::Off,
            words => {
                let origins = words.iter().filter_map(|word| match word {
                    Allowed::Origin(origin) => Some(origin.clone()),
                    Allowed::Any | Allowed::None => None,
                });
                let origins: Vec<String> = origins.collect();
                if origins.len() < words.len() {
                    let help = "write '*', or off, or a list of origins";
                    reading.report(Fault::new("mixes '*' or off with other values", help));
                }
                Policy::Only(origins)
            }
        };
    }

    fn show(&self, value: &Policy) -> Option<String> {
        Some(match value {
            Policy::Any => "'*'".to_owned(),
            Policy::Off => "off".to_owned(),
            Policy::Only(origins) => format!("[{}]", origins.join(", ")),
        })
    }
}

/// Longest host with its port, in bytes: a DNS name has 253 at most (RFC 1035 §2.3.4).
const HOST_AND_PORT_BYTES: usize = 253 + ":65535".len();

/// One item of `cors`.
enum Allowed {
    Any,
    None,
    Origin(String),
}

/// Parses `'*'`, `off`, or an origin in the exact form that browsers send, since it is compared as
/// text: scheme, host, and port unless it is the scheme's default (RFC 6454 §7).
fn origin(text: &str) -> Result<Allowed, Fault> {
    match text {
        "*" => return Ok(Allowed::Any),
        "off" | "false" => return Ok(Allowed::None),
        _ => {}
    }
    let wrong = |problem: &str| Fault::new(problem, "write it as https://igv.org");
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(host) = host else {
        return Err(wrong(&format!("{} is not a web origin", quoted(text))));
    };
    if host.contains(['/', '?', '#', '@']) {
        return Err(wrong("an origin has no path, not even '/'"));
    }
    if host.len() > HOST_AND_PORT_BYTES {
        return Err(wrong(&format!("{} is longer than a host can be", quoted(text))));
    }
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*') {
        return Err(wrong(&format!("{} is not a web origin", quoted(text))));
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(wrong("browsers send origins in lower case"));
    }
    Ok(Allowed::Origin(text.to_owned()))
}

/// Suffixes of keys.
pub(super) struct Suffixes;

impl Kind<Vec<String>> for Suffixes {
    fn read(&self, mut reading: Reading<'_>, into: &mut Vec<String>) {
        if let Some(suffixes) = reading.list(suffix) {
            *into = suffixes;
        }
    }

    fn show(&self, value: &Vec<String>) -> Option<String> {
        Some(format!("[{}]", value.join(", ")))
    }
}

fn suffix(text: &str) -> Result<String, Fault> {
    if text.len() < 2 || !text.starts_with('.') || text.contains('/') {
        let problem = format!("{} is not a suffix", quoted(text));
        return Err(Fault::new(problem, "write it with its dot, as in .bam"));
    }
    Ok(text.to_owned())
}
