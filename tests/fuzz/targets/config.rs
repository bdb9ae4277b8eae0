//! Arbitrary text as a configuration file: every diagnostic is one line and names an existing line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use s3proxy::internals::{ConfigSource, Environment, File, Overrides, resolve_config};

fuzz_target!(|text: &str| {
    let file = File { name: "config.yaml", text };
    match resolve_config(Some(file), &Environment::new(), &Overrides::default()) {
        Ok(config) => assert!(!config.live.mounts.is_empty() && !config.settings.listen.is_empty()),
        Err(diagnostics) => {
            assert!(diagnostics.iter().next().is_some());
            for diagnostic in diagnostics.iter() {
                assert!(!diagnostic.to_string().contains(char::is_control), "{diagnostic}");
                if let ConfigSource::File { line: Some(line), .. } = diagnostic.location.source {
// In YAML a carriage return alone is a line break too.
                    let lines = 1 + text.matches(['\r', '\n']).count();
                    assert!((1..=lines).contains(&line), "line {line} of {lines}: {diagnostic}");
                }
            }
        }
    }
});
