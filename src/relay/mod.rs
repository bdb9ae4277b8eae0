//! Moving a body of known length from one socket to another.
//!
//! The relay is blind: it is given a prefix (bytes to send first, in a buffer), two sockets and a
//! length, and knows neither S3 nor HTTP. It never reads past the length, never sends more or
//! less than it was given, and holds one buffer whatever the length. A reader that stops stops
//! the relay's reading: nothing is received before the last bytes were taken.

pub mod buffers;
pub mod copy;

use std::io;
use std::time::Duration;

/// How long the relay waits for either side before it gives that side up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the next bytes of the source.
    pub source: Duration,
    /// For the sink to take some.
    pub sink: Duration,
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// All bytes were sent.
    Complete,
    /// The source ended, broke or fell silent.
    SourceFailed(io::Error),
    /// The sink closed, broke or stopped reading.
    SinkFailed(io::Error),
}

/// What a relay did.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// Bytes of the length that were not received from the source.
    pub remaining: u64,
    /// Bytes that the sink took, the prefix included; what a failed send took of its last bytes
    /// is not counted.
    pub sent: u64,
}
