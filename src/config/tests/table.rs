//! The table of keys, the example file and the defaults of the layers agree.

use std::collections::BTreeSet;

use super::*;
use crate::config::credentials::AccessKeys;
use crate::config::key::{About, Key};
use crate::config::settings::{AWS_KEYS, CREDENTIALS, MOUNT, MountSettings, RULE, top_level};
use crate::config::source::yaml::Node;

/// A top-level key in the example.
struct Example {
    name: String,
    /// After a `#` without a space.
    is_default: bool,
    value: String,
    /// The comment lines directly above it.
    comment: Vec<&'static str>,
}

fn examples() -> Vec<Example> {
    let mut comment = Vec::new();
    let mut examples = Vec::new();
    for line in EXAMPLE.lines() {
        let code = line.strip_prefix("# ").or(line.strip_prefix('#')).unwrap_or(line);
        let is_key = |name: &str| {
            let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            is_word || name.starts_with("AWS_")
        };
        match code.split_once(':') {
            Some((name, value)) if is_key(name) && !value.starts_with('/') => {
                examples.push(Example {
                    name: name.to_owned(),
                    is_default: line.starts_with('#') && !line.starts_with("# "),
                    value: value.trim().to_owned(),
                    comment: std::mem::take(&mut comment),
                });
            }
            _ if line.starts_with('#') => comment.push(line),
            _ => comment.clear(),
        }
    }
    examples
}

/// The top-level keys with their defaults as text.
fn defaults() -> Vec<(&'static About, Option<String>)> {
    shown(&TopLevel::default(), &AccessKeys::default(), &MountSettings::default())
}

fn shown(
    top: &TopLevel,
    keys: &AccessKeys,
    mount: &MountSettings,
) -> Vec<(&'static About, Option<String>)> {
    fn all<S>(keys: &'static [Key<S>], settings: &S) -> Vec<(&'static About, Option<String>)> {
        keys.iter().map(|key| (&key.about, (key.show)(settings))).collect()
    }
    [all(TOP_LEVEL, top), all(AWS_KEYS, keys), all(INHERITED, mount)].concat()
}

#[test]
fn the_example_has_exactly_the_keys_of_the_table() {
    let examples: Vec<String> = examples().into_iter().map(|example| example.name).collect();
    let unique: BTreeSet<&str> = examples.iter().map(String::as_str).collect();
    assert_eq!(unique.len(), examples.len(), "{examples:?}");
    assert_eq!(unique, top_level().map(|key| key.name).collect());
}

#[test]
fn the_example_documents_every_key_with_the_line_of_the_table() {
    for example in examples() {
        let key = top_level().find(|key| key.name == example.name).unwrap();
        let line = format!("# {}", key.docs);
        assert!(example.comment.contains(&line.as_str()), "{}: {line}", key.name);
    }
    let nested = MOUNT.iter().map(|key| key.about.name);
    let nested = nested.chain(CREDENTIALS.iter().map(|key| key.about.name));
    for name in nested.chain(RULE.iter().map(|key| key.about.name)) {
        assert!(EXAMPLE.contains(&format!("    {name}: ")), "{name}");
    }
}

#[test]
fn the_example_shows_the_default_of_every_key_that_has_one() {
    let examples = examples();
    for (key, default) in defaults() {
        let example = examples.iter().find(|example| example.name == key.name).unwrap();
        let shown = example.is_default.then(|| example.value.clone());
        assert_eq!(shown, default, "{}", key.name);
    }
}

/// The shown values of all keys after these are read.
fn read_and_show(written: &[Written]) -> (Vec<Option<String>>, Vec<Diagnostic>) {
    let (mut marks, mut diagnostics) = (Marks::default(), Vec::new());
    let (mut top, mut keys) = (TopLevel::default(), AccessKeys::default());
    fill(TOP_LEVEL, written, &mut top, &mut marks, &mut diagnostics);
    fill(AWS_KEYS, written, &mut keys, &mut marks, &mut diagnostics);
    fill(INHERITED, written, &mut top.mount, &mut marks, &mut diagnostics);
    let shown = shown(&top, &keys, &top.mount);
    (shown.into_iter().map(|(_, value)| value).collect(), diagnostics)
}

#[test]
fn the_defaults_in_the_example_parse_to_those_of_the_layers() {
    let mut diagnostics = Vec::new();
    let text = example_with_defaults();
    let written = file::read(File { name: "config.yaml", text: &text }, &mut diagnostics);
    assert_eq!(written.len(), 1 + defaults().iter().filter(|(_, value)| value.is_some()).count());
    let (values, diagnostics) = read_and_show(&written);
    assert_eq!(diagnostics, []);
    for ((key, default), value) in defaults().into_iter().zip(values) {
        assert_eq!(value, default, "{}", key.name);
    }
}

#[test]
fn the_example_with_its_defaults_configures_the_defaults_of_the_layers() {
    let Config { settings, mut live } = config(&example_with_defaults());
    let mounts = std::mem::take(&mut live.mounts);
    assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()));
    assert_eq!(format!("{live:?}"), format!("{:?}", Live::default()));
    let [mount] = mounts.as_slice() else { panic!("one mount") };
    let expected = &config(SHORT).live.mounts[0];
    assert_eq!(mount.bucket.location().region, expected.bucket.location().region);
    assert_eq!(mount.bucket.addressing, expected.bucket.addressing);
    assert_eq!(mount.cache_control, expected.cache_control);
    assert!(!mount.bucket.requester_pays && !mount.allow_version_id && !mount.denied_is_missing);
    assert!(mount.bucket.customer_key.is_none());
}

#[test]
fn every_key_fills_a_field_of_its_own() {
    const VALUES: [&str; 11] =
        ["7", "7ms", "7MiB", "true", "false", "off", "path", "epoll", "x-1", ".x", "unix:/x"];
    for (index, (key, default)) in defaults().into_iter().enumerate() {
        let changes = VALUES.iter().find_map(|value| {
            let location = Location::new(Source::Flag, "");
            let written = Written { key: key.name, location, value: Node::text(value) };
            let (values, diagnostics) = read_and_show(&[written]);
            let is_other = |at: &usize| values[*at] != defaults()[*at].1;
            let changed: Vec<usize> = (0..values.len()).filter(is_other).collect();
            (diagnostics.is_empty() && !changed.is_empty()).then_some(changed)
        });
        let expected = (default.is_some() && key.name != "region").then(|| vec![index]);
        assert_eq!(changes, expected, "{}", key.name);
    }
}

#[test]
fn variables_are_unique_and_ours_or_those_of_aws() {
    let mut all = BTreeSet::new();
    for key in top_level() {
        for variable in key.variables() {
            let own = format!("S3PROXY_{}", key.name.to_ascii_uppercase());
            assert!(variable == own || variable.starts_with("AWS_"), "{variable}");
            assert!(all.insert(variable.clone()), "{variable}");
        }
    }
}
