//! The background thread: a tokio runtime for work that no worker may wait for, which is name
//! resolution and refreshing credentials. It publishes its results; workers only read them.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

/// A handle of the background thread, which runs until the process ends.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    runtime: Handle,
}

/// A task on the background thread that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Background {
    /// Runs a task there until its end, or until the handle is dropped.
    pub(crate) fn spawn_owned(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(self.runtime.spawn(task).abort_handle())
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread or its event loop cannot be created.
    pub(crate) fn start() -> io::Result<Background> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("background".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Background { runtime: handle })
    }

    /// Runs a task on the background thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn tasks_run_on_the_background_thread_and_a_panic_does_not_end_it() {
        let background = Background::start().unwrap();
        background.spawn(async { panic!("a bug, for the test") });
        let (sender, receiver) = mpsc::channel();
        background.spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            sender.send(thread::current().name().map(str::to_owned)).unwrap();
        });
        assert_eq!(receiver.recv().unwrap().as_deref(), Some("background"));
    }
}
