//! AWS Signature Version 4 in the `Authorization` header.
//!
//! The signing key depends only on secret, day, region and service, so its HMAC state is cached for
//! the day; a signature then costs two SHA-256 passes over a few hundred bytes and no allocation.
//! (The aws-sigv4 crate derives the key anew and allocates for each; tests compare the signatures.)
//! See "Create a signed AWS API request" in the AWS IAM User Guide.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest, Sha256};

use crate::clock;
use crate::s3::credentials::Credentials;
use crate::s3::credentials::current::Current;

/// SHA-256 of the empty string, the payload hash of every request without a body.
pub const EMPTY_PAYLOAD_SHA256: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

type HmacSha256 = Hmac<Sha256>;

/// A time as SigV4 writes it: `20150830T123600Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp([u8; 16]);

impl Timestamp {
    /// The moment `unix_seconds` after 1970-01-01 UTC; one after the year 9999 is clamped.
    pub fn new(unix_seconds: u64) -> Timestamp {
        let utc = clock::utc(unix_seconds);
        let ((year, month, day), (hour, minute, second)) = (utc.to_calendar_date(), utc.as_hms());
        let mut text = *b"00000000T000000Z";
        for (at, width, mut value) in [
            (0, 4, year.unsigned_abs()),
            (4, 2, u32::from(u8::from(month))),
            (6, 2, u32::from(day)),
            (9, 2, u32::from(hour)),
            (11, 2, u32::from(minute)),
            (13, 2, u32::from(second)),
        ] {
            for position in (at..at + width).rev() {
                text[position] = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        Timestamp(text)
    }

    /// `20150830T123600Z`, the value of `x-amz-date`.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn day(&self) -> &[u8] {
        &self.0[..8]
    }
}

/// The parts of a request that are signed.
#[derive(Clone, Copy, Debug)]
pub struct SignedParts<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path, percent-encoded as it is sent. S3 signs it as is, without normalisation.
    pub path: &'a [u8],
    /// The canonical query string: sorted, encoded, without `?`.
    pub query: &'a [u8],
    /// The signed header fields: names in lower case and ascending order, values without white
    /// space around them. `host` and every `x-amz-…` field must be among them.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The hash of the payload, in hexadecimal, or `UNSIGNED-PAYLOAD`.
    pub payload_hash: &'a str,
}

/// Signs for one region and service, and caches the day's key.
pub struct Signer {
    region: String,
    service: &'static str,
    key: Option<SigningKey>,
}

struct SigningKey {
    day: [u8; 8],
    /// Of the credentials that it was derived from.
    generation: u64,
    state: HmacSha256,
}

impl Signer {
    /// A signer for `region`.
    pub fn new(region: &str, service: &'static str) -> Signer {
        Signer { region: region.to_owned(), service, key: None }
    }

    /// The signature of a request at a time, in hexadecimal.
    pub fn sign(
        &mut self,
        current: &Current,
        time: Timestamp,
        parts: &SignedParts<'_>,
    ) -> [u8; 64] {
        let request_hash = hex(&canonical_request_hash(parts));
        let mut mac = self.key(current, time);
        mac.update(ALGORITHM.as_bytes());
        mac.update(b"\n");
        mac.update(time.as_bytes());
        mac.update(b"\n");
        mac.update(time.day());
        for part in ["/", &self.region, "/", self.service, "/aws4_request\n"] {
            mac.update(part.as_bytes());
        }
        mac.update(&request_hash);
        hex(&mac.finalize().into_bytes())
    }

