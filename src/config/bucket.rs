//! Where a bucket is: its name, the prefix in it, its region, and the endpoint that serves it.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::problem::{Fault, quoted};
use crate::http1::target::percent_decode;
use crate::limits;
use crate::s3::endpoint::{is_aws_region, is_region};
use crate::s3::sigv4::write_encoded_path;
use crate::upstream::Origin;

/// A bucket, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// As it goes into requests.
    pub(super) name: String,
    /// The region that the ARN of an access point names.
    pub(super) access_point_in: Option<String>,
}

/// Endings that AWS keeps for what is asked in other ways (Amazon S3 User Guide, "General purpose
/// bucket naming rules").
const RESERVED: [(&str, &str); 5] = [
    ("--x-s3", "is a directory bucket (S3 Express One Zone), which needs sessions of its own"),
    ("--xa-s3", "is an access point of a directory bucket, which needs sessions of its own"),
    ("--ol-s3", "is an Object Lambda access point, which signs differently"),
    ("--table-s3", "is a table bucket, which has no objects to be read"),
    (".mrap", "is a multi-region access point, which signs differently"),
];

/// A bucket's name, or the ARN of an access point. AWS allows less in names (3 to 63 characters,
/// no capitals), other stores allow this.
pub(super) fn name(text: &str) -> Result<Name, Fault> {
    if text.starts_with("arn:") {
        return access_point(text);
    }
    let bare = text.strip_prefix("s3://").unwrap_or(text);
    if let Some((bucket, prefix)) = bare.split_once('/')
        && !bucket.is_empty()
        && !prefix.is_empty()
    {
        let remedy = format!(
            "write {}, and give {} as the 'prefix' of one of the 'mounts'",
            quoted(bucket),
            quoted(prefix)
        );
        return Err(Fault::new(format!("{} is more than a bucket", quoted(text)), remedy));
    }
    let bare = bare.trim_end_matches('/');
    if bare.len() < text.len() && !bare.is_empty() {
        let what = format!("{} is more than a name", quoted(text));
        return Err(Fault::new(what, format!("write {}", quoted(bare))));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(3..=255).contains(&text.len()) || !text.bytes().all(allowed) {
        let remedy = "write 3 to 255 letters, digits, dots, hyphens or underscores";
        return Err(Fault::new(format!("{} is not a bucket's name", quoted(text)), remedy));
    }
    let lower = text.to_ascii_lowercase();
    if let Some((_, why)) = RESERVED.iter().find(|(ending, _)| lower.ends_with(ending)) {
        return Err(Fault::new(format!("{} {why}", quoted(text)), "name a general purpose bucket"));
    }
    Ok(Name { name: text.to_owned(), access_point_in: None })
}

/// `arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME` (Amazon S3 User Guide, "Referencing access
/// points"), which is asked as a bucket named `NAME-ACCOUNT` at a server for access points.
fn access_point(arn: &str) -> Result<Name, Fault> {
    const REMEDY: &str = "write arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME, or a bucket's name";
    let refused = |what: &str| Fault::new(format!("{} {what}", quoted(arn)), REMEDY);
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let &[_, _, service, in_region, account, resource] = parts.as_slice() else {
        return Err(refused("is not an ARN"));
    };
    if service != "s3" {
        let what = format!("is of the service '{service}', which signs differently");
        return Err(refused(&what));
    }
    if in_region.is_empty() {
        return Err(refused("is of no region: multi-region access points sign differently"));
    }
    let name = resource.strip_prefix("accesspoint/").or(resource.strip_prefix("accesspoint:"));
    let label = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !text.is_empty() && text.bytes().all(allowed)
    };
    match name {
        Some(name) if label(name) && label(account) => Ok(Name {
            name: format!("{name}-{account}"),
            access_point_in: Some(aws_region(in_region)?),
        }),
        _ => Err(refused("is not the ARN of an access point")),
    }
}

/// What is put in front of every key.
pub(super) fn prefix(text: &str) -> Result<String, Fault> {
    if let Some(rest) = text.strip_prefix('/') {
        let what = "starts with '/', which keys in S3 hardly ever do";
        return Err(Fault::new(what, format!("write {}", quoted(rest))));
    }
    if text.contains('\0') {
        return Err(Fault::new("holds a NUL character", "remove it: no key has one"));
    }
    if text.len() >= limits::KEY_BYTES {
        let remedy = format!("a key in S3 has at most {} bytes", limits::KEY_BYTES);
        return Err(Fault::new("leaves no room for a key", remedy));
    }
    Ok(text.to_owned())
}

