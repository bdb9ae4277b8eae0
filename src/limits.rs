//! Sizes and counts that several modules share or that depend on each other, each with its unit and
//! reason. A bound that only one module uses is usually a constant there; one that an operator can
//! set is a default of a settings type.

/// Largest request head, in bytes; a larger one gets a 431. Node accepts 16 KiB too; a bearer token
/// and a long key together take less than 6 KiB.
pub(crate) const REQUEST_HEAD_BYTES: usize = 16 * 1024;

/// First allocation for a connection's request head, in bytes. Real heads have 150 to 900 bytes,
/// and each idle connection keeps this buffer.
pub(crate) const REQUEST_HEAD_INITIAL_BYTES: usize = 1536;

/// Header fields in a request; more get a 431.
pub(crate) const REQUEST_FIELDS: usize = 100;

/// Connections that a worker accepts beyond `max_client_connections` to send a 503. Further ones
/// are closed without a response.
pub(crate) const REFUSED_CONNECTIONS: usize = 256;

/// Longest key that S3 stores, in bytes of UTF-8 (Amazon S3 User Guide, "Naming objects").
pub const KEY_BYTES: usize = 1024;

/// Rewrite rules with `when: missing`. Each may add one request to S3 to a request for a missing
/// key.
pub(crate) const RULES_FOR_MISSING_KEYS: usize = 16;

/// Longest version id of S3, in bytes (Amazon S3 User Guide, "How S3 Versioning works").
pub const VERSION_ID_BYTES: usize = 1024;

/// Longest access key ID and session token together, in bytes. AWS documents no limit; tokens have
/// 400 to 1,500 bytes, and S3 accepts request heads of 8 KiB.
pub(crate) const CREDENTIALS_BYTES: usize = 8 * 1024;

/// Requests that may wait for one credentials provider at once. Others fail with 502 immediately:
/// each occupies a client connection, which mounts with other credentials may need.
pub(crate) const WAITING_FOR_CREDENTIALS: usize = 512;

/// Largest response head from S3, in bytes. User metadata alone may take 2 KiB (Amazon S3 User
/// Guide, "Working with object metadata"); real heads have 400 to 900 bytes.
pub(crate) const RESPONSE_HEAD_BYTES: usize = 16 * 1024;

/// Header fields in a response from S3 that are parsed without an allocation; there may be more.
pub(crate) const RESPONSE_FIELDS: usize = 100;

/// Interim responses (RFC 9110 §15.2) that are skipped before a final one; real servers send one.
pub(crate) const INTERIM_RESPONSES: usize = 16;

/// Body bytes that are read and discarded before the requested range if a server ignores `Range`
/// and sends the whole object. If the range starts later, the client gets the whole object too, as
/// RFC 9110 §14.2 allows, so that a small range does not cost gigabytes of traffic.
pub(crate) const SKIPPED_BYTES: u64 = 16 * 1024 * 1024;

/// Chunk extensions and trailers of one body, in bytes. They are ignored.
pub(crate) const CHUNK_OVERHEAD_BYTES: usize = 16 * 1024;

/// Bytes kept free in front of S3's response head. The client's response head is written there, so
/// that it and the first body bytes are sent by one system call.
pub(crate) const HEADROOM_BYTES: usize = 4 * 1024;

/// Largest body that is received completely before it is forwarded, in bytes. Head and body are
/// then sent by one system call, and each call saved is a packet saved.
pub(crate) const GATHERED_BODY_BYTES: u64 = 64 * 1024;

/// Bytes received at once with the head of a response whose body will be spliced.
pub(crate) const SPLICED_HEAD_BYTES: usize = 4 * 1024;

/// Size of a relay buffer, in bytes: room for the client's response head, S3's response head, and a
/// gathered body.
pub(crate) const RELAY_BUFFER_BYTES: usize = 2 * HEADROOM_BYTES + GATHERED_BODY_BYTES as usize;

/// Size of a relay buffer while many are in use, in bytes. Slow clients occupy theirs for a long
/// time, and a thousand of them must fit into 32 MiB.
pub(crate) const SMALL_RELAY_BUFFER_BYTES: usize = HEADROOM_BYTES + RESPONSE_HEAD_BYTES + 4 * 1024;

/// Busy upstream connections of a worker above which new relay buffers are small.
pub(crate) const BUSY_CONNECTIONS_FOR_SMALL_BUFFERS: usize = 64;

/// Unused relay buffers that a worker keeps.
pub(crate) const POOLED_RELAY_BUFFERS: usize = 64;

/// Size of the buffer through which long bodies are copied to fast clients, in bytes. With 64 KiB,
/// a mebibyte over TLS costs two thirds more CPU time.
pub(crate) const LARGE_RELAY_BUFFER_BYTES: usize = 256 * 1024;

/// Buffers larger than [`SMALL_RELAY_BUFFER_BYTES`] that a worker uses at once to copy bodies.
/// Normally one is in use only while bytes pass through it, but a client that turns out to be slow
/// occupies its first one for a long time.
pub(crate) const ROOMY_RELAY_BUFFERS: usize = 32;

/// Unused large relay buffers that a worker keeps. It fills and empties one after the other, unless
/// a client is slow.
pub(crate) const POOLED_LARGE_RELAY_BUFFERS: usize = 2;

/// Bytes of one body that are moved before the relay yields to the worker's other tasks.
pub(crate) const TURN_BYTES: u64 = 2 * 1024 * 1024;

/// Unsent bytes in the kernel for a client that has taken [`STEADY_CLIENT_BYTES`]. More is not
/// faster, and takes kernel memory for each slow client; a quarter costs a third more CPU time per
/// byte.
pub(crate) const STEADY_CLIENT_UNSENT_BYTES: u32 = 2 * 1024 * 1024;

/// Bytes after which a client is expected to read the rest of a response, so that read-ahead from
/// S3 is no longer limited.
pub(crate) const STEADY_CLIENT_BYTES: u64 = 2 * 1024 * 1024;

/// Largest error body of S3 that is read for its `Code`, in bytes. AWS's have less than 1 KiB.
pub(crate) const ERROR_BODY_BYTES: usize = 32 * 1024;

/// Remaining body bytes that are read and discarded so that the upstream connection can be reused
/// after the client has closed its own. Beyond it a new connection is cheaper.
pub(crate) const DRAIN_BYTES: u64 = 64 * 1024;

/// Bytes read from a client after the last response and before its connection is closed, so that a
/// reset does not destroy that response (RFC 9112 §9.6).
pub(crate) const LINGER_BYTES: usize = 256 * 1024;

const _: () = {
    assert!(REQUEST_HEAD_INITIAL_BYTES <= REQUEST_HEAD_BYTES);
    assert!(3 * (KEY_BYTES + VERSION_ID_BYTES) < REQUEST_HEAD_BYTES);
    assert!(HEADROOM_BYTES + RESPONSE_HEAD_BYTES < SMALL_RELAY_BUFFER_BYTES);
    assert!(SMALL_RELAY_BUFFER_BYTES < RELAY_BUFFER_BYTES);
    assert!(RELAY_BUFFER_BYTES < LARGE_RELAY_BUFFER_BYTES);
    assert!(ERROR_BODY_BYTES + RESPONSE_HEAD_BYTES + HEADROOM_BYTES <= RELAY_BUFFER_BYTES);
};
