//! The parameters that GET and HEAD requests for an object have in common: version, requester pays,
//! encryption key and preconditions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use s3s::dto::{GetObjectInput, HeadObjectInput, RequestPayer};
use s3s::{S3Result, s3_error};

use super::conditions::Conditions;

/// One request for an object.
pub(crate) struct ObjectRequest<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) version_id: Option<&'a str>,
    /// Whether the requester agrees to pay.
    pub(crate) requester_pays: bool,
    pub(crate) encryption: Encryption<'a>,
    pub(crate) conditions: Conditions<'a>,
}

/// `s3s` has an input type per method, with the same fields.
macro_rules! read_from {
    ($($input:ty),+) => {$(
        impl<'a> From<&'a $input> for ObjectRequest<'a> {
            fn from(input: &'a $input) -> ObjectRequest<'a> {
                ObjectRequest {
                    bucket: &input.bucket,
                    key: &input.key,
                    version_id: input.version_id.as_deref(),
                    requester_pays: agrees(input.request_payer.as_ref()),
                    encryption: Encryption {
                        algorithm: input.sse_customer_algorithm.as_deref(),
                        key: input.sse_customer_key.as_deref(),
                        md5: input.sse_customer_key_md5.as_deref(),
                    },
                    conditions: Conditions {
                        if_match: input.if_match.as_ref(),
                        if_none_match: input.if_none_match.as_ref(),
                        if_modified_since: input.if_modified_since.as_ref(),
                        if_unmodified_since: input.if_unmodified_since.as_ref(),
                    },
                }
            }
        }
    )+};
}

read_from!(GetObjectInput, HeadObjectInput);

fn agrees(payer: Option<&RequestPayer>) -> bool {
    payer.is_some_and(|payer| payer.as_str() == RequestPayer::REQUESTER)
}

/// The three SSE-C fields of a request.
pub(crate) struct Encryption<'a> {
    algorithm: Option<&'a str>,
    key: Option<&'a str>,
    md5: Option<&'a str>,
}

impl Encryption<'_> {
    /// Whether these fields allow reading an object that is encrypted with `stored`; the errors are
    /// those of the AWS documentation.
    pub(crate) fn check(&self, stored: Option<&[u8; 32]>) -> S3Result<()> {
        let (algorithm, key, md5) = match (self.algorithm, self.key, self.md5, stored) {
            (None, None, None, None) => return Ok(()),
            (None, None, None, Some(_)) => {
                return Err(s3_error!(
                    InvalidRequest,
                    "The object was stored using a form of Server Side Encryption. The correct \
                     parameters must be provided to retrieve the object."
                ));
            }
            (Some(algorithm), Some(key), Some(md5), _) => (algorithm, key, md5),
            _ => return Err(s3_error!(InvalidArgument, "A field about encryption is missing.")),
        };
        if algorithm != "AES256" {
            return Err(s3_error!(
                InvalidEncryptionAlgorithmError,
                "The algorithm must be AES256."
            ));
        }
        let bytes = STANDARD.decode(key).unwrap_or_default();
        if bytes.len() != 32 {
            return Err(s3_error!(
                InvalidArgument,
                "The secret key was invalid for the specified algorithm."
            ));
        }
        if STANDARD.encode(Md5::digest(&bytes)) != md5 {
            return Err(s3_error!(
                InvalidArgument,
                "The calculated MD5 hash of the key did not match the hash that was provided."
            ));
        }
        match stored {
            None => Err(s3_error!(
                InvalidRequest,
                "The encryption parameters are not applicable to this object."
            )),
            Some(stored) if bytes == stored => Ok(()),
            Some(_) => Err(s3_error!(AccessDenied, "Access Denied")),
        }
    }
}
