//! Counters: each core has its own and is the only one to write them; they are added up when
//! somebody asks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread raises and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it. Only the owning core may call this, so no locked instruction is needed.
    pub fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one core.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the names say it; the fallbacks are explained")]
pub struct Counters {
    pub requests: Counter,
    pub s3_requests: Counter,
    /// Requests that were sent again since S3 failed.
    pub s3_retries: Counter,
    /// Bodies that S3 broke off and that went on from there.
    pub s3_resumes: Counter,
    /// Connections to S3 that were given up since their client took nothing.
    pub s3_pauses: Counter,
    pub bytes_spliced: Counter,
    pub bytes_copied: Counter,
    /// Bodies that were copied since no pipe was to be had.
    pub splice_no_pipe: Counter,
    /// Bodies that were copied since the kernel refused to splice.
    pub splice_refused: Counter,
}

impl Counters {
    /// The sums over all cores.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Counters>) -> Counters {
        let sum = Counters::default();
        for counters in all {
            for (to, from) in sum.each().into_iter().zip(counters.each()) {
                to.1.add(from.1.get());
            }
        }
        sum
    }

    fn each(&self) -> [(&'static str, &Counter); 9] {
        [
            ("requests", &self.requests),
            ("s3_requests", &self.s3_requests),
            ("s3_retries", &self.s3_retries),
            ("s3_resumes", &self.s3_resumes),
            ("s3_pauses", &self.s3_pauses),
            ("bytes_spliced", &self.bytes_spliced),
            ("bytes_copied", &self.bytes_copied),
            ("splice_no_pipe", &self.splice_no_pipe),
            ("splice_refused", &self.splice_refused),
        ]
    }
}

/// `requests=3 s3_requests=1 …`
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, counter)) in self.each().into_iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name}={}", counter.get())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_all_cores() {
        let cores = [Counters::default(), Counters::default()];
        cores[0].requests.add(1);
        cores[1].requests.add(2);
        cores[1].bytes_copied.add(5);
        let words = Counters::sum(&cores).to_string();
        assert!(words.starts_with("requests=3 s3_requests=0 "), "{words}");
        assert!(words.contains(" bytes_copied=5 "), "{words}");
    }
}
