//! The shared arguments of the steps that serve a request.

use crate::http1::request::Request;
use crate::server::live::Live;
use crate::server::worker::Worker;
use crate::sys::socket::Peer;

/// A request, its client, and the worker and settings that serve it.
pub(crate) struct Context<'a> {
    /// The worker that accepted the connection.
    pub worker: &'a Worker,
    /// Read once per request, so that all steps see the same settings.
    pub live: &'a Live,
    pub request: &'a Request<'a>,
    /// The client's address.
    pub peer: &'a Peer,
}
