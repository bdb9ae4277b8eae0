//! The table of all keys: name, kind, the field that the key sets, documentation, and the AWS
//! variables that set it too. Defaults are those of the fields.
//!
//! A new setting needs a line here, its field with a default in the layer that uses it, and a
//! paragraph in `config.example.yaml`; a test compares the three.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::credentials::{
    self, AccessKeys, CredentialsMap, Identity, IdentityKind, access_key_id, secret_key,
    session_token,
};
use crate::config::endpoint::{self, Server};
use crate::config::key::{About, Key, key};
use crate::config::listen::Listen;
use crate::config::mounts::DEFAULT_REGION;
use crate::config::response_fields::{CacheControl, Cors, Suffixes};
use crate::config::rewrite::{RewriteRules, RuleText};
use crate::config::source::Written;
use crate::config::values::{
    ADDRESSING, BOOLEAN, Count, DRIVER, DURATION, Kind, LOG_LEVEL, PATH, SPLICE, Size, TIMEOUT,
    Text, WHEN, Whole, Workers, text,
};
use crate::config::{bucket, proxy};
use crate::s3::endpoint::{Addressing, Aws};
use crate::s3::sse_c::CustomerKey;
use crate::server::live::Live;
use crate::server::settings::Settings;
use crate::upstream::proxy::HttpProxy;

/// The top level of a configuration while it is read.
#[derive(Default)]
pub(super) struct TopLevel {
    pub(super) settings: Settings,
    pub(super) live: Live,
    /// `bucket_name`, and the settings that mounts inherit.
    pub(super) mount: MountSettings,
    pub(super) mounts: Option<Written>,
    /// `Some(None)` is `off`.
    pub(super) proxy: Option<Option<Arc<HttpProxy>>>,
    pub(super) ca_file: Option<PathBuf>,
}

/// The settings of a mount. Each starts with a copy of the top level's.
#[derive(Clone)]
pub(super) struct MountSettings {
    pub(super) bucket: Option<bucket::Name>,
    pub(super) prefix: Option<String>,
    pub(super) region: Option<String>,
    /// `None` is AWS.
    pub(super) endpoint: Option<Server>,
    /// Which of AWS's servers.
    pub(super) aws: Aws,
    pub(super) addressing: Addressing,
    pub(super) credentials: Option<Identity>,
    pub(super) requester_pays: bool,
    pub(super) allow_version_id: bool,
    pub(super) denied_is_missing: bool,
    pub(super) cache_control: Option<String>,
    pub(super) customer_key_file: Option<PathBuf>,
    /// The key in that file, once it is read.
    pub(super) customer_key: Option<Arc<CustomerKey>>,
}

impl Default for MountSettings {
    fn default() -> MountSettings {
        MountSettings {
            bucket: None,
            prefix: None,
            region: None,
            endpoint: None,
            aws: Aws::default(),
            addressing: Addressing::Auto,
            credentials: None,
            requester_pays: false,
            allow_version_id: false,
            denied_is_missing: false,
            // Without it browsers use a heuristic lifetime (RFC 9111 §4.2.2), and may combine an
            // old index with new data.
            cache_control: Some("no-cache".to_owned()),
            customer_key_file: None,
            customer_key: None,
        }
    }
}

const MIB: u64 = 1 << 20;

