//! The thread that writes the log, and the bounded queue in front of it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, Record};

use crate::logging::limiter::{Admission, Limiter, PERIOD, Suppressed};
use crate::logging::line;
use crate::logging::output::Output;

/// Lines that may wait to be written, in bytes. Up to as many are being written at the same time.
const QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// Capacity that an empty batch of lines keeps, in bytes.
const KEPT_BYTES: usize = 128 * 1024;

/// Pause between two attempts to write to a full disk or a pipe without a reader.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// A handle of the log. Clones write to the same destination.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is work for the thread.
    work: Condvar,
    /// Notified when the thread has written everything after [`State::ending`].
    ended: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    limiter: Limiter,
    reopen: bool,
    ending: bool,
    ended: bool,
}

impl LogWriter {
    /// Opens `path`, or else standard error, and starts the thread.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be created.
    pub fn start(path: Option<&Path>) -> io::Result<LogWriter> {
        let output = path.map_or_else(Output::stderr, Output::open)?;
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: Arc::clone(&shared), output, failure: None };
        thread::Builder::new().name("log".to_owned()).spawn(|| writer.run())?;
        Ok(LogWriter { shared })
    }

    /// Appends whole lines, each of at most [`LINE_BYTES`](super::LINE_BYTES). If the queue is
    /// full, they are dropped and counted.
    pub fn push(&self, lines: &[u8]) {
        let mut state = self.shared.lock();
        if state.lines.len() + lines.len() > QUEUE_BYTES {
            state.dropped += memchr::memchr_iter(b'\n', lines).count() as u64;
            return;
        }
        state.lines.extend_from_slice(lines);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Writes a message. Without a `kind` there is no rate limit.
    pub(super) fn record(&self, record: &Record<'_>, kind: Option<u64>) {
        if kind.is_some_and(|kind| !self.shared.admits(kind)) {
            return;
        }
        let line = line::format(record.level(), *record.args());
        if let Some(kind) = kind {
            self.shared.lock().limiter.remember(kind, line.trim_end());
        }
        self.push(line.as_bytes());
    }

    /// Reopens the file after log rotation, before anything else is written.
    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.work.notify_one();
    }

    /// Waits until everything is written, at most for `timeout`, before the process exits.
    pub fn finish(&self, timeout: Duration) {
        let mut state = self.shared.lock();
        state.ending = true;
        self.shared.work.notify_one();
        let is_running = |state: &mut State| !state.ended;
        let waited = self.shared.ended.wait_timeout_while(state, timeout, is_running);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, kind: u64) -> bool {
        let admission = self.lock().limiter.admit(kind, Instant::now());
        if admission == Admission::FirstSuppressed {
            // The thread must compute anew when to wake up.
            self.work.notify_one();
        }
        admission == Admission::Write
    }

    /// Waits until there is something to do, or until `deadline`.
    fn wait_for_work<'s>(
        &'s self,
        state: MutexGuard<'s, State>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        let Some(deadline) = deadline else {
            return self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        let timeout = deadline.saturating_duration_since(Instant::now());
        self.work.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Writer {
    shared: Arc<Shared>,
    output: Output,
    /// The last error of a write.
    failure: Option<io::Error>,
}

