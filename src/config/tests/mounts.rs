//! Mounts: their paths, their buckets, and what they inherit.

use std::sync::Arc;

use super::*;

#[test]
fn without_an_endpoint_the_reason_is_said_once() {
    let said = says("mounts: {/a/: {bucket: aaa}, /b/: {bucket: bbb}}");
    let expected = "config.yaml: endpoint: is not set, which means AWS; HTTPS to S3 is not supported in this version; put the http:// URL of an S3-compatible store here or in AWS_ENDPOINT_URL";
    assert_eq!(said, expected);
    // A wrong one is not missing.
    let said = says("bucket_name: lab\nendpoint: https://s3\ncredentials: 7\n");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn mounts_are_ordered_longest_path_first_and_share_what_is_equal() {
    let keys = "credentials: {access_key_id: a, secret_access_key: b}";
    let config = config(&format!(
        "endpoint: http://minio:9000\n{keys}\nmounts:\n  /: {{bucket: root}}\n  /a/b/: {{bucket: bbb, {keys}}}\n  \
         /a/: {{bucket: aaa, endpoint: 'http://MINIO:9000/', prefix: p/}}\n  \
         /v/: {{bucket: v.v, addressing: virtual, region: garage}}\n"
    ));
    let [ab, a, v, root] = config.mounts.as_slice() else { panic!("four mounts") };
    assert_eq!((ab.path.as_str(), root.path.as_str()), ("/a/b/", "/"));
    assert_eq!((a.path.as_str(), a.prefix.as_str()), ("/a/", "p/"));
    assert!(Arc::ptr_eq(&a.bucket.origin, &root.bucket.origin));
    let source = |mount: &mount::Mount| mount.bucket.credentials.clone().unwrap();
    assert!(Arc::ptr_eq(&source(ab), &source(root)));
    assert_eq!(v.bucket.origin.host, "v.v.minio");
    assert_eq!(v.bucket.addressing, Addressing::Virtual);
    assert_eq!(v.bucket.region, "garage");
}

#[test]
fn a_mount_says_what_is_wrong_with_it() {
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
        ("/a//b/", bucket, "no client asks for"),
        ("/../", bucket, "no client asks for"),
        ("", bucket, "has no value"),
        ("/a/", "lab", "is not a map"),
        ("/a/", "{}", "names no bucket"),
        ("/a/", "{bucket: }", "mounts./a/.bucket: has no value"),
        ("/a/", "{buckets: lab}", "did you mean 'bucket'?"),
        ("/a/", "{bucket: lab, prefix: /x}", "mounts./a/.prefix: starts with '/'"),
        ("/a/", "{bucket: lab, addressing: virtual}", "the endpoint is an IP address"),
        ("/a/", "{bucket: lab, credentials: none}", "is no kind of credentials"),
        ("/a/", "{bucket: lab, credentials: {}}", "is empty"),
        ("/a/", "{bucket: lab, credentials: {access_key_id: a}}", "secret_access_key is missing"),
    ] {
        let said = mount(path, rest);
        assert!(said.contains(part), "{path} {rest}: {said}");
    }
    let many: String = (0..1001).map(|n| format!("  /{n}/: {{bucket: lab}}\n")).collect();
    assert!(says(&format!("mounts:\n{many}")).contains("has 1001 mounts; keep 1000 at most"));
    assert!(says("mounts: [a]").contains("is not a map of paths to buckets"));
    assert!(says("mounts: {}").contains("is not a map of paths to buckets"));
    assert!(says(&short_and("mounts: {/a/: {bucket: lab}}")).contains("stands beside 'mounts'"));
    assert!(says("endpoint: http://minio").contains("bucket_name: is missing"));
}
