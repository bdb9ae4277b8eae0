//! The program: parses flags, loads the configuration, serves or checks, and sets the exit code.

pub(crate) mod args;
mod output;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::cli::args::{EXIT_CONFIG, EXIT_FAILED, EXIT_OK, Flags};
use crate::cli::output::{complain, say};
use crate::config::{self, Config};
use crate::logging::{self, LogWriter, UNLIMITED};
use crate::server::check::{self, Finding};
use crate::server::{self, Running};
use crate::sys::process;

/// Runs the program.
pub fn main() -> ExitCode {
    let flags = Flags::from_args(std::env::args_os()).unwrap_or_else(|error| error.exit());
    process::unset_empty_variables(|name| name.starts_with("AWS_"));
    let environment = config::process_environment();
    let code = match config::load(flags.config.as_deref(), &environment, &flags.overrides()) {
        Ok(config) => match flags.check {
            Some(object) => run_check(config, object.as_deref()),
            None => serve(config),
        },
        Err(diagnostics) => {
            // One line per mistake, which starts with its location, as compilers do.
            let _ = writeln!(io::stderr(), "{diagnostics}");
            EXIT_CONFIG
        }
    };
    ExitCode::from(code)
}

/// Longest wait for the last log lines: the reader of the log may have stalled.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// The same after a second signal, which asks for an immediate exit.
const SHORT_LOG_TIMEOUT: Duration = Duration::from_millis(200);

/// Serves until SIGTERM or SIGINT, then drains. SIGUSR1 logs the metrics, SIGHUP reopens the log
/// file.
fn serve(config: Config) -> u8 {
    // First, so that an early signal is not lost. SIGXFSZ: a log file that has reached `ulimit -f`
    // is to be treated like a full disk, not to kill the process.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGXFSZ]);
    let opened = signals.map_err(|error| error.to_string()).and_then(|signals| {
        let log = server::open_log(&config.settings).map_err(|error| error.to_string())?;
        Ok((signals, log))
    });
    let (signals, log) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            complain(&error);
            return EXIT_FAILED;
        }
    };
    logging::install(&log, config.settings.log_level);
    let code = serve_until_signal(config, signals, &log);
    log.finish(LOG_TIMEOUT);
    code
}

fn serve_until_signal(config: Config, mut signals: Signals, log: &LogWriter) -> u8 {
    process::raise_open_files_limit();
    let mut running = match server::start(config.settings, config.live, log) {
        Ok(running) => running,
        Err(error) => {
            log.finish(LOG_TIMEOUT);
            complain(&error);
            return EXIT_FAILED;
        }
    };
    announce(&running);
    let end = signals.forever().find(|&signal| match signal {
        SIGUSR1 => {
            log::info!(target: UNLIMITED, "{}", running.metrics());
            false
        }
        other => is_end(other, log),
    });
    debug_assert!(end.is_some(), "signals are never closed");
    log::info!("draining: responses in progress may finish; a second signal exits at once");
    let second_log = log.clone();
    std::thread::spawn(move || {
        signals.forever().find(|&signal| is_end(signal, &second_log));
        second_log.finish(SHORT_LOG_TIMEOUT);
        std::process::exit(i32::from(EXIT_FAILED));
    });
    let cut = running.drain();
    log::info!("{}", running.metrics());
    if cut == 0 {
        return EXIT_OK;
    }
    let connections = if cut == 1 { "connection was" } else { "connections were" };
    log::warn!("{cut} client {connections} cut at the end of drain_timeout");
    EXIT_FAILED
}

/// Whether a signal ends the process; SIGHUP is handled here.
fn is_end(signal: i32, log: &LogWriter) -> bool {
    if signal == SIGHUP {
        log.reopen();
    }
    matches!(signal, SIGTERM | SIGINT)
}

/// Prints the addresses and the event loops to standard output; scripts wait for the first line.
fn announce(running: &Running) {
    let mut lines: Vec<String> =
        running.addresses.iter().map(|address| format!("listening on {address}")).collect();
    let count = running.drivers.len();
    let first = &running.drivers[0];
    let workers = if count == 1 { "1 worker" } else { &format!("{count} workers") };
    lines.push(match running.drivers.iter().all(|driver| driver == first) {
        true => format!("{workers}: {first}"),
        false => format!("{workers}: {}", running.drivers.join(", ")),
    });
    say(&lines.join("\n"));
}

/// Runs `--check` and prints a line per mount.
fn run_check(config: Config, object: Option<&str>) -> u8 {
    match check::run(config.settings, config.live, object) {
        Ok(findings) => {
            for finding in &findings {
                let _ = writeln!(io::stdout(), "{finding}");
            }
            if findings.iter().all(Finding::works) { EXIT_OK } else { EXIT_FAILED }
        }
        Err(error) => {
            complain(&error);
            EXIT_FAILED
        }
    }
}
