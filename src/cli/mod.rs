//! The program: flags, then configuration, then the run, then the exit code.

pub mod flags;
mod logging;

use std::io::{self, Write};
use std::process::ExitCode;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::cli::flags::{EXIT_CONFIG, EXIT_FAILED, EXIT_OK, Flags};
use crate::config::{self, Config};
use crate::server::{self, Running, check};
use crate::sys::process;

/// The whole program.
pub fn main() -> ExitCode {
    let flags = Flags::from_args(std::env::args_os()).unwrap_or_else(|error| error.exit());
    process::unset_empty_variables(|name| name.starts_with("AWS_"));
    let environment = config::process_environment();
    let code = match config::load(flags.config.as_deref(), &environment, &flags.overrides()) {
        Ok(config) => match flags.check {
            Some(object) => run_check(config, object.as_deref()),
            None => serve(config),
        },
        Err(problems) => {
            // Each on a line of its own that starts with where it is, as compilers do.
            let _ = writeln!(io::stderr(), "{problems}");
            EXIT_CONFIG
        }
    };
    ExitCode::from(code)
}

/// Serves until SIGTERM or SIGINT, then drains. SIGUSR1 logs the counters.
fn serve(config: Config) -> u8 {
    process::raise_open_files_limit();
    let started = logging::start(&config).map_err(|error| error.to_string()).and_then(|()| {
        // Before anything listens, so that an early signal is not lost.
        let signals =
            Signals::new([SIGTERM, SIGINT, SIGUSR1]).map_err(|error| error.to_string())?;
        let running = server::start(config).map_err(|error| error.to_string())?;
        Ok((signals, running))
    });
    let (mut signals, mut running) = match started {
        Ok(started) => started,
        Err(error) => {
            complain(&error);
            return EXIT_FAILED;
        }
    };
    announce(&running);
    while signals.forever().next() == Some(SIGUSR1) {
        log::info!("{}", running.counters());
    }
    log::info!("draining: running answers may finish; a second signal ends at once");
    std::thread::spawn(move || {
        signals.forever().find(|&signal| signal != SIGUSR1);
        std::process::exit(i32::from(EXIT_FAILED));
    });
    running.drain();
    log::info!("{}", running.counters());
    EXIT_OK
}

/// Says where the server listens and how it runs; scripts wait for the first line.
fn announce(running: &Running) {
    let mut out = io::stdout().lock();
    for address in &running.addresses {
        say(&mut out, &format!("listening on {address}"));
    }
    let count = running.drivers.len();
    let first = &running.drivers[0];
    let workers = if count == 1 { "1 worker" } else { &format!("{count} workers") };
    if running.drivers.iter().all(|driver| driver == first) {
        say(&mut out, &format!("{workers}: {first}"));
    } else {
        say(&mut out, &format!("{workers}: {}", running.drivers.join(", ")));
    }
}

/// `--check`: says in words what works and what does not.
fn run_check(config: Config, object: Option<&str>) -> u8 {
    let mut out = io::stdout().lock();
    match check::run(config, object) {
        Ok(findings) => {
            for finding in &findings {
                say(&mut out, &finding.to_string());
            }
            if findings.iter().all(|finding| finding.works()) { EXIT_OK } else { EXIT_FAILED }
        }
        Err(error) => {
            complain(&error);
            EXIT_FAILED
        }
    }
}

/// A line on standard output. Where nobody reads it any more, serving is still worth it.
fn say(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What is wrong, on standard error; where that is closed the exit code still tells.
fn complain(what: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "s3proxy: {what}");
}
