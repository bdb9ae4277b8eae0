//! Programs that the group already uses, run as they run them.

use std::path::Path;
use std::process::{Command, Stdio};

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

/// Runs a program whatever its exit code: the code, standard output, standard error.
#[track_caller]
pub(crate) fn run_any(
    directory: &Path,
    program: &str,
    arguments: &[&str],
) -> (Option<i32>, Vec<u8>, String) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .env_remove("http_proxy")
        .env_remove("all_proxy")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; ./tests/run installs what is missing"));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), output.stdout, stderr)
}
