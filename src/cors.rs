//! Cross-origin resource sharing, so that a genome browser on one site may read from this one.

/// Which web origins may read through a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `Access-Control-Allow-Origin: *` on every answer; the default.
    Any,
    /// Only these origins (`https://igv.org`), each echoed with `Vary: Origin`.
    Only(Vec<String>),
    /// No CORS fields at all.
    Off,
}
