//! The few lines that do not go to the log. They are written on their own thread, so that a pipe
//! that nobody reads blocks neither the program nor its response to signals.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longest wait for a line to be written.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Prints lines to standard output, and ignores errors: a server without a terminal still serves.
pub(super) fn say(lines: &str) {
    write(io::stdout, format!("{lines}\n"));
}

/// Prints an error to standard error; if that is closed, the exit code still reports the failure.
pub(super) fn complain(error: &dyn Display) {
    write(io::stderr, format!("s3proxy: {error}\n"));
}

fn write<W: Write + 'static>(stream: fn() -> W, text: String) {
    let (sender, receiver) = mpsc::channel::<()>();
    let writing = thread::Builder::new().name("output".to_owned()).spawn(move || {
        let mut stream = stream();
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
        drop(sender);
    });
    if writing.is_ok() {
        // Fails at once when the thread has finished and dropped the sender.
        let _ = receiver.recv_timeout(TIMEOUT);
    }
}
