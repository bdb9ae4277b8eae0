//! A request for an object, written and signed. There is only GET and HEAD, so nothing that writes
//! can ever be sent.

use std::ops::Range;
use std::sync::Arc;

use crate::s3::bucket::Bucket;
use crate::s3::endpoint::Location;
use crate::s3::request::{NoCredentials, ObjectRequest, Signed};
use crate::s3::sigv4::{
    EMPTY_PAYLOAD_SHA256, SignedParts, Signer, Timestamp, write_encoded_path,
    write_encoded_query_value,
};
use crate::upstream::proxy::HttpProxy;

/// Writes requests for one bucket. It caches the day's signing key.
pub struct RequestWriter {
    bucket: Arc<Bucket>,
    location: Arc<Location>,
    /// The value of `Host`.
    host: String,
    /// Set if an HTTP proxy forwards the requests.
    forwarding: Option<Forwarding>,
    /// See [`decompresses_by_default`].
    accepts_gzip: bool,
    signer: Signer,
}

/// Whether a server decompresses objects stored as gzip unless `Accept-Encoding` says otherwise,
/// and then knows neither their length nor ranges (Google Cloud Storage, "Transcoding of
/// gzip-compressed files"). No other server is sent the field, since it might compress.
fn decompresses_by_default(host: &str) -> bool {
    let google = host.strip_suffix("storage.googleapis.com");
    google.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// How a request is written for a proxy (RFC 9112 §3.2.2).
struct Forwarding {
    /// `http://host:port`, before the path.
    prefix: String,
    /// A field for the proxy itself, line end included; may be empty.
    field: String,
}

impl RequestWriter {
    /// A writer for `bucket` at its current location.
    pub fn new(bucket: Arc<Bucket>) -> RequestWriter {
        let location = Arc::clone(&bucket.location());
        RequestWriter {
            host: location.origin.authority(),
            forwarding: None,
            accepts_gzip: decompresses_by_default(&location.origin.host),
            signer: Signer::new(&location.region, "s3"),
            location,
            bucket,
        }
    }

    /// Writes requests for a proxy to forward. The signature does not change.
    pub fn forwarded_by(mut self, proxy: Option<&HttpProxy>) -> RequestWriter {
        self.forwarding = proxy.map(|proxy| {
            let value = proxy.authorization.as_ref();
            let field = value.map(|value| format!("Proxy-Authorization: {value}\r\n"));
            let prefix = self.location.origin.to_string();
            Forwarding { prefix, field: field.unwrap_or_default() }
        });
        self
    }

    /// The location that the requests are written for.
    pub fn location(&self) -> &Arc<Location> {
        &self.location
    }

    /// Checks that a request could be signed now, before a connection is taken for it.
    ///
    /// # Errors
    /// If it could not.
    pub fn check_credentials(&self) -> Result<(), NoCredentials> {
        let Some(handle) = &self.bucket.credentials else { return Ok(()) };
        let current = handle.load();
        let is_usable = current.as_ref().is_some_and(|set| set.is_usable(self.bucket.clock()));
        if is_usable { Ok(()) } else { Err(NoCredentials) }
    }

    /// Appends the request's head to `out`, signed for this moment.
    ///
    /// # Errors
    /// If it cannot be signed. What was appended must then not be sent.
    pub fn write(
        &mut self,
        request: &ObjectRequest<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Signed, NoCredentials> {
        let method = request.operation.method();
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        if let Some(forwarding) = &self.forwarding {
            out.extend_from_slice(forwarding.prefix.as_bytes());
        }
        let path_start = out.len();
        out.extend_from_slice(self.bucket.base_path.as_bytes());
        out.push(b'/');
        if self.location.name_in_path {
            write_encoded_path(self.bucket.name.as_bytes(), out);
            out.push(b'/');
        }
        write_encoded_path(request.key.as_bytes(), out);
        let path = path_start..out.len();
        let mut query = path.end..path.end;
        if let Some(version_id) = request.version_id {
            out.push(b'?');
            query.start = out.len();
            out.extend_from_slice(b"versionId=");
            write_encoded_query_value(version_id.as_bytes(), out);
            query.end = out.len();
        }
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(self.host.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(forwarding) = &self.forwarding {
            out.extend_from_slice(forwarding.field.as_bytes());
        }
        if self.accepts_gzip {
            out.extend_from_slice(b"Accept-Encoding: gzip\r\n");
        }
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
        let signed = self.write_authentication(method, path, query, out)?;
        out.extend_from_slice(b"\r\n");
        Ok(signed)
    }

    /// The `x-amz-…` and `Authorization` fields; for anonymous requests only a customer key.
    /// `path` and `query` are ranges of `out`.
    fn write_authentication(
        &mut self,
        method: &str,
        path: Range<usize>,
        query: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<Signed, NoCredentials> {
        let customer_key = self.bucket.customer_key.as_ref().map(|key| key.fields());
        let customer_key = customer_key.iter().flatten();
        let Some(handle) = &self.bucket.credentials else {
            customer_key.for_each(|(name, value)| write_field(out, name, value.as_bytes()));
            return Ok(Signed::default());
        };
        let clock = self.bucket.clock();
        let loaded = handle.load();
        let current = loaded.as_deref().filter(|current| current.is_usable(clock));
        let current = current.ok_or(NoCredentials)?;
        let credentials = &current.credentials;
        let signed = Signed { at: clock.seconds(), generation: current.generation };
        let time = Timestamp::new(signed.at);
        let token = credentials.session_token().unwrap_or_default().as_bytes();
        // In ascending order of their names, as SigV4 requires.
        let mut headers = HeaderList::default();
        headers.push("host", self.host.as_bytes());
        headers.push("x-amz-content-sha256", EMPTY_PAYLOAD_SHA256.as_bytes());
        headers.push("x-amz-date", time.as_bytes());
        if self.bucket.requester_pays {
            headers.push("x-amz-request-payer", b"requester");
        }
        if !token.is_empty() {
            headers.push("x-amz-security-token", token);
        }
        customer_key.for_each(|(name, value)| headers.push(name, value.as_bytes()));
        let headers = headers.as_slice();
        // All but Host, which has been written.
        headers[1..].iter().for_each(|(name, value)| write_field(out, name, value));
        out.extend_from_slice(b"Authorization: ");
        let payload_hash = EMPTY_PAYLOAD_SHA256;
        // The signature covers a part of the buffer that it is appended to, so it is made first.
        let signature = {
            let (path, query) = (&out[path], &out[query]);
            let parts = SignedParts { method, path, query, headers, payload_hash };
            self.signer.sign(current, time, &parts)
        };
        self.signer.write_authorization(credentials, time, headers, &signature, out);
        out.extend_from_slice(b"\r\n");
        Ok(signed)
    }
}

/// The signed header fields of one request, on the stack: `host`, four of the protocol and three
/// of a customer key at most.
#[derive(Default)]
struct HeaderList<'a> {
    headers: [(&'a str, &'a [u8]); 8],
    count: usize,
}

impl<'a> HeaderList<'a> {
    fn push(&mut self, name: &'a str, value: &'a [u8]) {
        debug_assert!(self.as_slice().last().is_none_or(|(last, _)| *last < name));
        self.headers[self.count] = (name, value);
        self.count += 1;
    }

    fn as_slice(&self) -> &[(&'a str, &'a [u8])] {
        &self.headers[..self.count]
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
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::clock;
    use crate::http1::conditional::Preconditions;
    use crate::http1::range::ByteRange;
    use crate::s3::credentials::current::Current;
    use crate::s3::credentials::handle::CredentialsHandle;
    use crate::s3::credentials::login::Login;
    use crate::s3::credentials::{self, Credentials};
    use crate::s3::endpoint::{Addressing, Endpoint};
    use crate::s3::request::Operation;
    use crate::s3::sse_c::CustomerKey;
    use crate::upstream::Origin;

    fn bucket(addressing: Addressing, port: u16, signed: bool) -> Bucket {
        let credentials = credentials::fixed("AKID", "SECRET", Some("TOKEN".to_owned()));
        let origin = Origin { tls: false, host: "s3.example".to_owned(), port };
        let endpoint = Endpoint::At(Arc::new(origin));
        let credentials = signed.then(|| Arc::new(CredentialsHandle::fixed(credentials)));
        Bucket::new("lab".to_owned(), "us-east-1", endpoint, addressing, credentials)
    }

    fn write(bucket: Bucket, range: Option<ByteRange>) -> String {
        write_version(bucket, None, range)
    }

    fn write_version(bucket: Bucket, version_id: Option<&str>, range: Option<ByteRange>) -> String {
        let request = ObjectRequest {
            operation: Operation::Get,
            key: "a b//c?acl",
            version_id,
            range,
            conditions: Preconditions { if_match: Some(b"\"e\""), ..Default::default() },
            leave_body_in_socket: false,
        };
        let mut out = Vec::new();
        RequestWriter::new(Arc::new(bucket)).write(&request, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_valid_credentials_nothing_is_signed() {
        let mut bucket = bucket(Addressing::Path, 9000, true);
        let expiring = |at: u64| {
            let expiry = UNIX_EPOCH + Duration::from_secs(at);
            Current::new(Credentials::new("AKID", "SECRET", None, Some(expiry), "test"))
        };
        let handle = Arc::new(CredentialsHandle::new(Login::Instance, None));
        bucket.credentials = Some(Arc::clone(&handle));
        let mut writer = RequestWriter::new(Arc::new(bucket));
        let conditions = Preconditions::default();
        let request = ObjectRequest {
            operation: Operation::Get,
            key: "a",
            version_id: None,
            range: None,
            conditions,
            leave_body_in_socket: false,
        };
        let mut write = || writer.write(&request, &mut Vec::new()).map(|_| ());
        assert_eq!(write(), Err(NoCredentials));
        handle.publish(expiring(clock::unix_seconds() + 60));
        assert_eq!(write(), Ok(()));
        handle.publish(expiring(clock::unix_seconds()));
        assert_eq!(write(), Err(NoCredentials));
    }

    #[test]
    fn only_google_is_sent_accept_encoding_which_is_not_signed() {
        let at = |host: &str| {
            let origin = Arc::new(Origin { tls: true, host: host.to_owned(), port: 443 });
            let mut bucket = bucket(Addressing::Path, 80, true);
            bucket = Bucket::new(
                bucket.name,
                "auto",
                Endpoint::At(origin),
                Addressing::Path,
                bucket.credentials,
            );
            write(bucket, None)
        };
        for host in ["storage.googleapis.com", "lab.storage.googleapis.com"] {
            let text = at(host);
            assert!(text.contains("\r\nAccept-Encoding: gzip\r\n"), "{text}");
            assert!(!text.to_lowercase().contains("signedheaders=accept"), "{text}");
        }
        for host in ["xstorage.googleapis.com", "storage.googleapis.com.evil", "minio"] {
            assert!(!at(host).contains("Accept-Encoding"), "{host}");
        }
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
    fn the_path_of_the_endpoint_comes_first_and_is_signed() {
        let signature = |text: &str| text.split("Signature=").nth(1).map(str::to_owned);
        for (addressing, path) in [
            (Addressing::Path, "/storage/v1/s3/lab/a%20b//c%3Facl"),
            (Addressing::Virtual, "/storage/v1/s3/a%20b//c%3Facl"),
        ] {
            let mut below = bucket(addressing, 80, true);
            below.base_path = "/storage/v1/s3".to_owned();
            let text = write(below, None);
            assert!(text.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{text}");
            let plain = write(bucket(addressing, 80, true), None);
            assert_ne!(signature(&text), signature(&plain));
        }
    }

    #[test]
    fn a_signed_request_carries_token_and_signature() {
        let text = write(bucket(Addressing::Virtual, 80, true), None);
        assert!(text.starts_with("GET /a%20b//c%3Facl HTTP/1.1\r\nHost: lab.s3.example\r\n"));
        assert!(text.contains("\r\nx-amz-security-token: TOKEN\r\n"));
        assert!(text.contains(
            "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature="
        ));
        assert!(text.ends_with("\r\n\r\n") && !text.contains("SECRET"));
    }

    #[test]
    fn a_version_is_the_only_query_that_is_ever_sent() {
        let text = write_version(bucket(Addressing::Path, 80, false), Some("a/b=&c"), None);
        assert!(text.starts_with("GET /lab/a%20b//c%3Facl?versionId=a%2Fb%3D%26c HTTP/1.1\r\n"));
        let text = write(bucket(Addressing::Path, 80, true), None);
        assert!(!text.contains('?'));
    }

    #[test]
    fn all_amz_fields_are_signed_in_order() {
        let mut bucket = bucket(Addressing::Path, 80, true);
        bucket.requester_pays = true;
        bucket.customer_key = Some(Arc::new(CustomerKey::new(&[7; 32])));
        let text = write(bucket, None);
        let sent: Vec<&str> = text
            .lines()
            .filter_map(|line| Some(line.split_once(": ")?.0))
            .filter(|name| name.starts_with("x-amz-"))
            .collect();
        assert_eq!(sent.len(), 7, "{text}");
        assert!(sent.is_sorted());
        assert!(text.contains(&format!("SignedHeaders=host;{}, Signature=", sent.join(";"))));
        assert!(text.contains("\r\nx-amz-request-payer: requester\r\n"));
    }

    #[test]
    fn an_anonymous_request_carries_a_customer_key_and_nothing_else() {
        let mut bucket = bucket(Addressing::Path, 80, false);
        bucket.customer_key = Some(Arc::new(CustomerKey::new(&[7; 32])));
        let text = write(bucket, None);
        assert_eq!(text.matches("x-amz-server-side-encryption-customer-").count(), 3, "{text}");
        assert_eq!(text.matches("x-amz-").count(), 3, "{text}");
        assert!(!text.contains("Authorization"));
    }
}
