//! `sse_customer_key_file`: the SSE-C key of a mount's objects. Diagnostics never contain the key,
//! nor the file's name, in whose place the key itself may have been written.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::diagnostic::{Diagnostic, Fault, Location};
use crate::config::files::Files;
use crate::s3::sse_c::{CustomerKey, KEY_BYTES};

/// Largest key file, in bytes. A key in base64 has 44.
const FILE_BYTES: usize = 1024;

/// Reads the key in the file `path`. `None` has been reported at `location`, where the file is
/// named.
pub(super) fn read(
    path: &Path,
    location: &Location,
    files: Files,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Arc<CustomerKey>> {
    let bytes = (files.read)(path, FILE_BYTES).map_err(|error| {
        let help = "name a file that this program may read";
        Fault::new(format!("the file cannot be read: {error}"), help)
    });
    let key = bytes.and_then(|bytes| customer_key(&bytes));
    key.map(Arc::new).map_err(|fault| diagnostics.push(location.diagnostic(fault))).ok()
}

/// Parses 32 bytes, or their base64 with an optional line end.
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
    let problem = match decoded {
        _ if content.is_empty() => "the file is empty".to_owned(),
        _ if content.len() > FILE_BYTES => format!("the file has more than {FILE_BYTES} bytes"),
        _ if line.len() == KEY_BYTES => "the file has a line end after its 32 bytes".to_owned(),
        Some(bytes) => format!("the file has the base64 of {} bytes", bytes.len()),
        None => format!("the file has {} bytes, which are not base64", content.len()),
    };
    Err(Fault::new(
        problem,
        format!("it must contain the {KEY_BYTES} bytes of the key, or their base64"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::Source;

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
    fn an_invalid_key_is_described_and_not_shown() {
        for (content, part) in [
            (&b""[..], "the file is empty; it must contain the 32 bytes of the key"),
            (&BYTES[..31], "the file has 31 bytes, which are not base64"),
            (
                b"01234567890123456789012345678901\n",
                "a line end after its 32 bytes; it must contain",
            ),
            (b"MDEyMw==\n", "the base64 of 4 bytes"),
            (&BASE64.as_bytes()[..43], "the file has 43 bytes"),
            (b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n\n", "the file has 46 bytes"),
            (&[b'x'; FILE_BYTES + 1], "more than 1024 bytes"),
        ] {
            let fault = customer_key(content).expect_err(part);
            let said = Location::new(Source::Flag, "").diagnostic(fault).to_string();
            assert!(said.contains(part), "{said}");
            assert!(!said.contains("0123") && !said.contains("MDEy"), "{said}");
        }
    }
}
