//! Where the log goes and what its lines look like.

use std::io::Write;

use env_logger::{Builder, Target};

use crate::clock::{self, CivilTime};
use crate::config::Config;
use crate::server::{StartError, open_log};

/// Starts logging as configured: `2026-11-24T03:30:56Z WARN words`.
///
/// # Errors
/// [`StartError::LogFile`].
pub(super) fn start(config: &Config) -> Result<(), StartError> {
    let target = match &config.log_file {
        Some(path) => Target::Pipe(Box::new(open_log(path)?)),
        None => Target::Stderr,
    };
    let mut builder = Builder::new();
    builder.filter_module("s3proxy", config.log_level).target(target).format(|out, record| {
        let CivilTime { year, month, day, hour, minute, second } =
            CivilTime::new(clock::unix_seconds());
        writeln!(
            out,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z {} {}",
            record.level(),
            record.args()
        )
    });
    // It fails where a program that uses this library has its own log already.
    let _ = builder.try_init();
    Ok(())
}
