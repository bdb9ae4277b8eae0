//! A request for an object, written and signed. Only GET and HEAD exist, so nothing else can
//! ever be sent.

use crate::clock;
use crate::http1::conditional::Preconditions;
use crate::http1::range::ByteRange;
use crate::s3::bucket::{Addressing, Bucket};
use crate::s3::sigv4::{EMPTY_PAYLOAD_SHA256, SignedParts, Signer, Timestamp, write_encoded_path};

/// What may be done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GetObject`.
    Get,
    /// `HeadObject`.
    Head,
}

impl Operation {
    fn method(self) -> &'static str {
        match self {
            Operation::Get => "GET",
            Operation::Head => "HEAD",
        }
    }
}

/// A request for one object of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRequest<'a> {
    /// What to do.
    pub operation: Operation,
    /// The key, as the bytes S3 stores it under.
    pub key: &'a str,
    /// `Range`.
    pub range: Option<ByteRange>,
    /// The conditions that S3 is asked to judge.
    pub conditions: Preconditions<'a>,
}

/// There are no credentials to sign with at the moment: none came yet, or the last have expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no valid credentials at the moment")]
pub struct NoCredentials;

/// Writes requests for one bucket, with the day's signing key kept.
pub struct RequestWriter {
    bucket: Bucket,
    /// The value of `Host`, without a default port, as every HTTP library sends it.
    host: String,
    signer: Signer,
}

impl RequestWriter {
    /// A writer for `bucket`.
    pub fn new(bucket: Bucket) -> RequestWriter {
        let host = match bucket.origin.port {
            80 => bucket.origin.to_string(),
            port => format!("{}:{port}", bucket.origin),
        };
        let signer = Signer::new(&bucket.region, "s3");
        RequestWriter { bucket, host, signer }
    }

    /// Appends the request's head to `out`, signed for this moment.
    ///
    /// # Errors
    /// Where it cannot be signed; what was appended is then not to be sent.
    pub fn write(
        &mut self,
        request: &ObjectRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), NoCredentials> {
        let method = request.operation.method();
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        let path_start = out.len();
        out.push(b'/');
        if self.bucket.addressing == Addressing::Path {
            write_encoded_path(self.bucket.name.as_bytes(), out);
            out.push(b'/');
        }
        write_encoded_path(request.key.as_bytes(), out);
        let path = path_start..out.len();
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(self.host.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(range) = request.range {
            out.extend_from_slice(b"Range: ");
            range.write(out);
            out.extend_from_slice(b"\r\n");
        }
        let conditions = &request.conditions;
        for (name, value) in [
            ("If-Match", conditions.if_match),
            ("If-None-Match", conditions.if_none_match),
            ("If-Modified-Since", conditions.if_modified_since),
            ("If-Unmodified-Since", conditions.if_unmodified_since),
        ] {
            if let Some(value) = value {
                write_field(out, name, value);
            }
        }
        self.write_authentication(method, path, out)?;
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The `x-amz-…` and `Authorization` fields; none for anonymous requests.
    fn write_authentication(
        &mut self,
        method: &str,
        path: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), NoCredentials> {
        let Some(source) = &self.bucket.credentials else { return Ok(()) };
        let now = clock::unix_seconds();
        let loaded = source.load();
        let current = loaded.as_deref().filter(|current| current.is_valid_at(now));
        let current = current.ok_or(NoCredentials)?;
        let credentials = &current.credentials;
        let time = Timestamp::new(now);
        let token = credentials.session_token.as_deref().unwrap_or_default().as_bytes();
        write_field(out, "x-amz-content-sha256", EMPTY_PAYLOAD_SHA256.as_bytes());
        write_field(out, "x-amz-date", time.as_bytes());
        let all: [(&str, &[u8]); 4] = [
            ("host", self.host.as_bytes()),
            ("x-amz-content-sha256", EMPTY_PAYLOAD_SHA256.as_bytes()),
            ("x-amz-date", time.as_bytes()),
            ("x-amz-security-token", token),
        ];
        let headers = if token.is_empty() { &all[..3] } else { &all };
        if !token.is_empty() {
            write_field(out, "x-amz-security-token", token);
        }
        out.extend_from_slice(b"Authorization: ");
        let payload_hash = EMPTY_PAYLOAD_SHA256;
        // The value goes behind the path in the same buffer, so it is signed first.
        let signature = {
            let parts = SignedParts { method, path: &out[path], query: "", headers, payload_hash };
            self.signer.sign(current, time, &parts)
        };
        self.signer.write_authorization(credentials, time, headers, &signature, out);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::s3::credentials::Credentials;
    use crate::s3::login::Login;
    use crate::s3::source::{Current, Source};
    use crate::upstream::Origin;

    fn bucket(addressing: Addressing, port: u16, signed: bool) -> Bucket {
        let credentials = Credentials {
            access_key_id: "AKID".to_owned(),
            secret_access_key: "SECRET".to_owned(),
            session_token: Some("TOKEN".to_owned()),
        };
        Bucket {
            name: "lab".to_owned(),
            region: "us-east-1".to_owned(),
            origin: Arc::new(Origin { host: "s3.example".to_owned(), port }),
            addressing,
            credentials: signed.then(|| Arc::new(Source::fixed(credentials))),
        }
    }

    fn write(bucket: Bucket, range: Option<ByteRange>) -> String {
        let request = ObjectRequest {
            operation: Operation::Get,
            key: "a b//c?acl",
            range,
            conditions: Preconditions { if_match: Some(b"\"e\""), ..Default::default() },
        };
        let mut out = Vec::new();
        RequestWriter::new(bucket).write(&request, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_valid_credentials_nothing_is_signed() {
        let mut bucket = bucket(Addressing::Path, 9000, true);
        let keys =
            bucket.credentials.as_ref().unwrap().load().as_ref().unwrap().credentials.clone();
        let source = Arc::new(Source::new(Login::Instance, None));
        bucket.credentials = Some(Arc::clone(&source));
        let mut writer = RequestWriter::new(bucket);
        let conditions = Preconditions::default();
        let request =
            ObjectRequest { operation: Operation::Get, key: "a", range: None, conditions };
        let mut write = || writer.write(&request, &mut Vec::new());
        assert_eq!(write(), Err(NoCredentials));
        source.publish(Current::new(keys.clone(), Some(clock::unix_seconds() + 60)));
        assert_eq!(write(), Ok(()));
        source.publish(Current::new(keys, Some(clock::unix_seconds())));
        assert_eq!(write(), Err(NoCredentials));
    }

    #[test]
    fn an_anonymous_request_is_plain() {
        let range = Some(ByteRange::From { first: 5 });
        assert_eq!(
            write(bucket(Addressing::Path, 9000, false), range),
            "GET /lab/a%20b//c%3Facl HTTP/1.1\r\nHost: s3.example:9000\r\nRange: bytes=5-\r\n\
             If-Match: \"e\"\r\n\r\n"
        );
    }

    #[test]
    fn a_signed_request_carries_token_and_signature() {
        let text = write(bucket(Addressing::Virtual, 80, true), None);
        assert!(text.starts_with("GET /a%20b//c%3Facl HTTP/1.1\r\nHost: s3.example\r\n"));
        assert!(text.contains("\r\nx-amz-security-token: TOKEN\r\n"));
        assert!(text.contains(
            "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature="
        ));
        assert!(text.ends_with("\r\n\r\n") && !text.contains("SECRET"));
    }
}
