//! Finds the server of a bucket (Amazon S3 User Guide, "Virtual hosting of general purpose
//! buckets", "Using dual-stack endpoints", "FIPS"; AWS SDKs, `partitions.json`).

use std::sync::Arc;

use crate::upstream::Origin;

/// The server or servers of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// AWS: the server of the bucket's region.
    Aws(Aws),
    /// One server for all buckets and regions.
    At(Arc<Origin>),
}

/// Selects one of AWS's endpoints in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aws {
    /// Reachable over IPv6 too.
    pub dual_stack: bool,
    /// With FIPS 140 validated cryptography.
    pub fips: bool,
    /// For an access point, whose name replaces the bucket's.
    pub access_point: bool,
}

/// How the bucket's name is put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Virtual-hosted at AWS if its certificates allow the name, otherwise path-style.
    Auto,
    /// `http://endpoint/bucket/key`.
    Path,
    /// `http://bucket.endpoint/key`.
    Virtual,
}

/// Where the requests for one bucket are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The region in the signature's scope.
    pub region: String,
    /// The server; its host starts with the bucket's name if the path does not.
    pub origin: Arc<Origin>,
    /// Whether the path starts with the bucket's name.
    pub name_in_path: bool,
}

/// Domains by the prefix of the region's name; the last is for all other regions.
const DOMAINS: [(&str, &str); 7] = [
    ("cn-", "amazonaws.com.cn"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
    ("", "amazonaws.com"),
];

impl Aws {
    fn host(self, region: &str) -> String {
        let service = if self.access_point { "s3-accesspoint" } else { "s3" };
        let fips = if self.fips { "-fips" } else { "" };
        let dual_stack = if self.dual_stack { ".dualstack" } else { "" };
        let domain = DOMAINS.iter().find(|(start, _)| region.starts_with(start));
        let domain = domain.map_or("amazonaws.com", |(_, domain)| domain);
        format!("{service}{fips}{dual_stack}.{region}.{domain}")
    }
}

/// Longest name of a region, in bytes.
const REGION_BYTES: usize = 64;

/// Whether a text may be the name of an AWS region, which becomes part of a host name.
pub(crate) fn is_aws_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=REGION_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether a text may be the name of a region of another S3 server. The name is only used in
/// signatures, in which slashes and commas are delimiters.
pub(crate) fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b',';
    (1..=REGION_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

impl Endpoint {
    /// Whether the region's name is valid for this endpoint.
    pub fn takes_region(&self, region: &str) -> bool {
        match self {
            Endpoint::Aws(_) => is_aws_region(region),
            Endpoint::At(_) => is_region(region),
        }
    }

    /// Where requests for a bucket in this region are sent.
    pub fn locate(&self, bucket: &str, region: &str, addressing: Addressing) -> Location {
        let server = match self {
            Endpoint::Aws(aws) => Arc::new(Origin { tls: true, host: aws.host(region), port: 443 }),
            Endpoint::At(origin) => Arc::clone(origin),
        };
        let name_in_host = match (addressing, self) {
            (_, Endpoint::Aws(aws)) if aws.access_point => true,
            (Addressing::Auto, Endpoint::Aws(_)) => is_label(bucket),
            (Addressing::Auto, Endpoint::At(_)) | (Addressing::Path, _) => false,
            (Addressing::Virtual, _) => true,
        };
        let origin = if name_in_host {
            let host = format!("{}.{}", bucket.to_ascii_lowercase(), server.host);
            Arc::new(Origin { host, ..(*server).clone() })
        } else {
            server
        };
        Location { region: region.to_owned(), origin, name_in_path: !name_in_host }
    }
}

/// Whether a bucket's name can be part of the host name: AWS's certificates are for `*.s3…`, which
/// does not match a name with a dot (RFC 6125 §6.4.3).
fn is_label(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=63).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(aws: Aws, bucket: &str, region: &str, addressing: Addressing) -> String {
        let location = Endpoint::Aws(aws).locate(bucket, region, addressing);
        let name = if location.name_in_path { format!("/{bucket}") } else { String::new() };
        format!("{}{name}", location.origin)
    }

    #[test]
    fn aws_has_a_server_for_each_region_and_variant() {
        let plain = Aws::default();
        let dual_stack = Aws { dual_stack: true, ..plain };
        let fips = Aws { fips: true, ..plain };
        let both = Aws { fips: true, ..dual_stack };
        for (aws, region, expected) in [
            (plain, "us-east-1", "https://lab.s3.us-east-1.amazonaws.com"),
            (plain, "cn-north-1", "https://lab.s3.cn-north-1.amazonaws.com.cn"),
            (plain, "us-isob-east-1", "https://lab.s3.us-isob-east-1.sc2s.sgov.gov"),
            (plain, "eusc-de-east-1", "https://lab.s3.eusc-de-east-1.amazonaws.eu"),
            (dual_stack, "eu-west-1", "https://lab.s3.dualstack.eu-west-1.amazonaws.com"),
            (fips, "us-gov-west-1", "https://lab.s3-fips.us-gov-west-1.amazonaws.com"),
            (both, "us-west-2", "https://lab.s3-fips.dualstack.us-west-2.amazonaws.com"),
        ] {
            assert_eq!(url(aws, "lab", region, Addressing::Auto), expected);
        }
    }

    #[test]
    fn a_name_that_no_certificate_matches_goes_into_the_path() {
        let plain = Aws::default();
        for name in ["lab.runs", "Lab", "lab_runs"] {
            let expected = format!("https://s3.us-east-1.amazonaws.com/{name}");
            assert_eq!(url(plain, name, "us-east-1", Addressing::Auto), expected);
        }
        assert_eq!(
            url(plain, "lab", "us-east-1", Addressing::Path),
            "https://s3.us-east-1.amazonaws.com/lab"
        );
        assert_eq!(
            url(plain, "a.b", "us-east-1", Addressing::Virtual),
            "https://a.b.s3.us-east-1.amazonaws.com"
        );
    }

    #[test]
    fn an_access_point_is_always_part_of_the_host() {
        let aws = Aws { access_point: true, ..Aws::default() };
        assert_eq!(
            url(aws, "runs-123456789012", "us-west-2", Addressing::Path),
            "https://runs-123456789012.s3-accesspoint.us-west-2.amazonaws.com"
        );
    }

    #[test]
    fn another_server_is_the_same_for_all_regions() {
        let minio = Arc::new(Origin { tls: false, host: "minio".to_owned(), port: 9000 });
        let endpoint = Endpoint::At(Arc::clone(&minio));
        let location = endpoint.locate("lab", "x", Addressing::Auto);
        assert_eq!((location.origin, location.name_in_path), (minio, true));
        let location = endpoint.locate("Lab", "x", Addressing::Virtual);
        assert_eq!(location.origin.to_string(), "http://lab.minio:9000");
    }
}
