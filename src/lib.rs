//! s3proxy puts private S3 objects behind plain URLs, read-only, for programs that cannot sign.
//!
//! # One request, file by file
//!
//! 1. [`server::accept`] accepts a connection on a worker, a thread with its own event loop.
//! 2. [`server::connection`] receives a request head and parses it ([`http1::request`]).
//! 3. [`server::handler`] finds the mount, responds to OPTIONS, and builds the object's key.
//! 4. [`server::object`] evaluates the conditions against cached metadata. [`server::lookup`] reads
//!    the cache and sends S3 a HEAD on a miss. The response to a HEAD and a 304 from the
//!    cache are sent here.
//! 5. [`server::get`] asks for the body: [`s3::client`] signs the request ([`s3::sigv4`]), sends it
//!    over a pooled connection ([`upstream::pool`]), retries, and reads the response head.
//! 6. [`server::delivery`] sends the client's head and has [`relay`] move the body. If S3 breaks
//!    the body off, it requests the rest.
//! 7. [`server::connection`] writes the access log line and receives the next request.
//!
//! A step that fails returns a [`server::failure`], which has the status and text of the response.
//!
//! # Layers
//!
//! Each folder belongs to one layer and imports only from lower ones (`tests/layers.rs` checks it):
//!
//! | layer | modules |
//! |---|---|
//! | 8 | `cli` |
//! | 7 | `config` |
//! | 6 | `server` |
//! | 5 | `policy`, `access_log`, `cache` |
//! | 4 | `s3`, `relay` |
//! | 3 | `upstream` |
//! | 2 | `http1`, `transport` |
//! | 1 | `sys`, `metrics`, `logging` |
//! | 0 | `limits`, `clock` |

mod access_log;
mod cache;
mod cli;
mod clock;
mod config;
mod http1;
mod limits;
mod logging;
mod metrics;
mod policy;
mod relay;
mod s3;
mod server;
mod sys;
mod transport;
mod upstream;

pub use cli::main;

/// Parts of the crate for its tests, fuzz targets, benchmarks and the demo. They are not a public
/// API and may change at any time. Everything else is private, so that the compiler finds dead
/// code.
#[doc(hidden)]
pub mod internals {
    pub use crate::cache::latest::LatestResponses;
    pub use crate::cache::metadata::{MetadataCache, Settings as MetadataSettings};
    pub use crate::clock::{Iso8601, unix_seconds};
    pub use crate::config::{
        Config, Environment, File, Overrides, Source as ConfigSource, load as load_config,
        resolve as resolve_config,
    };
    pub use crate::http1::chunked::Decoder;
    pub use crate::http1::conditional::{Preconditions, entity_tag};
    pub use crate::http1::framing::{HeadEnd, find_head_end};
    pub use crate::http1::range::{ByteRange, ContentRange};
    pub use crate::http1::request::parse as parse_request;
    pub use crate::http1::response::{Field, ResponseHead};
    pub use crate::http1::target::{Target, percent_decode};
    pub use crate::limits::{KEY_BYTES, VERSION_ID_BYTES};
    pub use crate::policy::rewrite::{Rule, Rules, When};
    pub use crate::policy::route::Mount;
    pub use crate::s3::bucket::{Bucket, BucketId};
    pub use crate::s3::credentials::current::Current;
    pub use crate::s3::credentials::handle::CredentialsHandle;
    pub use crate::s3::credentials::{Credentials, fixed as fixed_credentials};
    pub use crate::s3::endpoint::{Addressing, Endpoint};
    pub use crate::s3::error::ServiceError;
    pub use crate::s3::object::{Metadata, Shown, content_range};
    pub use crate::s3::object_name::{ObjectId, ObjectName};
    pub use crate::s3::request::{ObjectRequest, Operation};
    pub use crate::s3::request_writer::RequestWriter;
    pub use crate::s3::sigv4::{
        EMPTY_PAYLOAD_SHA256, SignedParts, Signer, Timestamp, write_encoded_path,
        write_encoded_query_value,
    };
    pub use crate::s3::sse_c::CustomerKey;
    pub use crate::server::{Running, open_log, start as start_server};
    pub use crate::sys::socket::ListenAddress;
    pub use crate::upstream::Origin;
}
