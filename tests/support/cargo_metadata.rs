//! Cargo's metadata of this package and its dependencies.

use std::process::Command;

use serde_json::Value;

/// The output of `cargo metadata` for the platform that cargo builds for.
pub(crate) fn cargo_metadata() -> Value {
    // Packages of other platforms are in the lock file, but building for this one has not
    // downloaded them.
    let metadata = ["metadata", "--format-version", "1", "--offline", "--filter-platform"];
    let output = Command::new(env!("CARGO"))
        .args(metadata)
        .arg(host_platform())
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The platform that cargo builds for by default, such as `x86_64-unknown-linux-gnu`.
fn host_platform() -> String {
    let output = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("cargo names its host").to_owned()
}
