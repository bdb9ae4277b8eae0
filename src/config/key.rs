//! A key of the configuration: its name, environment variables, default and documentation, and the
//! code that stores its value in a settings type. The keys themselves are in
//! [`settings`](super::settings).

use std::collections::BTreeMap;

use crate::config::diagnostic::{Diagnostic, Fault, Location, Source, key_name, nearest};
use crate::config::source::Written;
use crate::config::source::yaml::{Entry, Node, Value};

/// A key whose value goes into an `S`.
pub(super) struct Key<S> {
    pub(super) about: About,
    pub(super) read: fn(&mut S, Reading<'_>),
    /// The value in an `S`, as it would be written in the file; `None` if there is none.
    pub(super) show: fn(&S) -> Option<String>,
}

/// The documentation of a key.
pub(super) struct About {
    pub(super) name: &'static str,
    /// Variables of AWS's tools that set it too, with lower precedence than our own; `None` if it
    /// can be set only in the file.
    pub(super) variables: Option<&'static [&'static str]>,
    pub(super) docs: &'static str,
}

/// `key!(name, kind, field, documentation[, variables])`: the value of this kind goes into this
/// field, whose default is the key's.
macro_rules! key {
    ($name:literal, $kind:expr, $($field:ident).+, $docs:literal) => {
        key!($name, $kind, $($field).+, $docs, Some(&[]))
    };
    ($name:literal, $kind:expr, $($field:ident).+, $docs:literal, $variables:expr) => {
        Key {
            about: About { name: $name, variables: $variables, docs: $docs },
            read: |settings, reading| Kind::read(&$kind, reading, &mut settings.$($field).+),
            show: |settings| Kind::show(&$kind, &settings.$($field).+),
        }
    };
}
pub(super) use key;

impl About {
    /// The variables that set this key, in falling order of precedence.
    pub(super) fn variables(&self) -> Vec<String> {
        let own = match self.name.starts_with("AWS_") {
            true => self.name.to_owned(),
            false => format!("S3PROXY_{}", self.name.to_ascii_uppercase()),
        };
        let variables = self.variables.map(|of_aws| {
            std::iter::once(own).chain(of_aws.iter().map(|&name| name.to_owned())).collect()
        });
        variables.unwrap_or_default()
    }
}

/// A value while it is read.
pub(super) struct Reading<'a> {
    pub(super) written: &'a Written,
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl Reading<'_> {
    /// Parses a single value; `None` has been reported.
    pub(super) fn one<T>(&mut self, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<T> {
        one(&self.written.value, parse).map_err(|fault| self.report(fault)).ok()
    }

    /// Parses a list, and reports its wrong items. A single value is a list of one; in the
    /// environment, items are separated by commas. `None` if all items are wrong.
    pub(super) fn list<T>(&mut self, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<Vec<T>> {
        let Written { location, value, .. } = self.written;
        let from_environment = location.source == Source::Environment;
        let items = match &value.value {
            Value::Text(text) if from_environment => {
                text.split(',').map(|item| Node::text(item.trim())).collect()
            }
            Value::List(items) => items.clone(),
            _ => vec![value.clone()],
        };
        let mut values = Vec::with_capacity(items.len());
        for item in &items {
            match one(item, &parse) {
                Ok(value) => values.push(value),
                Err(fault) => {
                    self.diagnostics.push(location.on_line(item.line).diagnostic(fault));
                }
            }
        }
        (items.is_empty() || !values.is_empty()).then_some(values)
    }

    pub(super) fn report(&mut self, fault: Fault) {
        self.diagnostics.push(self.written.location.diagnostic(fault));
    }
}

fn one<T>(node: &Node, parse: impl Fn(&str) -> Result<T, Fault>) -> Result<T, Fault> {
    match &node.value {
        Value::Text(text) => parse(text),
        Value::Null => Err(no_value()),
        Value::List(_) => Err(Fault::new("is a list", "write one value")),
        Value::Map(_) => Err(Fault::new("is a map", "write one value")),
    }
}

/// For `key:` without a value.
pub(super) fn no_value() -> Fault {
    Fault::new("has no value", "write one, or remove the key")
}

/// The keys that are set, each with its location and whether its value is wrong. If several sources
/// set a key, that of the highest precedence counts.
#[derive(Clone, Default)]
pub(super) struct Marks(BTreeMap<&'static str, (Location, bool)>);

impl Marks {
    pub(super) fn location(&self, key: &str) -> Option<&Location> {
        self.0.get(key).map(|(location, _)| location)
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether the key is set, but its value is wrong and has been reported.
    pub(super) fn is_wrong(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|&(_, is_wrong)| is_wrong)
    }
}

/// Stores the values of `keys` in `settings`. `written` is in rising order of precedence. A mistake
/// is reported even if another source overrides it.
pub(super) fn fill<'w, S>(
    keys: &[Key<S>],
    written: impl IntoIterator<Item = &'w Written>,
    settings: &mut S,
    marks: &mut Marks,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for written in written {
        let Some(key) = keys.iter().find(|key| key.about.name == written.key) else { continue };
        let before = diagnostics.len();
        (key.read)(settings, Reading { written, diagnostics: &mut *diagnostics });
        let is_wrong = diagnostics.len() > before;
        marks.0.insert(written.key, (written.location.clone(), is_wrong));
    }
}

/// Reads a map with these keys, all of them optional.
pub(super) fn read_map<S: Default>(
    keys: &[Key<S>],
    map: &Location,
    entries: &[Entry],
    diagnostics: &mut Vec<Diagnostic>,
) -> (S, Marks) {
    let (mut settings, mut marks) = (S::default(), Marks::default());
    let names: Vec<&'static str> = keys.iter().map(|key| key.about.name).collect();
    let written = entries_of(map, entries, &names, diagnostics);
    fill(keys, &written, &mut settings, &mut marks, diagnostics);
    (settings, marks)
}

/// The entries of a map whose keys must be among `known`; reports the others.
pub(super) fn entries_of(
    map: &Location,
    entries: &[Entry],
    known: &[&'static str],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Written> {
    let mut written = Vec::with_capacity(entries.len());
    for Entry { line, key, value } in entries {
        let location = map.child(*line, key_name(key));
        match known.iter().find(|name| *name == key) {
            Some(key) => written.push(Written { key, location, value: value.clone() }),
            None => diagnostics.push(location.diagnostic(unknown_key(key, known))),
        }
    }
    written
}

fn unknown_key(key: &str, known: &[&'static str]) -> Fault {
    let help = match nearest(key, known.iter().copied()) {
        Some(name) => format!("did you mean '{name}'?"),
        None if known.len() < 10 => format!("expected one of {}", known.join(", ")),
        None => "config.example.yaml lists all keys".to_owned(),
    };
    Fault::new("unknown key", help)
}
