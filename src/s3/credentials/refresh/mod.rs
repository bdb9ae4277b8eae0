//! Refreshes credentials: one task per handle, all of them on the background thread.
//!
//! Credentials are refreshed well before they expire. While that fails, the last good ones stay in
//! use as long as they are valid, and retries back off. Only changes are logged: the first
//! credentials, the first failure, expiry, and recovery.
//!
//! Requests ask for a load if they find no valid credentials or S3 rejects them. It begins at once,
//! unless loads that were asked for shortly before did not help.

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

/// Longest sleep. The clock that measures sleeps stops while a machine is suspended; the clock by
/// which credentials expire does not.
const SLEEP: Duration = Duration::from_secs(30);

/// Starts refreshing `handles`, until their tasks are dropped, and waits up to `patience` for the
/// first load of each.
pub(crate) fn start(
    background: &Background,
    handles: &[Arc<CredentialsHandle>],
    patience: Duration,
) -> Vec<Task> {
    let deadline = Instant::now() + patience;
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
                patience.as_secs()
            );
            handle.fail(format!("no response within {} s", patience.as_secs()));
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
            // Fails if start-up has stopped waiting.
            let _ = attempted.send(());
        }
        wait(&handle, due).await;
    }
}

/// Loads in a task of its own, so that a panic in a provider ends the load, not the refresher.
async fn load(handle: &Arc<CredentialsHandle>) -> Result<Credentials, String> {
    let handle = Arc::clone(handle);
    let task =
        async move { provider::load(handle.login(), handle.sts_region(), handle.proxies()).await };
    let loaded = tokio::spawn(task).await;
    loaded.unwrap_or_else(|_| Err("bug: the load panicked".to_owned()))
}

/// Waits until a load is due, or until one is asked for and may begin.
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
            // The next round sees what was asked for.
            None => drop(tokio::time::timeout(slice, handle.asked()).await),
        }
    }
}