    /// Appends the value of an `Authorization` field to `out`; `headers` are those that
    /// `signature` covers.
    pub fn write_authorization(
        &self,
        credentials: &Credentials,
        time: Timestamp,
        headers: &[(&str, &[u8])],
        signature: &[u8; 64],
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(ALGORITHM.as_bytes());
        out.extend_from_slice(b" Credential=");
        out.extend_from_slice(credentials.access_key_id().as_bytes());
        out.push(b'/');
        out.extend_from_slice(time.day());
        for part in ["/", &self.region, "/", self.service, "/aws4_request, SignedHeaders="] {
            out.extend_from_slice(part.as_bytes());
        }
        for (index, (name, _)) in headers.iter().enumerate() {
            if index > 0 {
                out.push(b';');
            }
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(b", Signature=");
        out.extend_from_slice(signature);
    }

    /// The HMAC state under the day's key, derived anew when the day or the credentials have
    /// changed.
    fn key(&mut self, current: &Current, time: Timestamp) -> HmacSha256 {
        if let Some(key) = &self.key
            && key.day == *time.day()
            && key.generation == current.generation
        {
            return key.state.clone();
        }
        let mut secret = b"AWS4".to_vec();
        secret.extend_from_slice(current.credentials.secret_access_key().as_bytes());
        let day_key = hmac(&secret, time.day());
        let region_key = hmac(&day_key, self.region.as_bytes());
        let service_key = hmac(&region_key, self.service.as_bytes());
        let state = keyed(&hmac(&service_key, b"aws4_request"));
        let mut day = [0; 8];
        day.copy_from_slice(time.day());
        let generation = current.generation;
        self.key = Some(SigningKey { day, generation, state: state.clone() });
        state
    }
}

fn canonical_request_hash(parts: &SignedParts<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(parts.method);
    hash.update(b"\n");
    hash.update(parts.path);
    hash.update(b"\n");
    hash.update(parts.query);
    hash.update(b"\n");
    for (name, value) in parts.headers {
        hash.update(name);
        hash.update(b":");
        hash.update(value);
        hash.update(b"\n");
    }
    hash.update(b"\n");
    for (index, (name, _)) in parts.headers.iter().enumerate() {
        if index > 0 {
            hash.update(b";");
        }
        hash.update(name);
    }
    hash.update(b"\n");
    hash.update(parts.payload_hash);
    hash.finalize().into()
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length (RFC 2104 §2)")
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = keyed(key);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// The bytes that are encoded in a query: all but the unreserved characters of RFC 3986 §2.3.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The bytes that are encoded in a path.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Appends `key` percent-encoded as a URI path for S3: SigV4's `UriEncode` with `encodeSlash`
/// false.
pub fn write_encoded_path(key: &[u8], out: &mut Vec<u8>) {
    percent_encode(key, PATH).for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Appends the value of a query parameter in its canonical form, in which it is both sent and
/// signed: SigV4's `UriEncode`.
pub fn write_encoded_query_value(value: &[u8], out: &mut Vec<u8>) {
    percent_encode(value, QUERY).for_each(|part| out.extend_from_slice(part.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::credentials;

    /// The credentials of the examples in the Amazon S3 API Reference, "Authenticating Requests:
    /// Using the Authorization Header".
    fn documented() -> (Current, Timestamp) {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let credentials = credentials::fixed("AKIAIOSFODNN7EXAMPLE", secret, None);
        (Current::new(credentials), Timestamp::new(1_369_353_600))
    }

    #[test]
    fn times_are_written_as_sigv4_wants_them() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (u64::MAX, "99991231T235959Z"),
        ] {
            assert_eq!(Timestamp::new(seconds).as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn the_get_object_example_of_the_aws_documentation() {
        let (current, time) = documented();
        let parts = SignedParts {
            method: "GET",
            path: b"/test.txt",
            query: b"",
            headers: &[
                ("host", b"examplebucket.s3.amazonaws.com"),
                ("range", b"bytes=0-9"),
                ("x-amz-content-sha256", EMPTY_PAYLOAD_SHA256.as_bytes()),
                ("x-amz-date", time.as_bytes()),
            ],
            payload_hash: EMPTY_PAYLOAD_SHA256,
        };
        let mut authorization = Vec::new();
        let mut signer = Signer::new("us-east-1", "s3");
        let signature = signer.sign(&current, time, &parts);
        signer.write_authorization(
            &current.credentials,
            time,
            parts.headers,
            &signature,
            &mut authorization,
        );
        assert_eq!(
            String::from_utf8(authorization).unwrap(),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn the_query_examples_of_the_aws_documentation() {
        let (current, time) = documented();
        for (query, signature) in [
            ("lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            (
                "max-keys=2&prefix=J",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let parts = SignedParts {
                method: "GET",
                path: b"/",
                query: query.as_bytes(),
                headers: &[
                    ("host", b"examplebucket.s3.amazonaws.com"),
                    ("x-amz-content-sha256", EMPTY_PAYLOAD_SHA256.as_bytes()),
                    ("x-amz-date", time.as_bytes()),
                ],
                payload_hash: EMPTY_PAYLOAD_SHA256,
            };
            let signed = Signer::new("us-east-1", "s3").sign(&current, time, &parts);
            assert_eq!(signed, signature.as_bytes());
        }
    }

    #[test]
    fn a_new_day_or_a_new_set_gets_a_new_key() {
        let (_, time) = documented();
        let parts = SignedParts {
            method: "GET",
            path: b"/",
            query: b"",
            headers: &[("host", b"h")],
            payload_hash: EMPTY_PAYLOAD_SHA256,
        };
        let mut kept = Signer::new("us-east-1", "s3");
        let next_day = Timestamp::new(1_369_353_600 + 86_400);
        for (secret, time) in [("one", time), ("one", next_day), ("two", next_day), ("one", time)] {
            let current = Current::new(credentials::fixed("AKID", secret, None));
            let fresh = Signer::new("us-east-1", "s3").sign(&current, time, &parts);
            assert_eq!(kept.sign(&current, time, &parts), fresh);
            assert_eq!(kept.sign(&current, time, &parts), fresh);
        }
    }

    #[test]
    fn paths_keep_slashes_and_encode_all_but_the_unreserved() {
        let mut out = Vec::new();
        write_encoded_path("a//b/../c d+é%2F~".as_bytes(), &mut out);
        assert_eq!(out, b"a//b/../c%20d%2B%C3%A9%252F~");
        out.clear();
        write_encoded_query_value(b"a/b=c&d+~", &mut out);
        assert_eq!(out, b"a%2Fb%3Dc%26d%2B~");
    }
}
