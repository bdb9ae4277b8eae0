//! The log: writes messages and access log lines to standard error or a file.
//!
//! Lines go into a bounded queue without blocking, and a thread writes them. So a stalled reader or
//! a full disk only costs log lines, which are counted. Lines are never split, and a file can be
//! reopened after log rotation.
//!
//! Of messages of one kind (same source location and same `target`), at most ten are written per
//! minute, since all requests may fail in the same way; the others are counted.

mod limiter;
mod line;
mod output;
mod writer;

use std::hash::{BuildHasher, Hasher};
use std::panic;

use log::{Level, LevelFilter, Log, Metadata, Record};

pub(crate) use line::is_unprintable;
pub(crate) use writer::LogWriter;

/// Longest line in bytes, line feed included: `PIPE_BUF`, the most that a write to a pipe never
/// splits.
pub(crate) const LINE_BYTES: usize = 4096;

/// The `target` of messages without a rate limit, since an operator's action causes them.
pub(crate) const UNLIMITED: &str = "s3proxy::unlimited";

/// Sends this program's messages up to `level` to `log`. That includes panics, which would
/// otherwise be written to standard error and may block.
pub(crate) fn install(log: &LogWriter, level: LevelFilter) {
    // Fails if another logger is installed, as in tests.
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

/// The kind of a message for the rate limit; `None` if it has none, as for `debug`.
fn kind(record: &Record<'_>) -> Option<u64> {
    if record.level() > Level::Info || record.target() == UNLIMITED {
        return None;
    }
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(record.target().as_bytes());
    hasher.write(record.file().unwrap_or_default().as_bytes());
    hasher.write_u32(record.line().unwrap_or_default());
    Some(hasher.finish())
}
