//! The values of `bucket_name`, `bucket`, `prefix` and `region`.

use crate::config::diagnostic::{Fault, quoted};
use crate::limits;
use crate::s3::endpoint::{is_aws_region, is_region};

/// The name of a bucket or of an access point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// As sent to S3.
    pub(super) name: String,
    /// The region in the ARN of an access point; `None` for a bucket.
    pub(super) access_point_in: Option<String>,
}

/// Suffixes that AWS reserves for other kinds of buckets and access points (Amazon S3 User Guide,
/// "General purpose bucket naming rules").
const RESERVED: [(&str, &str); 5] = [
    (
        "--x-s3",
        "is a directory bucket (S3 Express One Zone), which needs session credentials of its own",
    ),
    (
        "--xa-s3",
        "is an access point of a directory bucket, which needs session credentials of its own",
    ),
    ("--ol-s3", "is an Object Lambda access point, which signs differently"),
    ("--table-s3", "is a table bucket, which has no objects to read"),
    (".mrap", "is a multi-region access point, which signs differently"),
];

/// Parses a bucket's name, or the ARN of an access point. AWS requires 3 to 63 lower-case
/// characters; other S3 servers are less strict.
pub(super) fn name(text: &str) -> Result<Name, Fault> {
    if text.starts_with("arn:") {
        return access_point(text);
    }
    let bare = text.strip_prefix("s3://").unwrap_or(text);
    if let Some((bucket, prefix)) = bare.split_once('/')
        && !bucket.is_empty()
        && !prefix.is_empty()
    {
        let help = format!(
            "write {}, and give {} as the 'prefix' of one of the 'mounts'",
            quoted(bucket),
            quoted(prefix)
        );
        return Err(Fault::new(format!("{} is more than a bucket", quoted(text)), help));
    }
    let bare = bare.trim_end_matches('/');
    if bare.len() < text.len() && !bare.is_empty() {
        let problem = format!("{} is more than a name", quoted(text));
        return Err(Fault::new(problem, format!("write {}", quoted(bare))));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(3..=255).contains(&text.len()) || !text.bytes().all(allowed) {
        let help = "write 3 to 255 letters, digits, dots, hyphens or underscores";
        return Err(Fault::new(format!("{} is not a bucket name", quoted(text)), help));
    }
    let lower = text.to_ascii_lowercase();
    if let Some((_, why)) = RESERVED.iter().find(|(ending, _)| lower.ends_with(ending)) {
        return Err(Fault::new(format!("{} {why}", quoted(text)), "name a general purpose bucket"));
    }
    Ok(Name { name: text.to_owned(), access_point_in: None })
}

/// `arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME` (Amazon S3 User Guide, "Referencing access
/// points"), which is addressed as a bucket named `NAME-ACCOUNT` at an access point endpoint.
fn access_point(arn: &str) -> Result<Name, Fault> {
    const HELP: &str = "write arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME, or a bucket name";
    let refused = |what: &str| Fault::new(format!("{} {what}", quoted(arn)), HELP);
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let &[_, _, service, in_region, account, resource] = parts.as_slice() else {
        return Err(refused("is not an ARN"));
    };
    if service != "s3" {
        let problem = format!("belongs to the service '{service}', which signs differently");
        return Err(refused(&problem));
    }
    if in_region.is_empty() {
        return Err(refused("has no region: multi-region access points sign differently"));
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

/// Parses the `prefix` of a mount.
pub(super) fn prefix(text: &str) -> Result<String, Fault> {
    if let Some(rest) = text.strip_prefix('/') {
        let problem = "starts with '/', which S3 keys rarely do";
        return Err(Fault::new(problem, format!("write {}", quoted(rest))));
    }
    if text.contains('\0') {
        return Err(Fault::new("contains a NUL character", "remove it; keys cannot contain one"));
    }
    if text.len() >= limits::KEY_BYTES {
        let help = format!("a key in S3 has at most {} bytes", limits::KEY_BYTES);
        return Err(Fault::new("leaves no room for a key", help));
    }
    Ok(text.to_owned())
}

/// Parses a region as used in signatures. Other S3 servers have their own names for regions.
pub(super) fn region(text: &str) -> Result<String, Fault> {
    if !is_region(text) {
        let problem = format!("{} is not a region", quoted(text));
        return Err(Fault::new(problem, "write it as in 'us-east-1', without spaces, '/' and ','"));
    }
    Ok(text.to_owned())
}

/// Parses a region as used in AWS's host names.
pub(super) fn aws_region(text: &str) -> Result<String, Fault> {
    if !is_aws_region(text) {
        let problem = format!("{} is not an AWS region", quoted(text));
        let help = "write it as in 'us-east-1': lower case letters, digits, hyphens; or set \
                      'endpoint' to the server that has this region";
        return Err(Fault::new(problem, help));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Location, Source};

    fn say<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        Location::new(Source::Flag, "").diagnostic(result.unwrap_err()).to_string()
    }

    #[test]
    fn bucket_names_of_any_s3_server_are_valid_and_urls_get_help() {
        for good in ["abc", "my-bucket", "Old_Style.Bucket", "12345", &"x".repeat(255)] {
            assert_eq!(name(good).unwrap().name, good);
        }
        for bad in ["", "ab", "a b c", "büchse", "s3://", "/", "//", &"x".repeat(256), "a?b"] {
            assert!(say(name(bad)).contains("is not a bucket name"), "{bad:?}");
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
    fn a_prefix_is_kept_unchanged_but_must_not_start_with_a_slash() {
        assert_eq!(prefix("").unwrap(), "");
        assert_eq!(prefix("runs/ä b+%20/ ").unwrap(), "runs/ä b+%20/ ");
        assert!(say(prefix("/runs/")).ends_with("write 'runs/'"));
        assert!(say(prefix(&"x".repeat(1024))).contains("no room"));
        assert!(say(prefix("runs\0/")).contains("a NUL character"));
    }

    #[test]
    fn regions_of_other_s3_servers_are_valid() {
        for good in ["us-east-1", "garage", "default"] {
            assert_eq!(
                (region(good).unwrap(), aws_region(good).unwrap()),
                (good.into(), good.into())
            );
        }
        for other in ["RegionOne", "GRA", "eu_1.x"] {
            assert_eq!(region(other).unwrap(), other);
            assert!(say(aws_region(other)).contains("is not an AWS region"), "{other}");
        }
        for bad in ["", "us east", "us/east", "us,east", "rø", "a\n", &"x".repeat(65)] {
            assert!(say(region(bad)).contains("is not a region"), "{bad}");
        }
    }

    #[test]
    fn names_that_aws_reserves_for_other_kinds_of_buckets_are_refused_with_a_reason() {
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
}
