//! Runs genomics programs as users do.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Timeout of a program, which is then killed.
const LONGEST_RUN: Duration = Duration::from_secs(30);

/// Runs a program in `directory` and returns its standard output.
///
/// # Panics
/// When it is not installed or fails.
#[track_caller]
pub(crate) fn run(directory: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let (code, stdout, stderr) = run_any(directory, program, arguments);
    assert_eq!(code, Some(0), "{program} {arguments:?} failed: {stderr}");
    stdout
}

/// Runs a program: exit code (any is allowed), standard output, standard error.
#[track_caller]
pub(crate) fn run_any(
    directory: &Path,
    program: &str,
    arguments: &[&str],
) -> (Option<i32>, Vec<u8>, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("http_proxy")
        .env_remove("all_proxy")
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; ./tests/run installs what is missing"));
    let pid = Pid::from_child(&child);
    let outcome = std::thread::scope(|scope| {
        let stderr = child.stderr.take();
        let complaints = scope.spawn(move || read_all(stderr));
        let stdout = child.stdout.take();
        let printed = scope.spawn(move || read_all(stdout));
        let deadline = Instant::now() + LONGEST_RUN;
        while !printed.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let in_time = printed.is_finished();
        if !in_time {
            // It was not waited for yet, so its process id was not reused.
            let _ = kill_process(pid, Signal::KILL);
        }
        let status = child.wait().expect("a child of ours");
        let stdout = printed.join().expect("a reader does not panic");
        let stderr = complaints.join().expect("a reader does not panic");
        (in_time, status, stdout, stderr)
    });
    let (in_time, status, stdout, stderr) = outcome;
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert!(in_time, "{program} {arguments:?} took more than {LONGEST_RUN:?}: {stderr}");
    (status.code(), stdout, stderr)
}

fn read_all(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The output before an error is still useful.
    let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes));
    bytes
}
