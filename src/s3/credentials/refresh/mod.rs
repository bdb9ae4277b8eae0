//! Refreshes credentials: one task per login, all on the background thread.
//!
//! Credentials are refreshed well before they expire. While refreshes fail, the last good
//! credentials stay in use as long as they are valid, and retries back off.
//!
//! A request asks for a load if it finds no valid credentials or if S3 rejects them. The load
//! starts at once, unless recent requested loads did not help.

mod failure;
mod provider;
mod proxied;
mod refresher;
mod schedule;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use crate::s3::credentials::Credentials;
use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::credentials::refresh::refresher::{Due, Refresher};
use crate::sys::background::{Background, Task};

/// Longest sleep. The clock that measures sleeps stops while the machine is suspended; the expiry
/// of credentials does not wait.
const SLEEP: Duration = Duration::from_secs(30);

/// Starts refreshing `handles` and waits up to `timeout` for the first load of each. Dropping a
/// task ends the refresh of its handle.
pub(crate) fn start(
    background: &Background,
    handles: &[Arc<CredentialsHandle>],
    timeout: Duration,
) -> Vec<Task> {
    let deadline = Instant::now() + timeout;
    let waits: Vec<_> = handles
        .iter()
        .map(|handle| {
            let (attempted, first) = mpsc::channel();
            let task = background.spawn_owned(keep_fresh(Arc::clone(handle), attempted));
            (handle, first, task)
        })
        .collect();
    let mut tasks = Vec::new();
    for (handle, first, task) in waits {
        tasks.push(task);
        let left = deadline.saturating_duration_since(Instant::now());
        if first.recv_timeout(left).is_err() {
            log::warn!(
                "credentials of {}: none after {} s; until they arrive, requests get a 502 response",
                handle.login(),
                timeout.as_secs()
            );
            handle.fail(format!("no response within {} s", timeout.as_secs()));
        }
    }
    tasks
}

async fn keep_fresh(handle: Arc<CredentialsHandle>, attempted: Sender<()>) {
    let mut refresher = Refresher::new(handle);
    let mut attempted = Some(attempted);
    loop {
        let handle = Arc::clone(&refresher.handle);
        let was_requested = handle.begin_load();
        let loaded = load(&handle).await;
        let due = refresher.take(loaded, was_requested);
        handle.end_load(schedule::until_requested(refresher.failures > 0, refresher.fruitless));
        if let Some(attempted) = attempted.take() {
            // Fails if `start` has stopped waiting.
            let _ = attempted.send(());
        }
        wait(&handle, due).await;
    }
}

/// Loads in a separate task, so that a panic in a provider ends the load and not the refresher.
async fn load(handle: &Arc<CredentialsHandle>) -> Result<Credentials, String> {
    let handle = Arc::clone(handle);
    let task =
        async move { provider::load(handle.login(), handle.sts_region(), handle.proxies()).await };
    let loaded = tokio::spawn(task).await;
    loaded.unwrap_or_else(|_| Err("bug: the load panicked".to_owned()))
}

/// Waits until a load is due, or until one was requested and may start.
async fn wait(handle: &CredentialsHandle, due: Due) {
    loop {
        let wanted = handle.wanted_at().map(|at| at.saturating_duration_since(Instant::now()));
        let left = due.left(handle).into_iter().chain(wanted).min();
        if left == Some(Duration::ZERO) {
            return;
        }
        let slice = left.map_or(SLEEP, |left| left.min(SLEEP));
        match wanted {
            Some(_) => tokio::time::sleep(slice).await,
            // The next iteration sees the request.
            None => drop(tokio::time::timeout(slice, handle.requested()).await),
        }
    }
}
