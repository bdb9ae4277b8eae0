//! Helpers of the suite: stand-ins for S3 and its surroundings, the proxy as a process, a client
//! with control over every byte, and genomic files.

pub(crate) mod certificates;
pub(crate) mod conditions;
pub(crate) mod credential_services;
pub(crate) mod fault_relay;
pub(crate) mod gate;
pub(crate) mod genomics;
pub(crate) mod http_proxy;
pub(crate) mod memory_store;
pub(crate) mod name_server;
pub(crate) mod object;
pub(crate) mod object_request;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw_http;
pub(crate) mod real_s3;
pub(crate) mod s3_server;
pub(crate) mod scripted_upstream;
pub(crate) mod seccomp;
pub(crate) mod tcp_info;
pub(crate) mod tools;

use std::time::{Duration, Instant};

/// Timeout of every single step of a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `true_now` holds, since states of other processes have no event to wait for.
///
/// # Panics
/// If it does not hold within [`PATIENCE`]; `what` names the state.
#[track_caller]
pub(crate) fn eventually(what: &str, mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !true_now() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
