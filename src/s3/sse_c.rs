//! A customer key: S3 decrypts objects with it and does not store it (Amazon S3 User Guide, "Using
//! server-side encryption with customer-provided keys", SSE-C).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// Length of a key, in bytes: AES-256 is the only algorithm that S3 supports for it.
pub(crate) const KEY_BYTES: usize = 32;

/// A customer key, as it is sent with each request. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct CustomerKey {
    /// In base64.
    key: String,
    /// The MD5 of the key's bytes in base64, by which S3 detects transmission errors.
    md5: String,
}

impl CustomerKey {
    /// The key with these bytes.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> CustomerKey {
        CustomerKey { key: STANDARD.encode(bytes), md5: STANDARD.encode(Md5::digest(bytes)) }
    }

    /// The header fields that carry it, with names in lower case and in ascending order.
    pub fn fields(&self) -> [(&'static str, &str); 3] {
        [
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
            ("x-amz-server-side-encryption-customer-key", &self.key),
            ("x-amz-server-side-encryption-customer-key-md5", &self.md5),
        ]
    }
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomerKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_md5_are_written_as_s3_wants_them() {
        // As printed by `base64` and by `openssl dgst -md5 -binary | base64`.
        let fields =
            CustomerKey::new(b"01234567890123456789012345678901").fields().map(|(name, value)| {
                assert_eq!(name, name.to_ascii_lowercase());
                value.to_owned()
            });
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        assert_eq!(fields, ["AES256", key, "KYvwGXoFFJ42a2u2GDWhwQ=="]);
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", CustomerKey::new(&[7; 32])), "CustomerKey { .. }");
    }
}
