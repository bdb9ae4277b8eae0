//! Every key of the configuration in one table: its name, its shape, and the environment
//! variables that set it. What a value must look like and its default are in
//! [`resolve`](super::resolve); a test there checks that each key of this table is read.

/// What may stand behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One value.
    One,
    /// One value or a list of them; in the environment separated by commas.
    Many,
    /// A map, or whatever else its reader takes.
    Map,
}

/// A top-level key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// The first of these that is set and not empty counts.
    pub(super) variables: &'static [&'static str],
}

const fn key(name: &'static str, shape: Shape, variables: &'static [&'static str]) -> Key {
    Key { name, shape, variables }
}

use Shape::{Many, Map, One};

/// All keys, in the order of `config.example.yaml`.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("listen", Many, &["S3PROXY_LISTEN"]),
    key("workers", One, &["S3PROXY_WORKERS"]),
    key("driver", One, &["S3PROXY_DRIVER"]),
    // Which objects.
    key("bucket_name", One, &["S3PROXY_BUCKET_NAME"]),
    key("mounts", Map, &[]),
    key("rewrite_rules", Map, &[]),
    // Where they are, and as whom to ask for them.
    key("region", One, &["S3PROXY_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"]),
    key("endpoint", One, &["S3PROXY_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
    key("addressing", One, &["S3PROXY_ADDRESSING"]),
    key("dual_stack", One, &["S3PROXY_DUAL_STACK", "AWS_USE_DUALSTACK_ENDPOINT"]),
    key("fips", One, &["S3PROXY_FIPS", "AWS_USE_FIPS_ENDPOINT"]),
    key("proxy", One, &["S3PROXY_PROXY"]),
    key("ca_file", One, &["S3PROXY_CA_FILE", "AWS_CA_BUNDLE"]),
    key("AWS_ACCESS_KEY_ID", One, &["AWS_ACCESS_KEY_ID"]),
    key("AWS_SECRET_ACCESS_KEY", One, &["AWS_SECRET_ACCESS_KEY"]),
    key("AWS_SESSION_TOKEN", One, &["AWS_SESSION_TOKEN"]),
    key("credentials", Map, &["S3PROXY_CREDENTIALS"]),
    key("requester_pays", One, &["S3PROXY_REQUESTER_PAYS"]),
    key("allow_version_id", One, &["S3PROXY_ALLOW_VERSION_ID"]),
    key("denied_is_missing", One, &["S3PROXY_DENIED_IS_MISSING"]),
    key("cache_control", One, &["S3PROXY_CACHE_CONTROL"]),
    key("sse_customer_key_file", One, &["S3PROXY_SSE_CUSTOMER_KEY_FILE"]),
    // What is remembered about them.
    key("metadata_ttl", One, &["S3PROXY_METADATA_TTL"]),
    key("metadata_negative_ttl", One, &["S3PROXY_METADATA_NEGATIVE_TTL"]),
    key("metadata_entries", One, &["S3PROXY_METADATA_ENTRIES"]),
    // What is said to clients.
    key("cors", Many, &["S3PROXY_CORS"]),
    key("genomic_suffixes", Many, &["S3PROXY_GENOMIC_SUFFIXES"]),
    // The log.
    key("log_level", One, &["S3PROXY_LOG_LEVEL"]),
    key("log_file", One, &["S3PROXY_LOG_FILE"]),
    key("access_log", One, &["S3PROXY_ACCESS_LOG"]),
    // Client connections.
    key("max_client_connections", One, &["S3PROXY_MAX_CLIENT_CONNECTIONS"]),
    key("head_timeout", One, &["S3PROXY_HEAD_TIMEOUT"]),
    key("keep_alive_timeout", One, &["S3PROXY_KEEP_ALIVE_TIMEOUT"]),
    key("client_stall_timeout", One, &["S3PROXY_CLIENT_STALL_TIMEOUT"]),
    key("client_pause_timeout", One, &["S3PROXY_CLIENT_PAUSE_TIMEOUT"]),
    key("drain_timeout", One, &["S3PROXY_DRAIN_TIMEOUT"]),
    // Connections to S3.
    key("upstream_max_connections", One, &["S3PROXY_UPSTREAM_MAX_CONNECTIONS"]),
    key("upstream_max_idle_connections", One, &["S3PROXY_UPSTREAM_MAX_IDLE_CONNECTIONS"]),
    key("upstream_idle_timeout", One, &["S3PROXY_UPSTREAM_IDLE_TIMEOUT"]),
    key("upstream_max_waiting", One, &["S3PROXY_UPSTREAM_MAX_WAITING"]),
    key("upstream_wait_timeout", One, &["S3PROXY_UPSTREAM_WAIT_TIMEOUT"]),
    key("connect_timeout", One, &["S3PROXY_CONNECT_TIMEOUT"]),
    key("tls_timeout", One, &["S3PROXY_TLS_TIMEOUT"]),
    key("first_byte_timeout", One, &["S3PROXY_FIRST_BYTE_TIMEOUT"]),
    key("stall_timeout", One, &["S3PROXY_STALL_TIMEOUT"]),
    key("retries", One, &["S3PROXY_RETRIES"]),
    key("retry_timeout", One, &["S3PROXY_RETRY_TIMEOUT"]),
    key("retry_budget", One, &["S3PROXY_RETRY_BUDGET"]),
    key("read_ahead", One, &["S3PROXY_READ_AHEAD"]),
    // The way of bodies.
    key("splice", One, &["S3PROXY_SPLICE"]),
    key("splice_threshold", One, &["S3PROXY_SPLICE_THRESHOLD"]),
    key("pipe_size", One, &["S3PROXY_PIPE_SIZE"]),
    key("max_pipes", One, &["S3PROXY_MAX_PIPES"]),
];

/// The keys of one of the `mounts`.
pub(super) const MOUNT_KEYS: &[&str] = &[
    "bucket",
    "prefix",
    "region",
    "endpoint",
    "addressing",
    "credentials",
    "requester_pays",
    "allow_version_id",
    "denied_is_missing",
    "cache_control",
    "sse_customer_key_file",
];

/// The keys of a `credentials` map.
pub(super) const CREDENTIALS_KEYS: &[&str] = &[
    "access_key_id",
    "secret_access_key",
    "session_token",
    "profile",
    "role_arn",
    "external_id",
    "session_name",
    "web_identity_token_file",
];

/// The keys of one of the `rewrite_rules`.
pub(super) const RULE_KEYS: &[&str] = &["from", "to", "when"];

/// The names of all top-level keys.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// Whether a key of this name exists at any level.
pub(super) fn is_known(key: &str) -> bool {
    names().chain(nested_names()).any(|name| name == key)
}

/// The names of the keys inside maps.
fn nested_names() -> impl Iterator<Item = &'static str> {
    MOUNT_KEYS.iter().chain(CREDENTIALS_KEYS).chain(RULE_KEYS).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_the_key_in_upper_case_or_one_that_aws_tools_read() {
        for key in KEYS {
            let own = format!("S3PROXY_{}", key.name.to_ascii_uppercase());
            for &variable in key.variables {
                assert!(variable == own || variable.starts_with("AWS_"), "{variable}");
            }
            assert!(key.shape == Map || !key.variables.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn the_example_documents_every_key() {
        let example = include_str!("../../config.example.yaml");
        for name in names().chain(nested_names()) {
            let documented = example.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ', '-', '{']);
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
            });
            assert!(documented, "{name} is not in config.example.yaml");
        }
    }
}
