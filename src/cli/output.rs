//! The few lines that do not belong to the log. They are written on a thread of their own: where
//! nobody reads them, the program goes on, and signals still end it.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longest wait for a line to be taken.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Lines on standard output. Where nobody reads it any more, serving is still worth it.
pub(super) fn say(lines: &str) {
    write(io::stdout, format!("{lines}\n"));
}

/// What is wrong, on standard error; where that is closed the exit code still tells.
pub(super) fn complain(what: &dyn Display) {
    write(io::stderr, format!("s3proxy: {what}\n"));
}

fn write<W: Write + 'static>(stream: fn() -> W, text: String) {
    let (sender, receiver) = mpsc::channel::<()>();
    let writing = thread::Builder::new().name("output".to_owned()).spawn(move || {
        let mut stream = stream();
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
        drop(sender);
    });
    if writing.is_ok() {
        // It ends with the sender, when the thread is done.
        let _ = receiver.recv_timeout(TIMEOUT);
    }
}
