//! `sse_customer_key_file`: the key that a mount's objects are encrypted with. Nothing in this file
//! ever repeats a byte of it, nor the file's name, in whose place the key itself may stand.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::files::Files;
use crate::config::problem::{Fault, Problem, Spot};
use crate::config::reader::Reader;
use crate::config::values;
use crate::s3::sse_c::{CustomerKey, KEY_BYTES};

/// Largest key file that is read, in bytes: a key in base64 takes 44.
const FILE_BYTES: usize = 1024;

const KEY: &str = "sse_customer_key_file";

/// A key file that is named, and where.
pub(super) struct KeyFile {
    spot: Spot,
    path: PathBuf,
}

/// The key file of a mount or of the top level, if there is one.
pub(super) fn file(reader: &mut Reader) -> Option<KeyFile> {
    let spot = reader.spot(KEY);
    let path = reader.value(KEY, values::path)?;
    Some(KeyFile { spot: spot?, path })
}

impl KeyFile {
    /// The key in it. `None` if it is none, which has been reported then.
    pub(super) fn read(
        &self,
        files: Files,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<CustomerKey>> {
        let read = (files.read)(&self.path, FILE_BYTES).map_err(|error| {
            let remedy = "name a file that this program may read";
            Fault::new(format!("the file cannot be read: {error}"), remedy)
        });
        let key = read.and_then(|bytes| customer_key(&bytes));
        key.map(Arc::new).map_err(|fault| problems.push(self.spot.problem(fault))).ok()
    }
}

/// 32 bytes, or their base64 with or without a line end.
fn customer_key(content: &[u8]) -> Result<CustomerKey, Fault> {
    if let Ok(bytes) = content.try_into() {
        return Ok(CustomerKey::new(bytes));
    }
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let decoded = STANDARD.decode(line).ok();
    if let Some(bytes) = decoded.as_ref().and_then(|bytes| bytes.as_slice().try_into().ok()) {
        return Ok(CustomerKey::new(bytes));
    }
    let what = match decoded {
        _ if content.is_empty() => "the file is empty".to_owned(),
        _ if content.len() > FILE_BYTES => format!("the file has more than {FILE_BYTES} bytes"),
        _ if line.len() == KEY_BYTES => "the file has a line end behind its 32 bytes".to_owned(),
        Some(bytes) => format!("the file has the base64 of {} bytes", bytes.len()),
        None => format!("the file has {} bytes, which are no base64", content.len()),
    };
    Err(Fault::new(what, format!("it must hold the {KEY_BYTES} bytes of the key, or their base64")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Place;

    const BYTES: &[u8; 32] = b"01234567890123456789012345678901";
    const BASE64: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    #[test]
    fn a_key_is_32_bytes_or_their_base64() {
        let key = CustomerKey::new(BYTES);
        assert!(customer_key(BYTES) == Ok(key.clone()));
        for end in ["", "\n", "\r\n"] {
            assert!(customer_key(format!("{BASE64}{end}").as_bytes()) == Ok(key.clone()));
        }
        // Bytes that look like a line end belong to the key.
        let odd = *b"0123456789012345678901234567890\n";
        assert!(customer_key(&odd) == Ok(CustomerKey::new(&odd)));
    }

    #[test]
    fn what_is_no_key_is_described_and_not_shown() {
        for (content, part) in [
            (&b""[..], "the file is empty; it must hold the 32 bytes of the key"),
            (&BYTES[..31], "the file has 31 bytes, which are no base64"),
            (b"01234567890123456789012345678901\n", "a line end behind its 32 bytes; it must hold"),
            (b"MDEyMw==\n", "the base64 of 4 bytes"),
            (&BASE64.as_bytes()[..43], "the file has 43 bytes"),
            (b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n\n", "the file has 46 bytes"),
            (&[b'x'; FILE_BYTES + 1], "more than 1024 bytes"),
        ] {
            let fault = customer_key(content).expect_err(part);
            let said = Spot::new(Place::Flag, "").problem(fault).to_string();
            assert!(said.contains(part), "{said}");
            assert!(!said.contains("0123") && !said.contains("MDEy"), "{said}");
        }
    }
}
