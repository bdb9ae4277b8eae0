//! Sizes and counts that several modules share or that must fit into one another, each with its
//! unit and its reason. Bounds that one module alone uses stand in that module; those that an operator
//! can set are defaults of the settings types.

/// Largest request head accepted, in bytes. Larger is 431. nginx and Node accept 16 KiB too; a
/// bearer token and a long key together stay below 6 KiB.
pub(crate) const REQUEST_HEAD_BYTES: usize = 16 * 1024;

/// First allocation for a connection's request head, in bytes. Real heads measure 150 to 900
/// bytes, and an idle keep-alive connection pays for this buffer.
pub(crate) const REQUEST_HEAD_INITIAL_BYTES: usize = 1536;

/// Header fields in one request. More is 431.
pub(crate) const REQUEST_FIELDS: usize = 100;

/// Connections of one core, beyond the most that it serves, that are told so in a 503. Further ones
/// are closed unheard.
pub(crate) const REFUSED_CONNECTIONS: usize = 256;

/// Longest key that S3 stores, in bytes of UTF-8 (Amazon S3 User Guide, "Naming objects").
pub const KEY_BYTES: usize = 1024;

/// Rewrite rules for keys that do not exist. Each may cost such a request one more to S3.
pub(crate) const RULES_FOR_MISSING_KEYS: usize = 16;

/// Longest version id of S3, in bytes (Amazon S3 User Guide, "How S3 Versioning works").
pub const VERSION_ID_BYTES: usize = 1024;
/// Longest access key id and session token together, in bytes. AWS gives no bound; tokens measure
/// 400 to 1,500, and S3 accepts request heads of 8 KiB.
pub(crate) const CREDENTIALS_BYTES: usize = 8 * 1024;

/// Requests that may wait for credentials of one source at once. Others are answered 502 at once:
/// each holds a client's connection, which mounts with other credentials may need.
pub(crate) const WAITING_FOR_CREDENTIALS: usize = 512;

/// Largest response head accepted from S3, in bytes. User metadata alone may take 2 KiB
/// (Amazon S3 User Guide, "Working with object metadata"), real heads measure 400 to 900 bytes.
pub(crate) const RESPONSE_HEAD_BYTES: usize = 16 * 1024;

/// Header fields in one response of S3 that are parsed without an allocation; a response may have more.
pub(crate) const RESPONSE_FIELDS: usize = 100;

/// Interim responses (RFC 9110 §15.2) that are skipped before S3's response; real servers send one.
pub(crate) const INTERIM_RESPONSES: usize = 16;

/// Body bytes that are read and thrown away to get at the part that a client wants, where a server
/// ignores `Range` and sends the whole object. Beyond it the client gets the whole object too, as RFC
/// 9110 §14.2 allows: better than to read gigabytes for each slice.
pub(crate) const SKIPPED_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of chunk extensions and trailers of one body, which are read over.
pub(crate) const CHUNK_OVERHEAD_BYTES: usize = 16 * 1024;

/// Bytes kept free in front of S3's answer, where the client's head is written so that head and
/// first body bytes leave in one send.
pub(crate) const HEADROOM_BYTES: usize = 4 * 1024;

/// Largest body that is received whole before it is sent on, in bytes: it then leaves in one send
/// together with its head, and each send saved is a packet saved.
pub(crate) const GATHERED_BODY_BYTES: u64 = 64 * 1024;

/// Bytes received at once with the head of an answer whose body is going to be spliced.
pub(crate) const SPLICED_HEAD_BYTES: usize = 4 * 1024;

/// Size of one relay buffer, in bytes: room for the client's head, for S3's, and for a gathered
/// body.
pub(crate) const RELAY_BUFFER_BYTES: usize = 2 * HEADROOM_BYTES + GATHERED_BODY_BYTES as usize;

/// Size of a relay buffer while many are in use, in bytes: slow readers hold theirs for as long as
/// they like, and a thousand of them shall fit into 32 MiB.
pub(crate) const SMALL_RELAY_BUFFER_BYTES: usize = HEADROOM_BYTES + RESPONSE_HEAD_BYTES + 4 * 1024;

/// Upstream connections of one core that are busy before relay buffers become small.
pub(crate) const UNCROWDED_CONNECTIONS: usize = 64;

/// Relay buffers one core keeps for the next body.
pub(crate) const POOLED_RELAY_BUFFERS: usize = 64;

/// Size of the buffer that long bodies are copied through, in bytes, where the client is fast: of a
/// mebibyte over TLS, 64 KiB at a time cost two thirds more CPU.
pub(crate) const LARGE_RELAY_BUFFER_BYTES: usize = 256 * 1024;

/// Buffers that are not small, of those that bodies are copied through, which one core has in use
/// at once. They are in use only while bytes pass through them, but a client that turns out to be
/// slow holds its first one for long.
pub(crate) const ROOMY_RELAY_BUFFERS: usize = 32;

/// Large relay buffers one core keeps for the next bytes. Bytes pass through one after the other, but
/// where a client makes them wait.
pub(crate) const POOLED_LARGE_RELAY_BUFFERS: usize = 2;

/// Bytes of one body that may be moved before the core's other tasks have their turn.
pub(crate) const TURN_BYTES: u64 = 2 * 1024 * 1024;

/// Bytes that may wait to be sent to a client that reads on. More does not make it faster, and is
/// memory of the kernel for each slow reader; a quarter costs a third more CPU per byte.
pub(crate) const UNSENT_BYTES_FREELY: u32 = 2 * 1024 * 1024;

/// Bytes a client must have taken for S3 to be let send ahead as fast as the network carries.
pub(crate) const READS_ON_BYTES: u64 = 2 * 1024 * 1024;

/// Largest error body of S3 that is read to learn its code, in bytes. AWS's are below 1 KiB.
pub(crate) const ERROR_BODY_BYTES: usize = 32 * 1024;

/// Body bytes still to come that are read and thrown away to keep an upstream connection after
/// its client has gone. Beyond it a new connection is cheaper.
pub(crate) const DRAIN_BYTES: u64 = 64 * 1024;

/// Bytes of an unwanted request that are read before a connection is closed, so that the answer
/// is not lost to a reset (RFC 9112 §9.6).
pub(crate) const LINGER_BYTES: usize = 256 * 1024;

/// Sizes and counts that must fit into one another.
const _: () = {
    assert!(REQUEST_HEAD_INITIAL_BYTES <= REQUEST_HEAD_BYTES);
    assert!(3 * (KEY_BYTES + VERSION_ID_BYTES) < REQUEST_HEAD_BYTES);
    assert!(HEADROOM_BYTES + RESPONSE_HEAD_BYTES < SMALL_RELAY_BUFFER_BYTES);
    assert!(SMALL_RELAY_BUFFER_BYTES < RELAY_BUFFER_BYTES);
    assert!(RELAY_BUFFER_BYTES < LARGE_RELAY_BUFFER_BYTES);
    assert!(ERROR_BODY_BYTES + RESPONSE_HEAD_BYTES + HEADROOM_BYTES <= RELAY_BUFFER_BYTES);
};
