//! The configuration file.

use crate::config::diagnostic::{Diagnostic, Fault, Location, Source};
use crate::config::key::entries_of;
use crate::config::settings;
use crate::config::source::Written;
use crate::config::source::yaml::{self, Value};

/// The text of a configuration file.
#[derive(Clone, Copy)]
pub struct File<'t> {
    /// Its name in diagnostics.
    pub name: &'t str,
    /// Its content.
    pub text: &'t str,
}

/// The settings of a file.
pub(in crate::config) fn read(file: File<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Written> {
    let whole = Location::new(Source::File { name: file.name.to_owned(), line: None }, "");
    let (root, malformed) = yaml::parse(file.text);
    diagnostics.extend(malformed.into_iter().map(|malformed| {
        let fault = Fault::new(malformed.problem, malformed.help);
        whole.on_line(malformed.line).diagnostic(fault)
    }));
    let Some(root) = root else { return Vec::new() };
    let Value::Map(entries) = root.value else {
        let fault = Fault::new("has no 'key: value' lines", "see config.example.yaml");
        diagnostics.push(whole.on_line(root.line).diagnostic(fault));
        return Vec::new();
    };
    let names: Vec<&'static str> = settings::top_level().map(|about| about.name).collect();
    entries_of(&whole, &entries, &names, diagnostics)
}