/// The region that goes into signatures; stores other than AWS have names of their own.
pub(super) fn region(text: &str) -> Result<String, Fault> {
    if !is_region(text) {
        let what = format!("{} is not a region", quoted(text));
        return Err(Fault::new(what, "write it as in 'us-east-1', without spaces, '/' and ','"));
    }
    Ok(text.to_owned())
}

/// The region as a part of the names of AWS's servers.
pub(super) fn aws_region(text: &str) -> Result<String, Fault> {
    if !is_aws_region(text) {
        let what = format!("{} is not a region of AWS", quoted(text));
        let remedy = "write it as in 'us-east-1': small letters, digits, hyphens; or name the \
                      server that has this region in 'endpoint'";
        return Err(Fault::new(what, remedy));
    }
    Ok(text.to_owned())
}

/// A server that was named by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) origin: Origin,
    /// Encoded, without a slash at its end; empty for most.
    pub(super) path: String,
}

/// Longest path of an endpoint, in bytes.
const PATH_BYTES: usize = 512;

/// The server at `http://host[:port][/path]` or `https://host[:port][/path]`.
pub(super) fn endpoint(text: &str) -> Result<Server, Fault> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    // Before anything is quoted: what stands before the @ may be a password.
    if rest.contains('@') {
        let remedy = "put credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        return Err(Fault::new("contains '@'", remedy));
    }
    let tls = scheme.eq_ignore_ascii_case("https");
    if !tls && !scheme.eq_ignore_ascii_case("http") {
        let what = format!("{} is not an http:// or https:// URL", quoted(text));
        return Err(Fault::new(what, "write it as https://host or http://host:9000"));
    }
    // Not quoted: what is asked for may hold a signature.
    if let Some(mark) = rest.find(['?', '#']) {
        let name = if rest[mark..].starts_with('?') { "a query" } else { "a fragment" };
        let remedy = "write a host and a port, and the path where the server is not at its root";
        return Err(Fault::new(format!("contains {name}"), remedy));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let origin = host_and_port(authority, tls).ok_or_else(|| {
        let what = format!("{} has no valid host and port", quoted(text));
        Fault::new(what, "write it as https://host or http://host:9000")
    })?;
    let path = base_path(path).ok_or_else(|| {
        let what = format!("{} has a path that S3 cannot be at", quoted(text));
        Fault::new(what, "write a plain path such as https://host/storage/v1/s3")
    })?;
    Ok(Server { origin, path })
}

