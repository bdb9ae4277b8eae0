//! Mounts: their paths, their buckets, and what they inherit.

use std::sync::Arc;

use super::*;
use crate::policy::route;
use crate::s3::endpoint::Addressing;
use crate::s3::sse_c::CustomerKey;

#[test]
fn mounts_are_ordered_longest_path_first_and_share_equal_credentials() {
    let keys = "credentials: {access_key_id: a, secret_access_key: b}";
    let config = config(&format!(
        "endpoint: http://minio:9000\n{keys}\nmounts:\n  /: {{bucket: root}}\n  /a/b/: {{bucket: bbb, {keys}}}\n  \
         /a/: {{bucket: aaa, endpoint: 'http://MINIO:9000/', prefix: p/}}\n  \
         /v/: {{bucket: v.v, addressing: virtual, region: garage}}\n"
    ));
    let [ab, a, v, root] = config.live.mounts.as_slice() else { panic!("four mounts") };
    assert_eq!((ab.path.as_str(), root.path.as_str()), ("/a/b/", "/"));
    assert_eq!((a.path.as_str(), a.prefix.as_str()), ("/a/", "p/"));
    assert_eq!(a.bucket.location().origin, root.bucket.location().origin);
    let source = |mount: &route::Mount| mount.bucket.credentials.clone().unwrap();
    assert!(Arc::ptr_eq(&source(ab), &source(root)));
    assert_eq!(v.bucket.location().origin.host, "v.v.minio");
    assert_eq!(v.bucket.addressing, Addressing::Virtual);
    assert_eq!(v.bucket.location().region, "garage");
}

#[test]
fn mistakes_in_a_mount_are_described() {
    let mount = |path: &str, rest: &str| {
        says(&format!(
            "endpoint: http://1.2.3.4\ncredentials: anonymous\nmounts:\n  '{path}': {rest}\n"
        ))
    };
    let bucket = "{bucket: lab}";
    for (path, rest, part) in [
        ("files", bucket, "config.yaml:4: mounts.files: a path starts and ends with one '/'"),
        ("/files", bucket, "write '/files/'"),
        ("//files//", bucket, "write '/files/'"),
        ("/a b/", bucket, "cannot contain ' '"),
        ("/a?/", bucket, "cannot contain '?'"),
        ("/a%20/", bucket, "cannot contain '%'"),
        ("/a//b/", bucket, "clients never request"),
        ("/../", bucket, "clients never request"),
        ("", bucket, "has no value"),
        ("/a/", "lab", "is not a map"),
        ("/a/", "{}", "has no bucket"),
        ("/a/", "{bucket: }", "mounts./a/.bucket: has no value"),
        ("/a/", "{buckets: lab}", "did you mean 'bucket'?"),
        ("/a/", "{bucket: lab, prefix: /x}", "mounts./a/.prefix: starts with '/'"),
        ("/a/", "{bucket: lab, addressing: virtual}", "the endpoint is an IP address"),
        ("/a/", "{bucket: lab, credentials: none}", "is not a kind of credentials"),
        ("/a/", "{bucket: lab, credentials: {}}", "is empty"),
        (
            "/a/",
            "{bucket: lab, credentials: {access_key_id: a}}",
            "is set without secret_access_key",
        ),
    ] {
        let said = mount(path, rest);
        assert!(said.contains(part), "{path} {rest}: {said}");
    }
    let many: String = (0..1001).map(|n| format!("  /{n}/: {{bucket: lab}}\n")).collect();
    assert!(says(&format!("mounts:\n{many}")).contains("has 1001 mounts; keep 1000 at most"));
    assert!(says("mounts: [a]").contains("is not a map of paths to buckets"));
    assert!(says("mounts: {}").contains("is not a map of paths to buckets"));
    assert!(says(&short_and("mounts: {/a/: {bucket: lab}}")).contains("conflicts with 'mounts'"));
    assert!(says("endpoint: http://minio").contains("bucket_name: is missing"));
}

#[test]
fn aws_is_the_default_and_its_servers_can_be_chosen() {
    let url = |text: &str| {
        let config = config(&format!("bucket_name: lab\ncredentials: anonymous\n{text}\n"));
        config.live.mounts[0].bucket.location().origin.to_string()
    };
    assert_eq!(url("region: eu-west-1"), "https://lab.s3.eu-west-1.amazonaws.com");
    assert_eq!(url("addressing: path"), "https://s3.us-east-1.amazonaws.com");
    assert_eq!(
        url("fips: true\ndual_stack: true"),
        "https://lab.s3-fips.dualstack.us-east-1.amazonaws.com"
    );
    let said = says(&short_and("dual_stack: true"));
    assert!(said.contains("dual_stack: is for AWS only, and conflicts with endpoint"), "{said}");
}

