//! The log: messages and access log lines on their way to standard error or a file.
//!
//! Whoever logs hands lines over to a bounded queue, which never blocks; one thread writes them. A
//! reader that stalls or a disk that is full therefore costs log lines, which are counted, and
//! nothing else. Lines are written whole, and a file can be opened again after a rotation.
//!
//! Messages of one kind (of one place in the code, and with one `target`) are written ten times a
//! minute at most, since a failure may be that of every request; the rest is counted.

mod limiter;
mod line;
mod output;
mod writer;

use std::hash::{BuildHasher, Hasher};
use std::panic;

use log::{Level, LevelFilter, Log, Metadata, Record};

pub(crate) use line::is_disturbing;
pub use writer::LogWriter;

/// Longest line, in bytes, with its end: what a pipe takes at once or not at all (`PIPE_BUF`).
pub const LINE_BYTES: usize = 4096;

/// The `target` of messages that an operator has asked for: all of them are written.
pub const UNBOUNDED: &str = "s3proxy::unbounded";

/// Sends this program's messages, from `level` on, to `log`; those of panics too, whose default is
/// a blocking write to standard error.
pub fn install(log: &LogWriter, level: LevelFilter) {
    // It fails where a program that uses this library has its own log already.
    if log::set_boxed_logger(Box::new(Logger { log: log.clone() })).is_err() {
        return;
    }
    log::set_max_level(level);
    panic::set_hook(Box::new(|panic| log::error!("a defect of s3proxy: {panic}")));
}

struct Logger {
    log: LogWriter,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("s3proxy")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.log.record(record, kind(record));
        }
    }

    fn flush(&self) {}
}

/// What messages are counted under, if they are: whoever asks for `debug` wants all of it.
fn kind(record: &Record<'_>) -> Option<u64> {
    if record.level() > Level::Info || record.target() == UNBOUNDED {
        return None;
    }
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(record.target().as_bytes());
    hasher.write(record.file().unwrap_or_default().as_bytes());
    hasher.write_u32(record.line().unwrap_or_default());
    Some(hasher.finish())
}