/// The path of an endpoint, decoded and encoded as the paths of requests are, so that what is sent
/// is what is signed. No parts that are empty or that a server on the way could resolve.
fn base_path(path: &str) -> Option<String> {
    let mut encoded = Vec::new();
    let path = path.strip_suffix('/').unwrap_or(path);
    for part in path.split('/').skip(1) {
        let mut decoded = String::new();
        percent_decode(part, PATH_BYTES, &mut decoded).ok()?;
        let is_odd = |c: char| c == '/' || c.is_control();
        if matches!(decoded.as_str(), "" | "." | "..") || decoded.chars().any(is_odd) {
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
        None if port.is_empty() => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    (port != 0).then(|| Origin { tls, host: host.to_ascii_lowercase(), port })
}

/// Whether a bucket's name can stand before the endpoint's.
pub(super) fn allows_virtual(endpoint: &Origin) -> Result<(), Fault> {
    if endpoint.host.parse::<IpAddr>().is_ok() {
        return Err(Fault::new(
            "'addressing: virtual' puts the bucket before the endpoint's name, but the endpoint \
             is an IP address",
            "write 'addressing: path'",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::{Place, Spot};

    fn say<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        Spot::new(Place::Flag, "").problem(result.unwrap_err()).to_string()
    }

    #[test]
    fn bucket_names_of_any_store_pass_and_urls_get_a_remedy() {
        for good in ["abc", "my-bucket", "Old_Style.Bucket", "12345", &"x".repeat(255)] {
            assert_eq!(name(good).unwrap().name, good);
        }
        for bad in ["", "ab", "a b c", "büchse", "s3://", "/", "//", &"x".repeat(256), "a?b"] {
            assert!(say(name(bad)).contains("is not a bucket's name"), "{bad:?}");
        }
        assert_eq!(say(name("s3://lab")), "'s3://lab' is more than a name; write 'lab'");
        assert_eq!(say(name("lab/")), "'lab/' is more than a name; write 'lab'");
        assert_eq!(
            say(name("lab/runs/")),
            "'lab/runs/' is more than a bucket; write 'lab', and give 'runs/' as the 'prefix' of \
             one of the 'mounts'"
        );
    }

    #[test]
    fn the_arn_of_an_access_point_names_a_bucket_and_a_region() {
        for arn in [
            "arn:aws:s3:us-west-2:123456789012:accesspoint/runs",
            "arn:aws:s3:us-west-2:123456789012:accesspoint:runs",
        ] {
            let access_point_in = Some("us-west-2".to_owned());
            let expected = Name { name: "runs-123456789012".to_owned(), access_point_in };
            assert_eq!(name(arn).unwrap(), expected);
        }
        for (arn, part) in [
            ("arn:aws:s3", "is not an ARN"),
            ("arn:aws:s3-outposts:us-west-2:1:outpost/o/accesspoint/a", "signs differently"),
            ("arn:aws:s3-object-lambda:us-west-2:1:accesspoint/a", "signs differently"),
            ("arn:aws:s3::1:accesspoint/m.mrap", "multi-region access points sign differently"),
            ("arn:aws:s3:us-west-2:1:accesspoint/", "not the ARN of an access point"),
            ("arn:aws:s3:us-west-2:1:accesspoint/a.evil", "not the ARN of an access point"),
            ("arn:aws:s3:us-west-2::accesspoint/a", "not the ARN of an access point"),
            ("arn:aws:s3:::lab", "no region"),
        ] {
            let said = say(name(arn));
            assert!(said.contains(part) && said.contains("write arn:aws:s3:"), "{arn}: {said}");
        }
    }

    #[test]
    fn a_prefix_is_taken_as_it_is_but_for_a_leading_slash() {
        assert_eq!(prefix("").unwrap(), "");
        assert_eq!(prefix("runs/ä b+%20/ ").unwrap(), "runs/ä b+%20/ ");
        assert!(say(prefix("/runs/")).ends_with("write 'runs/'"));
        assert!(say(prefix(&"x".repeat(1024))).contains("no room"));
        assert!(say(prefix("runs\0/")).contains("a NUL character"));
    }

    #[test]
    fn regions_of_other_stores_pass() {
        for good in ["us-east-1", "garage", "default"] {
            assert_eq!(
                (region(good).unwrap(), aws_region(good).unwrap()),
                (good.into(), good.into())
            );
        }
        for other in ["RegionOne", "GRA", "eu_1.x"] {
            assert_eq!(region(other).unwrap(), other);
            assert!(say(aws_region(other)).contains("is not a region of AWS"), "{other}");
        }
        for bad in ["", "us east", "us/east", "us,east", "rø", "a\n", &"x".repeat(65)] {
            assert!(say(region(bad)).contains("is not a region"), "{bad}");
        }
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
            assert_eq!(endpoint(text).unwrap(), Server { origin, path: String::new() }, "{text}");
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
            assert_eq!(endpoint(text).unwrap().path, path, "{text}");
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
            assert!(say(endpoint(text)).contains("a path that S3 cannot be at"), "{text}");
        }
    }

    #[test]
    fn names_that_aws_keeps_for_other_kinds_of_buckets_are_refused_with_a_reason() {
        for (text, part) in [
            ("lab--use1-az4--x-s3", "S3 Express One Zone"),
            ("lab--use1-az4--xa-s3", "an access point of a directory bucket"),
            ("lab--OL-s3", "Object Lambda"),
            ("x1.mrap", "multi-region"),
        ] {
            assert!(say(name(text)).contains(part), "{text}");
        }
        assert!(name("lab-x-s3").is_ok() && name("a-s3alias").is_ok());
    }

    #[test]
    fn an_endpoint_that_is_more_or_less_than_host_and_port_is_refused() {
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
            let said = say(endpoint(text));
            assert!(said.contains(part), "{text}: {said}");
        }
        for text in ["http://user:hush@minio", "http://m/?X-Amz-Signature=hush", "http://u:hu/sh@m"]
        {
            assert!(!say(endpoint(text)).contains("hu"), "{text}");
        }
    }

    #[test]
    fn virtual_addressing_needs_a_name() {
        let at = |host: &str| Origin { tls: false, host: host.to_owned(), port: 9000 };
        assert!(allows_virtual(&at("minio")).is_ok());
        assert!(say(allows_virtual(&at("::1"))).contains("IP address"));
        assert!(say(allows_virtual(&at("10.0.0.1"))).contains("addressing: path"));
    }
}
