//! s3proxy puts private S3 objects behind plain URLs, read-only, for programs that cannot sign.
//!
//! Read one request in this order: [`server::accept`] accepts, [`server::connection`] reads a head,
//! [`server::handler`] serves it; below them [`s3::client`] signs and sends over an
//! [`upstream`] connection, and [`relay`] moves the body.
//!
//! The folders are layers; an import points to a lower layer only (`tests/layers.rs` checks it):
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

/// Parts of the crate for its tests, fuzz targets, benchmarks and the demo: no public API, and no
/// promise that they stay. Everything else is private, so that the compiler finds what nobody uses.
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