/// The keys that only the top level has.
#[rustfmt::skip]
pub(super) const TOP_LEVEL: &[Key<TopLevel>] = &[
    key!("bucket_name", text(bucket::name), mount.bucket,
        "The bucket, or the ARN of an access point; it is served at /files/."),
    key!("mounts", Whole, mounts,
        "Several buckets, instead of `bucket_name`: a map of paths to buckets.", None),
    key!("rewrite_rules", RewriteRules, live.rewrite_rules,
        "Regular expressions that change keys before they are looked up.", None),
    key!("dual_stack", BOOLEAN, mount.aws.dual_stack,
        "Use AWS's servers that IPv6 reaches too.", Some(&["AWS_USE_DUALSTACK_ENDPOINT"])),
    key!("fips", BOOLEAN, mount.aws.fips,
        "Use AWS's servers with FIPS 140 validated cryptography.", Some(&["AWS_USE_FIPS_ENDPOINT"])),
    key!("proxy", text(proxy::url_or_off), proxy,
        "The HTTP proxy between s3proxy and S3, STS and SSO; or off."),
    key!("ca_file", PATH, ca_file,
        "A PEM file with certificate authorities to trust besides the system's.",
        Some(&["AWS_CA_BUNDLE"])),

    key!("listen", Listen, settings.listen,
        "Where to listen: an address and a port, or a list of them."),
    key!("workers", Workers, settings.workers,
        "Worker threads: a number from 1 to 1024, or `auto`, one for each usable processor core."),
    key!("driver", DRIVER, settings.driver,
        "The kernel interface of the event loop: `io_uring`, `epoll`, or `auto`, the first that works."),

    key!("metadata_ttl", DURATION, settings.metadata.ttl,
        "How long the size and version of an object are cached; 0s disables the cache."),
    key!("metadata_negative_ttl", DURATION, settings.metadata.negative_ttl,
        "The same for objects that do not exist; no longer than `metadata_ttl`."),
    key!("metadata_entries", Count(1, 100_000_000), settings.metadata.max_entries,
        "How many objects each worker keeps in this cache."),

    key!("cors", Cors, live.cors,
        "Web sites that may read through a browser: '*' is all of them, off is none, or a list."),
    key!("genomic_suffixes", Suffixes, live.genomic_suffixes,
        "Keys with these suffixes are sent without their stored `Content-Encoding`."),

    key!("log_level", LOG_LEVEL, settings.log_level,
        "The least severe messages to log: off, error, warn, info, debug or trace."),
    key!("log_file", PATH, settings.log_file,
        "Append the log to this file instead of writing it to standard error."),
    key!("access_log", BOOLEAN, live.access_log,
        "Log one line for each request."),

    key!("max_client_connections", Count(1, 1_000_000), live.clients.max_connections,
        "How many client connections each worker keeps open at once."),
    key!("head_timeout", TIMEOUT, live.clients.head_timeout,
        "How long a client may take to send a request."),
    key!("keep_alive_timeout", TIMEOUT, live.clients.keep_alive_timeout,
        "How long a client may keep an unused connection open."),
    key!("client_stall_timeout", TIMEOUT, live.clients.stall_timeout,
        "How long a client may stop reading in the middle of an object."),
    key!("client_pause_timeout", TIMEOUT, live.clients.pause_timeout,
        "How long a client that has stopped reading keeps its connection to S3."),
    key!("drain_timeout", DURATION, live.clients.drain_timeout,
        "How long running downloads may take to finish when s3proxy is stopped."),

    key!("upstream_max_connections", Count(1, 65_535), settings.upstream.max_connections,
        "How many connections to S3 each worker opens at once."),
    key!("upstream_max_waiting", Count(0, 1_000_000), settings.upstream.max_waiting,
        "How many requests may wait for one of these connections."),
    key!("upstream_wait_timeout", TIMEOUT, settings.upstream.wait_timeout,
        "How long they may wait."),
    key!("upstream_max_idle_connections", Count(0, 65_535), settings.upstream.max_idle_connections,
        "How many unused connections to S3 each worker keeps open."),
    key!("upstream_idle_timeout", TIMEOUT, settings.upstream.idle_timeout,
        "How long it keeps them."),
    key!("connect_timeout", TIMEOUT, settings.upstream.connect_timeout,
        "How long S3 may take to accept a connection."),
    key!("tls_timeout", TIMEOUT, settings.upstream.tls_timeout,
        "How long the TLS handshake with S3 may take."),
    key!("first_byte_timeout", TIMEOUT, settings.upstream.first_byte_timeout,
        "How long S3 may take to start its response."),
    key!("stall_timeout", TIMEOUT, settings.upstream.stall_timeout,
        "How long S3 may pause in the middle of a response."),
    key!("retry_timeout", DURATION, live.retries.timeout,
        "How long a failed request to S3 is retried."),
    key!("retries", Count(0, 1_000_000), live.retries.retries,
        "How often it is retried at most; 0 passes every failure on to the client."),
    key!("retry_budget", Count(0, 1_000_000), live.retries.budget,
        "Retries that each worker may spend beyond those that succeed."),
    key!("read_ahead", Size(16 << 10, 64 * MIB), settings.upstream.read_ahead,
        "How far to read ahead of a client that may leave at any moment."),

    key!("splice", SPLICE, settings.relay.splice,
        "`auto` lets the kernel move large bodies without copying them; `off` always copies."),
    key!("splice_threshold", Size(1, MIB * MIB), settings.relay.splice_threshold,
        "Smaller bodies are always copied, which is cheaper for them."),
    key!("pipe_size", Size(4 << 10, 64 * MIB), settings.relay.pipe_size,
        "The size of the pipes that bodies pass through in the kernel."),
    key!("max_pipes", Count(1, 65_535), settings.relay.max_pipes,
        "How many of these pipes each worker may have."),
];

/// The access keys of the top level, all three from one source.
#[rustfmt::skip]
pub(super) const AWS_KEYS: &[Key<AccessKeys>] = &[
    key!("AWS_ACCESS_KEY_ID", text(access_key_id), id,
        "The access key to read the bucket with."),
    key!("AWS_SECRET_ACCESS_KEY", text(secret_key), secret,
        "The secret that belongs to it."),
    key!("AWS_SESSION_TOKEN", text(session_token), token,
        "The session token of temporary credentials."),
];

