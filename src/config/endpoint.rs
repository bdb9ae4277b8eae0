//! `endpoint`: the URL of an S3 server.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::diagnostic::{Fault, quoted};
use crate::http1::target::percent_decode;
use crate::s3::sigv4::write_encoded_path;
use crate::upstream::Origin;

/// An S3 server other than AWS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) origin: Origin,
    /// Percent-encoded, without a slash at its end; usually empty.
    pub(super) path: String,
}

/// Longest path of an endpoint, in bytes.
const PATH_BYTES: usize = 512;

/// Parses `http://host[:port][/path]` or `https://host[:port][/path]`.
pub(super) fn server(text: &str) -> Result<Server, Fault> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    // Checked before anything is quoted, since there may be a password before the '@'.
    if rest.contains('@') {
        let help = "put credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        return Err(Fault::new("contains '@'", help));
    }
    let tls = scheme.eq_ignore_ascii_case("https");
    if !tls && !scheme.eq_ignore_ascii_case("http") {
        let problem = format!("{} is not an http:// or https:// URL", quoted(text));
        return Err(Fault::new(problem, "write it as https://host or http://host:9000"));
    }
    // Not quoted: a query may contain a signature.
    if let Some(mark) = rest.find(['?', '#']) {
        let name = if rest[mark..].starts_with('?') { "a query" } else { "a fragment" };
        let help = "write a host and a port, and a path if S3 is not at the root of the server";
        return Err(Fault::new(format!("contains {name}"), help));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let origin = host_and_port(authority, tls).ok_or_else(|| {
        let problem = format!("{} has no valid host and port", quoted(text));
        Fault::new(problem, "write it as https://host or http://host:9000")
    })?;
    let path = base_path(path).ok_or_else(|| {
        let problem = format!("{} has an invalid path", quoted(text));
        Fault::new(problem, "write a plain path such as https://host/storage/v1/s3")
    })?;
    Ok(Server { origin, path })
}

/// The path of an endpoint, with the percent-encoding of SigV4, so that it is sent exactly as it is
/// signed. `None` if it has empty or dot segments, which a server in between could remove.
fn base_path(path: &str) -> Option<String> {
    let mut encoded = Vec::new();
    let path = path.strip_suffix('/').unwrap_or(path);
    for part in path.split('/').skip(1) {
        let mut decoded = String::new();
        percent_decode(part, PATH_BYTES, &mut decoded).ok()?;
        let is_invalid = |c: char| c == '/' || c.is_control();
        if matches!(decoded.as_str(), "" | "." | "..") || decoded.chars().any(is_invalid) {
            return None;
        }
        encoded.push(b'/');
        write_encoded_path(decoded.as_bytes(), &mut encoded);
    }
    String::from_utf8(encoded).ok().filter(|path| path.len() <= PATH_BYTES)
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port` (RFC 3986 §3.2.2).
pub(super) fn host_and_port(authority: &str, tls: bool) -> Option<Origin> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, port)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed);
        (named.then_some(host)?, port)
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() && tls => 443,
        None if port.is_empty() => 80,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    (port != 0).then(|| Origin { tls, host: host.to_ascii_lowercase(), port })
}

/// Checks that a bucket's name can be put before the endpoint's host name.
pub(super) fn allows_virtual(endpoint: &Origin) -> Result<(), Fault> {
    if endpoint.host.parse::<IpAddr>().is_ok() {
        return Err(Fault::new(
            "'addressing: virtual' puts the bucket before the endpoint's host name, but the \
             endpoint is an IP address",
            "write 'addressing: path'",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Location, Source};

    fn say<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        Location::new(Source::Flag, "").diagnostic(result.unwrap_err()).to_string()
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for (text, tls, host, port) in [
            ("http://minio:9000", false, "minio", 9000),
            ("http://minio/", false, "minio", 80),
            ("HTTP://S3.Example.ORG", false, "s3.example.org", 80),
            ("http://10.0.0.1:9000/", false, "10.0.0.1", 9000),
            ("http://[::1]:9000", false, "::1", 9000),
            ("http://[fd00::1]", false, "fd00::1", 80),
            ("https://minio", true, "minio", 443),
            ("HTTPS://[::1]:9000/", true, "::1", 9000),
        ] {
            let origin = Origin { tls, host: host.to_owned(), port };
            assert_eq!(server(text).unwrap(), Server { origin, path: String::new() }, "{text}");
        }
    }

    #[test]
    fn an_endpoint_may_have_a_path() {
        for (text, path) in [
            ("https://x.supabase.co/storage/v1/s3", "/storage/v1/s3"),
            ("https://x.supabase.co/storage/v1/s3/", "/storage/v1/s3"),
            ("http://minio:9000/lab", "/lab"),
            ("http://[::1]:9000/a%20b/%7Ec/\u{e9}+", "/a%20b/~c/%C3%A9%2B"),
        ] {
            assert_eq!(server(text).unwrap().path, path, "{text}");
        }
        for text in [
            "http://m//",
            "http://m/a//b",
            "http://m/a/../b",
            "http://m/./a",
            "http://m/a%2Fb",
            "http://m/%2e%2e/a",
            "http://m/a%",
            "http://m/%zz",
            "http://m/a%00",
            "http://m/a%0Ab",
            "http://m/%ff",
            &format!("http://m/{}", "x".repeat(513)),
        ] {
            assert!(say(server(text)).contains("an invalid path"), "{text}");
        }
    }

    #[test]
    fn an_invalid_endpoint_is_rejected() {
        for (text, part) in [
            ("minio:9000", "is not an http:// or https:// URL"),
            ("ftp://minio", "is not an http:// or https:// URL"),
            ("http://minio?x", "contains a query"),
            ("http://minio/a?x", "contains a query"),
            ("http://minio/#x", "contains a fragment"),
            ("http://", "no valid host"),
            ("http://:9000", "no valid host"),
            ("http://minio:", "no valid host"),
            ("http://minio:0", "no valid host"),
            ("http://minio:+80", "no valid host"),
            ("http://minio:65536", "no valid host"),
            ("http://::1:9000", "no valid host"),
            ("http://[::1", "no valid host"),
            ("http://[::1]9000", "no valid host"),
            ("http://[minio]:9000", "no valid host"),
        ] {
            let said = say(server(text));
            assert!(said.contains(part), "{text}: {said}");
        }
        for text in ["http://user:hush@minio", "http://m/?X-Amz-Signature=hush", "http://u:hu/sh@m"]
        {
            assert!(!say(server(text)).contains("hu"), "{text}");
        }
    }

    #[test]
    fn virtual_addressing_needs_a_host_name() {
        let at = |host: &str| Origin { tls: false, host: host.to_owned(), port: 9000 };
        assert!(allows_virtual(&at("minio")).is_ok());
        assert!(say(allows_virtual(&at("::1"))).contains("IP address"));
        assert!(say(allows_virtual(&at("10.0.0.1"))).contains("addressing: path"));
    }
}
