//! What browsers and genome viewers are told: CORS, caching, and the suffixes of compressed formats.

use crate::config::problem::{Fault, quoted};
use crate::config::reader::Reader;
use crate::policy::cors::Policy;

/// Names that say that the content is compressed by itself, or an index of such content; readers of
/// them break when a stored `Content-Encoding: gzip` makes their HTTP library decompress it on the
/// way.
const GENOMIC_SUFFIXES: [&str; 15] = [
    ".bam", ".cram", ".bcf", ".gz", ".bgz", ".bgzf", ".bai", ".csi", ".tbi", ".crai", ".gzi",
    ".fai", ".pbi", ".sbi", ".idx",
];

/// Longest `cache_control`, in bytes. Real values measure below 100.
const CACHE_CONTROL_BYTES: usize = 256;

/// What objects without a stored `Cache-Control` are sent with; `None` is nothing.
#[derive(Clone, Debug)]
pub(super) struct CacheControl(pub(super) Option<String>);

impl Default for CacheControl {
    /// Without it browsers invent a lifetime (RFC 9111 §4.2.2) and mix versions of an object.
    fn default() -> CacheControl {
        CacheControl(Some("no-cache".to_owned()))
    }
}

/// A field value, or `off`.
pub(super) fn cache_control(text: &str) -> Result<CacheControl, Fault> {
    let text = text.trim_matches([' ', '\t']);
    if matches!(text, "off" | "false") {
        return Ok(CacheControl(None));
    }
    let remedy = "write directives such as 'no-cache' or 'max-age=60', or off";
    if text.is_empty() {
        return Err(Fault::new("is empty", remedy));
    }
    if text.len() > CACHE_CONTROL_BYTES {
        let what = format!("is longer than {CACHE_CONTROL_BYTES} bytes");
        return Err(Fault::new(what, remedy));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(Fault::new("has a character that a header field cannot have", remedy));
    }
    Ok(CacheControl(Some(text.to_owned())))
}

/// `'*'`, `off`, or a list of origins.
pub(super) fn cors(reader: &mut Reader) -> Policy {
    let spot = reader.spot("cors");
    let (Some(spot), Some(words)) = (spot, reader.list("cors", origin)) else {
        return Policy::Any;
    };
    match words.as_slice() {
        [Word::Any] => Policy::Any,
        [Word::Off] => Policy::Off,
        // A list of no origins; also what is left where every item was wrong, and reported.
        [] => Policy::Off,
        words => {
            let origins = words.iter().filter_map(|word| match word {
                Word::Origin(origin) => Some(origin.clone()),
                Word::Any | Word::Off => None,
            });
            let origins: Vec<String> = origins.collect();
            if origins.len() < words.len() {
                let remedy = "write '*', or off, or a list of origins";
                reader.report(&spot, Fault::new("mixes '*' or off with other things", remedy));
            }
            Policy::Only(origins)
        }
    }
}

/// Longest host with its port, in bytes: a name of the DNS has 253 at most (RFC 1035 §2.3.4).
const HOST_AND_PORT_BYTES: usize = 253 + ":65535".len();

enum Word {
    Any,
    Off,
    Origin(String),
}

/// An origin as browsers send it: scheme, host, and port unless it is the scheme's own (RFC 6454
/// §7). It is compared as text, so it must be written just so.
fn origin(text: &str) -> Result<Word, Fault> {
    match text {
        "*" => return Ok(Word::Any),
        "off" | "false" => return Ok(Word::Off),
        _ => {}
    }
    let wrong = |what: &str| Fault::new(what, "write it as https://igv.org");
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(host) = host else {
        return Err(wrong(&format!("{} is not a web origin", quoted(text))));
    };
    if host.contains(['/', '?', '#', '@']) {
        return Err(wrong("an origin has no path behind its host, not even '/'"));
    }
    if host.len() > HOST_AND_PORT_BYTES {
        return Err(wrong(&format!("{} is longer than a host can be", quoted(text))));
    }
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*') {
        return Err(wrong(&format!("{} is not a web origin", quoted(text))));
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(wrong("browsers send origins in small letters"));
    }
    Ok(Word::Origin(text.to_owned()))
}

/// Suffixes of keys whose stored `Content-Encoding` is not passed on.
pub(super) fn genomic_suffixes(reader: &mut Reader) -> Vec<String> {
    reader
        .list("genomic_suffixes", suffix)
        .unwrap_or_else(|| GENOMIC_SUFFIXES.map(str::to_owned).to_vec())
}

fn suffix(text: &str) -> Result<String, Fault> {
    if text.len() < 2 || !text.starts_with('.') || text.contains('/') {
        let what = format!("{} is not a suffix", quoted(text));
        return Err(Fault::new(what, "write it with its dot, as in .bam"));
    }
    Ok(text.to_owned())
}
