//! The Rust versions that README promises, against the `rust-version` of every locked dependency.
//! No toolchain of that age is needed: clippy's `incompatible_msrv` checks our own code.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

#[path = "support/cargo_metadata.rs"]
mod cargo_metadata;

/// The version that the tests and the demo need; the program needs `rust-version` of `Cargo.toml`.
const TESTS_RUST_VERSION: &str = "1.92";

#[test]
fn the_program_builds_with_its_rust_version() {
    assert_builds_with(env!("CARGO_PKG_RUST_VERSION"), |kind| kind.is_null() || kind == "build");
}

#[test]
fn the_tests_build_with_their_rust_version() {
    assert_builds_with(TESTS_RUST_VERSION, |_| true);
}

/// Fails if a package that is reached over the `wanted` kinds of dependencies needs a newer Rust.
fn assert_builds_with(ours: &str, wanted: impl Fn(&Value) -> bool) {
    let metadata = cargo_metadata::cargo_metadata();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let nodes: HashMap<_, _> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (id(&node["id"]), node))
        .collect();
    let root = id(&metadata["resolve"]["root"]);
    let (mut reached, mut left) = (BTreeSet::new(), vec![root.clone()]);
    while let Some(package) = left.pop() {
        for dependency in list(&nodes[&package]["deps"]) {
            // Other packages are only built here, so their dev-dependencies do not count.
            let mut kinds = list(&dependency["dep_kinds"]).into_iter();
            let counts =
                |kind: Value| wanted(&kind["kind"]) && (package == root || kind["kind"] != "dev");
            if kinds.any(counts) && reached.insert(id(&dependency["pkg"])) {
                left.push(id(&dependency["pkg"]));
            }
        }
    }
    assert!(reached.len() > 50, "only {} dependencies were found", reached.len());
    let too_new: Vec<_> = list(&metadata["packages"])
        .into_iter()
        .filter(|package| reached.contains(&id(&package["id"])))
        .filter(|package| {
            package["rust_version"].as_str().is_some_and(|it| number(it) > number(ours))
        })
        .map(|package| format!("{} needs Rust {}", package["name"], package["rust_version"]))
        .collect();
    assert!(too_new.is_empty(), "more than {ours}: {too_new:#?}");
}

fn id(value: &Value) -> String {
    value.as_str().expect("a package id").to_owned()
}

/// `1.88` and `1.88.0` as numbers that compare.
fn number(version: &str) -> (u32, u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().expect("a number"));
    (parts.next().expect("1"), parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