#[test]
fn an_access_point_is_read_like_a_bucket_of_aws() {
    let arn = "arn:aws:s3:us-west-2:123456789012:accesspoint/runs";
    let text = format!("bucket_name: {arn}\ncredentials: anonymous\nregion: us-east-1\n");
    let location = config(&text).live.mounts[0].bucket.location();
    assert_eq!(location.region, "us-west-2");
    assert_eq!(
        location.origin.to_string(),
        "https://runs-123456789012.s3-accesspoint.us-west-2.amazonaws.com"
    );
    let said = says(&format!("{text}endpoint: http://minio\n"));
    assert!(
        said.contains("names an access point, which only AWS has; remove 'endpoint'"),
        "{said}"
    );
}

#[test]
fn a_mount_inherits_what_it_does_not_set_from_the_top_level() {
    let config = config(&format!(
        "{}\nrequester_pays: true\nallow_version_id: true\nsse_customer_key_file: lab.key\n\
         endpoint: http://minio\nmounts:\n  /a/: {{bucket: aaa}}\n  \
         /b/: {{bucket: bbb, requester_pays: false, allow_version_id: false, \
         sse_customer_key_file: /etc/s3proxy/partner.key}}\n",
        OF_2014.replace("bucket_name: my-bucket\n", "")
    ));
    let [a, b] = config.live.mounts.as_slice() else { panic!("two mounts") };
    assert!(a.bucket.requester_pays && a.allow_version_id);
    assert!(!b.bucket.requester_pays && !b.allow_version_id);
    assert_eq!(a.bucket.customer_key.as_deref(), Some(&CustomerKey::new(&[1; 32])));
    assert_eq!(b.bucket.customer_key.as_deref(), Some(&CustomerKey::new(&[2; 32])));
}

#[test]
fn the_short_form_and_the_environment_set_the_same_keys() {
    let endpoint = "endpoint: http://minio\n";
    let variables = [
        ("S3PROXY_REQUESTER_PAYS", "true"),
        ("S3PROXY_ALLOW_VERSION_ID", "true"),
        ("S3PROXY_SSE_CUSTOMER_KEY_FILE", "lab.key"),
    ];
    let config = with(&format!("{OF_2014}{endpoint}"), &variables, &Overrides::default()).unwrap();
    let [mount] = config.live.mounts.as_slice() else { panic!("one mount") };
    assert!(mount.bucket.requester_pays && mount.allow_version_id);
    assert!(mount.bucket.customer_key.is_some());
}

#[test]
fn anonymous_requests_cannot_pay() {
    let said = says(&short_and("requester_pays: true"));
    let expected = "config.yaml:1: bucket_name: 'requester_pays' tells S3 who pays, but \
                    'credentials: anonymous' does not; give it credentials, or write \
                    'requester_pays: false'";
    assert_eq!(said, expected);
    let mounts = "endpoint: http://minio\ncredentials: anonymous\nrequester_pays: true\n\
                  mounts:\n  /a/: {bucket: aaa, requester_pays: false}\n  /b/: {bucket: bbb}\n";
    let said = says(mounts);
    assert!(said.starts_with("config.yaml:6: mounts./b/: 'requester_pays' tells"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn an_invalid_key_file_is_reported_at_its_location() {
    for (name, part) in [
        (
            "short.key",
            "the file has the base64 of 3 bytes; it must contain the 32 bytes of the key",
        ),
        ("none.key", "the file cannot be read: entity not found; name a file that"),
        ("''", "is not a path"),
        ("[lab.key]", "is a list"),
    ] {
        let said = says(&short_and(&format!("sse_customer_key_file: {name}")));
        let expected = format!("config.yaml:4: sse_customer_key_file: {part}");
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let said = says(&format!(
            "endpoint: http://minio\ncredentials: anonymous\nmounts:\n  \
             /a/: {{bucket: aaa, sse_customer_key_file: {name}}}\n"
        ));
        let expected = format!("config.yaml:4: mounts./a/.sse_customer_key_file: {part}");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn text_alone_reads_no_file() {
    let text = short_and("sse_customer_key_file: /dev/zero");
    let file = File { name: "config.yaml", text: &text };
    let said = resolve(Some(file), &environment(&[]), &Overrides::default()).unwrap_err();
    assert!(said.to_string().contains("the file cannot be read: unsupported"), "{said}");
}
