//! Every bound of the program in one place, with its unit and its reason.

/// Largest request head accepted, in bytes. Larger is 431. nginx and Node accept 16 KiB too; a
/// bearer token and a long key together stay below 6 KiB.
pub const REQUEST_HEAD_BYTES: usize = 16 * 1024;

/// First allocation for a connection's request head, in bytes. Real heads measure 150 to 900
/// bytes, and an idle keep-alive connection pays for this buffer.
pub const REQUEST_HEAD_INITIAL_BYTES: usize = 2 * 1024;

/// Header fields in one request. More is 431.
pub const REQUEST_FIELDS: usize = 100;

/// Longest key that S3 stores, in bytes of UTF-8 (Amazon S3 User Guide, "Naming objects").
pub const KEY_BYTES: usize = 1024;

/// Largest response head accepted from S3, in bytes. User metadata alone may take 2 KiB
/// (Amazon S3 User Guide, "Working with object metadata"), real heads measure 400 to 900 bytes.
pub const RESPONSE_HEAD_BYTES: usize = 16 * 1024;

/// Header fields in one response of S3.
pub const RESPONSE_FIELDS: usize = 100;

/// Bytes kept free in front of S3's answer, where the client's head is written so that head and
/// first body bytes leave in one send.
pub const HEADROOM_BYTES: usize = 4 * 1024;

/// Size of one relay buffer, in bytes: head room plus what one receive may bring.
pub const RELAY_BUFFER_BYTES: usize = HEADROOM_BYTES + 64 * 1024;

/// Relay buffers one core keeps for the next body.
pub const POOLED_RELAY_BUFFERS: usize = 64;

/// Bytes that one body may splice before the core's other tasks have their turn.
pub const SPLICE_TURN_BYTES: u64 = 2 * 1024 * 1024;

/// Largest error body of S3 that is read to learn its code, in bytes. AWS's are below 1 KiB.
pub const ERROR_BODY_BYTES: usize = 32 * 1024;

/// Body bytes still to come that are read and thrown away to keep an upstream connection after
/// its client has gone. Beyond it a new connection is cheaper.
pub const DRAIN_BYTES: u64 = 64 * 1024;

/// Bytes of an unwanted request that are read before a connection is closed, so that the answer
/// is not lost to a reset (RFC 9112 §9.6).
pub const LINGER_BYTES: usize = 256 * 1024;

/// Sizes and counts that must fit into one another.
const _: () = {
    assert!(REQUEST_HEAD_INITIAL_BYTES <= REQUEST_HEAD_BYTES);
    assert!(3 * KEY_BYTES < REQUEST_HEAD_BYTES);
    assert!(HEADROOM_BYTES + RESPONSE_HEAD_BYTES < RELAY_BUFFER_BYTES);
    assert!(ERROR_BODY_BYTES + RESPONSE_HEAD_BYTES + HEADROOM_BYTES <= RELAY_BUFFER_BYTES);
};
