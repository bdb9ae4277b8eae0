//! The side thread: a runtime of its own for what no core may wait for, which is name resolution
//! and the refreshing of credentials. What it finds it publishes; the cores only read.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};

/// The handle of the side thread, which lives as long as the process.
#[derive(Clone, Debug)]
pub struct Background {
    runtime: Handle,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the thread or its event loop cannot be had.
    pub fn start() -> io::Result<Background> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("background".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Background { runtime: handle })
    }

    /// Runs a task there until its end or that of the process.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    /// Runs a task there and has the calling thread wait for its end: for start-up, before there
    /// are cores. `None` where the task panicked.
    pub fn wait_for<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.spawn(async move {
            // It fails only where nobody waits any more.
            let _ = sender.send(task.await);
        });
        receiver.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_task_runs_on_the_side_and_its_panic_does_not_end_the_thread() {
        let background = Background::start().unwrap();
        let name = |()| thread::current().name().map(str::to_owned);
        assert_eq!(
            background.wait_for(async move { name(()) }).flatten().as_deref(),
            Some("background")
        );
        assert_eq!(background.wait_for(async { panic!("a defect, for the test") }), None::<()>);
        let slept = async { tokio::time::sleep(Duration::from_millis(1)).await };
        assert_eq!(background.wait_for(slept), Some(()));
    }
}
