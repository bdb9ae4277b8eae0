//! What one request is served with.

use crate::http1::request::Request;
use crate::server::live::Live;
use crate::server::worker::Worker;
use crate::sys::socket::Peer;

/// One request, with everything that the steps of serving it need.
pub(crate) struct Context<'a> {
    /// The worker that accepted the connection.
    pub worker: &'a Worker,
    /// Read once, so that the request sees one configuration from its start to its end.
    pub live: &'a Live,
    /// The request's head.
    pub request: &'a Request<'a>,
    /// Who asks.
    pub peer: &'a Peer,
}
