//! The log: messages and access log lines on their way to standard error or a file.
//!
//! Lines are pushed to a bounded queue, which never blocks, and written by a thread of its own. So a
//! stalled reader or a full disk costs log lines, which are counted, and nothing else. Lines are
//! written whole, and a file can be reopened after a rotation.
//!
//! Messages of one kind (the same place in the code and the same `target`) are written ten times a
//! minute at most, since every request may fail in the same way; the rest is counted.

mod limiter;
mod line;
mod output;
mod writer;

use std::hash::{BuildHasher, Hasher};
use std::panic;

use log::{Level, LevelFilter, Log, Metadata, Record};

pub(crate) use line::is_disturbing;
pub(crate) use writer::LogWriter;

/// Longest line in bytes, including its end: a pipe takes that much at once or not at all
/// (`PIPE_BUF`).
pub(crate) const LINE_BYTES: usize = 4096;

/// The `target` of messages that an operator asked for: their number is not limited.
pub(crate) const UNBOUNDED: &str = "s3proxy::unbounded";

/// Sends this program's messages of at least `level` to `log`, panics included, which would
/// otherwise be written to standard error and block.
pub(crate) fn install(log: &LogWriter, level: LevelFilter) {
    // Fails if a program that uses this library has installed a logger of its own.
    if log::set_boxed_logger(Box::new(Logger { log: log.clone() })).is_err() {
        return;
    }
    log::set_max_level(level);
    panic::set_hook(Box::new(|panic| log::error!("bug: {panic}")));
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

/// The kind that a message counts as; `None` if its number is not limited, as for `debug`.
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