/// The keys of a mount that are inherited from the top level.
#[rustfmt::skip]
pub(super) const INHERITED: &[Key<MountSettings>] = &[
    key!("credentials", IdentityKind, credentials,
        "Where to get credentials from, if not from access keys: a word, or a map."),
    key!("region", Text { parse: bucket::region, unset: Some(DEFAULT_REGION) }, region,
        "The region of the bucket.", Some(&["AWS_REGION", "AWS_DEFAULT_REGION"])),
    key!("endpoint", text(endpoint::server), endpoint,
        "The URL of the S3 server, without the bucket's name; the default is AWS.",
        Some(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])),
    key!("addressing", ADDRESSING, addressing,
        "Where the bucket's name goes in requests to S3: `path`, `virtual` or `auto`."),
    key!("requester_pays", BOOLEAN, requester_pays,
        "Agree to pay for reading buckets whose owner does not pay for it."),
    key!("allow_version_id", BOOLEAN, allow_version_id,
        "Let clients ask for a version of an object: /files/a.bam?versionId=..."),
    key!("denied_is_missing", BOOLEAN, denied_is_missing,
        "Send 404 instead of 403 if S3 denies access to an object."),
    key!("cache_control", CacheControl, cache_control,
        "The `Cache-Control` of objects that are stored without one; off sends none."),
    key!("sse_customer_key_file", PATH, customer_key_file,
        "A file with the key of objects that are encrypted with SSE-C."),
];

/// The keys that only mounts have.
#[rustfmt::skip]
pub(super) const MOUNT: &[Key<MountSettings>] = &[
    key!("bucket", text(bucket::name), bucket, "The bucket, or the ARN of an access point."),
    key!("prefix", text(bucket::prefix), prefix, "Put in front of every key."),
];

/// The keys of a map of `credentials`.
#[rustfmt::skip]
pub(super) const CREDENTIALS: &[Key<CredentialsMap>] = &[
    key!("access_key_id", text(access_key_id), keys.id, "An access key."),
    key!("secret_access_key", text(secret_key), keys.secret, "The secret that belongs to it."),
    key!("session_token", text(session_token), keys.token, "For temporary credentials."),
    key!("profile", text(credentials::profile), profile,
        "A profile of ~/.aws/config or ~/.aws/credentials."),
    key!("role_arn", text(credentials::role_arn), role_arn, "A role to assume."),
    key!("external_id", text(credentials::external_id), external_id,
        "The external ID that the role's trust policy requires."),
    key!("session_name", text(credentials::session_name), session_name,
        "The name of the role's session in CloudTrail."),
    key!("web_identity_token_file", text(credentials::token_file), token_file,
        "A file with a token to exchange for the role."),
];

/// The keys of one of the `rewrite_rules`.
#[rustfmt::skip]
pub(super) const RULE: &[Key<RuleText>] = &[
    key!("from", text(|text| Ok(text.to_owned())), from, "A regular expression."),
    key!("to", text(|text| Ok(text.to_owned())), to, "The replacement of each match."),
    key!("when", WHEN, when, "`always`, or `missing`: only for keys that do not exist."),
];

/// The keys of the top level.
pub(super) fn top_level() -> impl Iterator<Item = &'static About> {
    let alone = TOP_LEVEL.iter().map(|key| &key.about);
    alone.chain(AWS_KEYS.iter().map(|key| &key.about)).chain(INHERITED.iter().map(|key| &key.about))
}

/// The keys of nested maps, except those that the top level has too.
fn nested() -> impl Iterator<Item = &'static About> {
    let mount = MOUNT.iter().map(|key| &key.about);
    let credentials = CREDENTIALS.iter().map(|key| &key.about);
    mount.chain(credentials).chain(RULE.iter().map(|key| &key.about))
}

/// Whether a key of this name exists at any level.
pub(super) fn is_known(name: &str) -> bool {
    top_level().chain(nested()).any(|about| about.name == name)
}

/// All keys with their defaults and one line of documentation each, for `--help`.
pub(crate) fn summary() -> String {
    let mut summary = String::new();
    add_to(&mut summary, "", TOP_LEVEL, &TopLevel::default());
    add_to(&mut summary, "", AWS_KEYS, &AccessKeys::default());
    add_to(&mut summary, "", INHERITED, &MountSettings::default());
    add_to(&mut summary, "mounts./files/.", MOUNT, &MountSettings::default());
    add_to(&mut summary, "credentials.", CREDENTIALS, &CredentialsMap::default());
    add_to(&mut summary, "rewrite_rules.bai.", RULE, &RuleText::default());
    summary
}

fn add_to<S>(summary: &mut String, map: &str, keys: &[Key<S>], defaults: &S) {
    for Key { about, show, .. } in keys {
        let default = show(defaults).map(|value| format!(": {value}")).unwrap_or_default();
        summary.push_str(&format!("  {map}{}{default}\n      {}\n", about.name, about.docs));
    }
}
