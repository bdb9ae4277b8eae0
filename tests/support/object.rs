//! The objects of the memory store: given bytes, or synthetic ones of any size that take no memory.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use s3s::dto::Timestamp;
use sha2::{Digest, Sha256};

/// Modification time of every object: 2024-02-29 12:30:45 UTC.
pub(crate) const LAST_MODIFIED: &str = "Thu, 29 Feb 2024 12:30:45 GMT";

/// Length of the pattern that synthetic objects repeat. It is prime, so that no shift by a power
/// of two, which is how offsets go wrong, maps the pattern onto itself.
const PATTERN_BYTES: usize = 1_048_573;

/// One object.
#[derive(Clone)]
pub(crate) struct Object {
    content: Content,
    /// Without quotation marks.
    pub(crate) e_tag: String,
    pub(crate) content_type: String,
    pub(crate) content_encoding: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) content_disposition: Option<String>,
    /// The version id in the store.
    pub(crate) version_id: Option<String>,
    /// The customer-provided key that it is encrypted with (SSE-C).
    pub(crate) customer_key: Option<[u8; 32]>,
}

#[derive(Clone)]
enum Content {
    Stored(Bytes),
    /// This many bytes of the repeated pattern, starting at byte `shift`.
    Synthetic {
        size: u64,
        shift: u64,
    },
}

impl Object {
    /// An object with these bytes.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Object {
        let bytes = Bytes::from(bytes.into());
        let e_tag = hex_digest(&bytes);
        Object::with(Content::Stored(bytes), e_tag)
    }

    /// An object of any size that takes no memory; [`synthetic_bytes`] returns its bytes.
    pub(crate) fn synthetic(size: u64) -> Object {
        Object::synthetic_from(0, size)
    }

    /// The same with the bytes of an unshifted object from byte `shift` on.
    pub(crate) fn synthetic_from(shift: u64, size: u64) -> Object {
        let e_tag = hex_digest(&[size.to_be_bytes(), shift.to_be_bytes()].concat());
        Object::with(Content::Synthetic { size, shift }, e_tag)
    }

    fn with(content: Content, e_tag: String) -> Object {
        Object {
            content,
            e_tag,
            content_type: "application/octet-stream".to_owned(),
            content_encoding: None,
            cache_control: None,
            content_disposition: None,
            version_id: None,
            customer_key: None,
        }
    }

    pub(crate) fn with_content_type(self, value: &str) -> Object {
        Object { content_type: value.to_owned(), ..self }
    }

    pub(crate) fn with_content_encoding(self, value: &str) -> Object {
        Object { content_encoding: Some(value.to_owned()), ..self }
    }

    pub(crate) fn with_cache_control(self, value: &str) -> Object {
        Object { cache_control: Some(value.to_owned()), ..self }
    }

    pub(crate) fn with_content_disposition(self, value: &str) -> Object {
        Object { content_disposition: Some(value.to_owned()), ..self }
    }

    pub(crate) fn encrypted_with(self, key: [u8; 32]) -> Object {
        Object { customer_key: Some(key), ..self }
    }

    /// The entity tag as in a header field, with quotation marks.
    pub(crate) fn quoted_e_tag(&self) -> String {
        format!("\"{}\"", self.e_tag)
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        match &self.content {
            Content::Stored(bytes) => bytes.len() as u64,
            Content::Synthetic { size, .. } => *size,
        }
    }

    /// Bytes from `start`, at most `most`.
    pub(crate) fn piece(&self, start: u64, most: u64) -> Bytes {
        let end = (start + most).min(self.size());
        match &self.content {
            Content::Stored(bytes) => bytes.slice(start as usize..end as usize),
            Content::Synthetic { shift, .. } => {
                let pattern = pattern();
                let from = ((start + shift) % PATTERN_BYTES as u64) as usize;
                let to = PATTERN_BYTES.min(from + (end - start) as usize);
                pattern.slice(from..to)
            }
        }
    }
}

/// The `Last-Modified` of every object.
pub(crate) fn last_modified() -> Timestamp {
    let time = httpdate::parse_http_date(LAST_MODIFIED).expect("a valid date");
    Timestamp::from(time)
}

impl<T: Into<Vec<u8>>> From<T> for Object {
    fn from(bytes: T) -> Object {
        Object::new(bytes)
    }
}

/// The bytes `start..start + length` of every synthetic object that is not shifted.
pub(crate) fn synthetic_bytes(start: u64, length: usize) -> Vec<u8> {
    let pattern = pattern();
    let from = (start % PATTERN_BYTES as u64) as usize;
    pattern.iter().copied().cycle().skip(from).take(length).collect()
}

fn pattern() -> Bytes {
    static PATTERN: Mutex<Option<Bytes>> = Mutex::new(None);
    let mut pattern = PATTERN.lock().unwrap_or_else(PoisonError::into_inner);
    let made = pattern.get_or_insert_with(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        Bytes::from((0..PATTERN_BYTES).map(|_| next()).collect::<Vec<u8>>())
    });
    made.clone()
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
