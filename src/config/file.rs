//! The configuration as the user wrote it: keys and values with their places, nothing
//! interpreted yet. The file and every map inside it are taken apart here; unknown keys are found
//! here.

use crate::config::problem::{Fault, Place, Problem, Spot, key_name, nearest};
use crate::config::schema;
use crate::config::yaml::{self, Entry, Node, Value};

/// The text of a configuration file.
#[derive(Clone, Copy)]
pub struct File<'t> {
    /// What problems call it, for example `config.yaml`.
    pub name: &'t str,
    /// Its content.
    pub text: &'t str,
}

/// One key that is set, by the file, the environment or a flag.
pub(super) struct Setting {
    /// Its name in the file, whichever source it is from.
    pub(super) key: &'static str,
    /// Where it is, and its name there.
    pub(super) spot: Spot,
    pub(super) value: Node,
}

/// The settings of a file.
pub(super) fn read(file: File<'_>, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let whole = Spot::new(Place::File { name: file.name.to_owned(), line: None }, "");
    let (root, mistakes) = yaml::parse(file.text);
    problems.extend(mistakes.into_iter().map(|malformed| {
        let fault = Fault::new(malformed.what, malformed.remedy);
        whole.on_line(malformed.line).problem(fault)
    }));
    let Some(root) = root else { return Vec::new() };
    let Value::Map(entries) = root.value else {
        let fault = Fault::new("holds no 'key: value' lines", "see config.example.yaml");
        problems.push(whole.on_line(root.line).problem(fault));
        return Vec::new();
    };
    let known: Vec<&'static str> = schema::names().collect();
    fields(&whole, entries, &known, problems)
}

/// Takes a map apart whose keys must be among `known`; reports the others.
pub(super) fn fields(
    map: &Spot,
    entries: Vec<Entry>,
    known: &[&'static str],
    problems: &mut Vec<Problem>,
) -> Vec<Setting> {
    let mut settings = Vec::with_capacity(entries.len());
    for Entry { line, key, value } in entries {
        let spot = map.child(line, key_name(&key));
        match known.iter().find(|&&name| name == key) {
            Some(key) => settings.push(Setting { key, spot, value }),
            None => problems.push(spot.problem(unknown_key(&key, known))),
        }
    }
    settings
}

fn unknown_key(key: &str, known: &[&'static str]) -> Fault {
    let remedy = match nearest(key, known.iter().copied()) {
        Some(name) => format!("did you mean '{name}'?"),
        None if known.len() < 10 => format!("known are {}", known.join(", ")),
        None => "config.example.yaml lists all keys".to_owned(),
    };
    Fault::new("unknown key", remedy)
}
