//! Counters, gauges and histograms.
//!
//! Each worker has its own [`Metrics`] and is the only thread that writes them, so no write needs
//! an atomic read-modify-write instruction. Any thread may read them at any time, and adds them up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Declares all metrics, in the order of their output: `name: Kind [unit], "help"`.
macro_rules! metrics {
    ($($name:ident: $kind:ident [$unit:literal], $help:literal;)*) => {
        /// The metrics of one worker.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $name: $kind,)*
        }

        impl Metrics {
            /// All metrics, in the order of their declaration.
            pub fn each(&self) -> Vec<Metric<'_>> {
                vec![$(Metric {
                    name: stringify!($name),
                    unit: $unit,
                    help: $help,
                    value: Value::$kind(&self.$name),
                }),*]
            }
        }
    };
}

metrics! {
    requests: Counter ["requests"], "Requests that got a response, whatever its status.";
    s3_requests: Counter ["requests"], "Requests sent to S3.";
    s3_retries: Counter ["requests"], "Requests sent to S3 again after a failure.";
    s3_resumes: Counter ["responses"], "Bodies that S3 cut short and that were resumed.";
    s3_pauses: Counter ["responses"], "Connections to S3 closed because the client paused.";
    bytes_spliced: Counter ["bytes"], "Body bytes moved by splice(2).";
    bytes_copied: Counter ["bytes"], "Body bytes copied through memory of this process.";
    splice_no_pipe: Counter ["responses"], "Bodies copied because no pipe was available.";
    splice_refused: Counter ["responses"], "Bodies copied because the kernel refused to splice.";
    client_connections: Gauge ["connections"], "Open client connections.";
    s3_connections_busy: Gauge ["connections"], "Connections to S3 in use or being opened.";
    s3_connections_idle: Gauge ["connections"], "Connections to S3 kept for the next request.";
    s3_requests_waiting: Gauge ["requests"], "Requests waiting for a connection to S3.";
    pipes_in_use: Gauge ["pipes"], "Pipes through which a body is being moved.";
    buffers_in_use: Gauge ["buffers"], "Relay buffers in use that are not small.";
    request_seconds: Histogram ["seconds"], "From a request's head to the last byte of its response.";
    s3_first_byte_seconds: Histogram ["seconds"], "Until S3's response to a GET starts, waits and retries included.";
}

/// One metric with its declaration.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    /// The name of the field in [`Metrics`], and in output.
    pub name: &'static str,
    /// A plural, such as `bytes`.
    pub unit: &'static str,
    pub help: &'static str,
    pub value: Value<'a>,
}