enum Work {
    /// Write the batch, then report dropped and suppressed lines.
    Lines {
        dropped: u64,
        suppressed: Vec<Suppressed>,
    },
    Reopen,
    End,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            match self.next(&mut batch) {
                Work::Lines { dropped, suppressed } => {
                    self.write(&batch);
                    batch.clear();
                    self.report(dropped, &suppressed);
                    batch.shrink_to(KEPT_BYTES);
                }
                Work::Reopen => self.reopen(&[], &mut 0),
                Work::End => {
                    self.shared.lock().ended = true;
                    self.shared.ended.notify_all();
                    return;
                }
            }
        }
    }

    /// Waits for work. Moves queued lines into `batch`, which must be empty.
    fn next(&self, batch: &mut Vec<u8>) -> Work {
        let mut state = self.shared.lock();
        loop {
            let (now, ending) = (Instant::now(), state.ending);
            if std::mem::take(&mut state.reopen) {
                return Work::Reopen;
            }
            let next_end = state.limiter.next_end();
            let is_due = next_end.is_some_and(|end| end <= now || ending);
            if is_due || !state.lines.is_empty() || state.dropped > 0 {
                let suppressed = state.limiter.take_suppressed(now, ending);
                std::mem::swap(batch, &mut state.lines);
                return Work::Lines { dropped: std::mem::take(&mut state.dropped), suppressed };
            }
            if ending {
                return Work::End;
            }
            state = self.shared.wait_for_work(state, next_end);
        }
    }

    /// Writes all lines, however long it takes. Gives up only if a write fails while the process
    /// exits.
    fn write(&mut self, lines: &[u8]) {
        let mut at = 0;
        while at < lines.len() {
            let written = self.output.write_some(lines, &mut at);
            let mut state = self.shared.lock();
            if let Err(error) = written {
                if state.ending {
                    drop(state);
                    self.output.remove_partial_line(lines, &mut at);
                    return;
                }
                self.failure = Some(error);
                if !state.reopen {
                    let retry = Instant::now() + RETRY_PERIOD;
                    while !state.reopen && !state.ending && Instant::now() < retry {
                        state = self.shared.wait_for_work(state, Some(retry));
                    }
                }
            }
            let reopen = std::mem::take(&mut state.reopen);
            drop(state);
            if reopen {
                self.reopen(lines, &mut at);
            }
        }
    }

    fn reopen(&mut self, lines: &[u8], at: &mut usize) {
        let name = self.output.name();
        if !self.output.has_path() {
            log::info!(target: super::UNLIMITED, "the log goes to {name}: nothing to reopen");
            return;
        }
        match self.output.reopen(lines, at) {
            Ok(()) => log::info!(target: super::UNLIMITED, "reopened {name}"),
            Err(error) => log::error!(
                target: super::UNLIMITED,
                "cannot reopen {name}: {error}; the old file stays in use"
            ),
        }
    }

    /// Reports dropped and suppressed lines, bypassing the queue, which may be full again.
    fn report(&mut self, dropped: u64, suppressed: &[Suppressed]) {
        let mut lines = String::new();
        if dropped > 0 {
            let reason = match self.failure.take() {
                Some(error) => format!(": {error}"),
                None => " fast enough".to_owned(),
            };
            let (were, name) =
                (if dropped == 1 { "line was" } else { "lines were" }, self.output.name());
            lines += &line::format(
                Level::Warn,
                format_args!(
                    "{dropped} log {were} dropped because {name} could not be written{reason}"
                ),
            );
        }
        for Suppressed { messages, example } in suppressed {
            let seconds = PERIOD.as_secs();
            lines += &line::format(
                Level::Warn,
                format_args!("{messages} more of this kind within {seconds} s: {example}"),
            );
        }
        self.write(lines.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_queued_lines_are_written_before_the_end_and_dropped_ones_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = LogWriter::start(Some(&path)).unwrap();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        (0..100).for_each(|_| log.push(&line));
        log.push(&line.repeat(QUEUE_BYTES / 100 + 1));
        log.finish(Duration::from_secs(20));
        let text = std::fs::read(&path).unwrap();
        let (lines, report) = text.split_at(line.len() * 100);
        assert_eq!(lines, line.repeat(100));
        let report = String::from_utf8_lossy(report);
        let count = QUEUE_BYTES / 100 + 1;
        assert!(report.contains(&format!(" WARN {count} log lines were dropped because ")));
    }

    #[test]
    fn reopening_after_rotation_loses_no_line() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let log = LogWriter::start(Some(&path)).unwrap();
        log.push(b"a\n");
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        log.push(b"b\n");
        log.finish(Duration::from_secs(20));
        let both = [std::fs::read(&old).unwrap(), std::fs::read(&path).unwrap()];
        assert_eq!(both.concat(), b"a\nb\n");
    }
}