/// A metric by its kind.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each is the kind of its name")]
pub enum Value<'a> {
    Counter(&'a Counter),
    Gauge(&'a Gauge),
    Histogram(&'a Histogram),
}

impl Metrics {
    /// The sums over all workers.
    pub fn sum<'a>(workers: impl IntoIterator<Item = &'a Metrics>) -> Metrics {
        let sum = Metrics::default();
        for worker in workers {
            for (to, from) in sum.each().into_iter().zip(worker.each()) {
                match (to.value, from.value) {
                    (Value::Counter(to), Value::Counter(from)) => to.add(from.get()),
                    (Value::Gauge(to), Value::Gauge(from)) => to.0.add(from.0.get()),
                    (Value::Histogram(to), Value::Histogram(from)) => to.merge(from),
                    _ => unreachable!("both are the same metric"),
                }
            }
        }
        sum
    }
}

/// All on one line, with the 50th and 99th percentile of each histogram:
/// `requests=3 … request_seconds_p99<=0.25`.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Metric { name, value, .. }) in self.each().into_iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            match value {
                Value::Counter(counter) => write!(f, "{space}{name}={}", counter.get())?,
                Value::Gauge(gauge) => write!(f, "{space}{name}={}", gauge.get())?,
                Value::Histogram(histogram) => {
                    for percent in [50, 99] {
                        match histogram.percentile(percent) {
                            Some(bound) => write!(f, " {name}_p{percent}<={}", bound.as_secs_f64()),
                            None => write!(f, " {name}_p{percent}=none"),
                        }?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Must be called by the worker that owns it.
    pub fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The number of things that exist at the moment, written by one thread.
#[derive(Debug, Default)]
pub struct Gauge(Counter);

impl Gauge {
    /// Must be called by the worker that owns it.
    pub fn increment(&self) {
        self.0.add(1);
    }

    /// Must be called by the worker that owns it.
    pub fn decrement(&self) {
        debug_assert!(self.get() > 0);
        self.0.add(u64::MAX);
    }

    pub fn get(&self) -> usize {
        self.0.get() as usize
    }
}

/// Upper bounds of a histogram's buckets, in microseconds: from a cache hit to the patience of a
/// user. One more bucket counts longer durations.
const BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// A distribution of durations, written by one thread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_US.len() + 1],
}

impl Histogram {
    /// Must be called by the worker that owns it.
    pub fn record(&self, duration: Duration) {
        let us = duration.as_micros() as u64;
        self.buckets[BOUNDS_US.partition_point(|&bound| bound < us)].add(1);
    }

    /// An upper bound of the shortest `percent` of the durations; `None` if there are none, or if
    /// one of them exceeds the largest bound.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let count: u64 = self.buckets.iter().map(Counter::get).sum();
        let mut remaining = (count * percent).div_ceil(100);
        if count == 0 {
            return None;
        }
        for (bucket, &bound) in self.buckets.iter().zip(&BOUNDS_US) {
            remaining = remaining.saturating_sub(bucket.get());
            if remaining == 0 {
                return Some(Duration::from_micros(bound));
            }
        }
        None
    }

    fn merge(&self, other: &Histogram) {
        for (to, from) in self.buckets.iter().zip(&other.buckets) {
            to.add(from.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sums_cover_all_workers() {
        let workers = [Metrics::default(), Metrics::default()];
        workers[0].requests.add(1);
        workers[1].requests.add(2);
        workers[1].bytes_copied.add(5);
        workers[0].client_connections.increment();
        workers[1].client_connections.increment();
        workers[1].client_connections.increment();
        workers[1].client_connections.decrement();
        workers[0].request_seconds.record(Duration::from_micros(100));
        workers[1].request_seconds.record(Duration::from_millis(3));
        let line = Metrics::sum(&workers).to_string();
        assert!(line.starts_with("requests=3 s3_requests=0 "), "{line}");
        assert!(line.contains(" bytes_copied=5 ") && line.contains(" client_connections=2 "));
        assert!(
            line.contains(" request_seconds_p50<=0.0001 request_seconds_p99<=0.005 "),
            "{line}"
        );
        assert!(line.ends_with(" s3_first_byte_seconds_p99=none"), "{line}");
    }

    #[test]
    fn percentiles_are_upper_bounds_of_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        (0..98).for_each(|_| histogram.record(Duration::from_micros(2_500)));
        histogram.record(Duration::from_micros(2_501));
        histogram.record(Duration::from_secs(61));
        assert_eq!(histogram.percentile(98), Some(Duration::from_micros(2_500)));
        assert_eq!(histogram.percentile(99), Some(Duration::from_millis(5)));
        assert_eq!(histogram.percentile(100), None);
    }

    #[test]
    fn every_metric_is_declared_once_with_unit_and_help() {
        let metrics = Metrics::default();
        let names: BTreeSet<_> = metrics.each().iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), metrics.each().len());
        for metric in metrics.each() {
            assert!(metric.unit.ends_with('s') && metric.help.ends_with('.'), "{}", metric.name);
            let is_duration = matches!(metric.value, Value::Histogram(_));
            assert_eq!(is_duration, metric.unit == "seconds", "{}", metric.name);
        }
    }
}
