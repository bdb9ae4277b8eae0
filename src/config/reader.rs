//! Takes settings by key and turns what was written into what is used, collecting mistakes.
//!
//! A key may be set by several sources. All of them are read, so that a mistake is reported even
//! where another source overrides it; the last one counts.

use crate::config::file::Setting;
use crate::config::files::{self, Files};
use crate::config::problem::{Fault, Problem, Spot};
use crate::config::yaml::{Node, Value};

/// What reads one value: the text as typed.
pub(super) type Parse<T> = fn(&str) -> Result<T, Fault>;

/// Settings in rising order of precedence, and the mistakes found so far.
pub(super) struct Reader {
    settings: Vec<Setting>,
    pub(super) problems: Vec<Problem>,
    /// How files are looked at that settings name.
    pub(super) files: Files,
    /// Keys that were asked for, to be compared with the schema.
    #[cfg(test)]
    pub(super) asked: std::collections::BTreeSet<&'static str>,
}

impl Reader {
    pub(super) fn new(settings: Vec<Setting>) -> Reader {
        Reader {
            settings,
            problems: Vec::new(),
            files: files::NONE,
            #[cfg(test)]
            asked: std::collections::BTreeSet::new(),
        }
    }

    /// Where the setting that counts for `key` was made, if it was.
    pub(super) fn spot(&self, key: &str) -> Option<Spot> {
        let setting = self.settings.iter().rfind(|setting| setting.key == key)?;
        Some(setting.spot.clone())
    }

    /// Every setting of `key`, for those that are more than a value or a list of values.
    pub(super) fn take(&mut self, key: &'static str) -> Vec<Setting> {
        #[cfg(test)]
        self.asked.insert(key);
        self.settings.extract_if(.., |setting| setting.key == key).collect()
    }

    /// One value; `None` if it is not set or wrong.
    pub(super) fn value<T>(&mut self, key: &'static str, parse: Parse<T>) -> Option<T> {
        let mut last = None;
        for Setting { spot, value, .. } in self.take(key) {
            last = one(&value, parse).map_err(|fault| self.report(&spot, fault)).ok();
        }
        last
    }

    /// One value, or its default.
    pub(super) fn value_or<T>(&mut self, key: &'static str, parse: Parse<T>, default: T) -> T {
        self.value(key, parse).unwrap_or(default)
    }

    /// A list, in which a single value counts as a list of one; `None` if it is not set.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: Parse<T>) -> Option<Vec<T>> {
        let mut last = None;
        for Setting { spot, value, .. } in self.take(key) {
            let items = match value.value {
                Value::List(items) => items,
                _ => vec![value],
            };
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                match one(&item, parse) {
                    Ok(value) => list.push(value),
                    Err(fault) => self.report(&spot.on_line(item.line), fault),
                }
            }
            last = Some(list);
        }
        last
    }

    pub(super) fn report(&mut self, spot: &Spot, fault: Fault) {
        self.problems.push(spot.problem(fault));
    }
}

/// Reads the one value that a node must be.
fn one<T>(node: &Node, parse: Parse<T>) -> Result<T, Fault> {
    match &node.value {
        Value::Text(text) => parse(text),
        Value::Null => Err(no_value()),
        Value::List(_) => Err(Fault::new("is a list", "write one value")),
        Value::Map(_) => Err(Fault::new("is a map", "write one value")),
    }
}

/// `key:` with nothing behind it.
pub(super) fn no_value() -> Fault {
    Fault::new("has no value", "write one, or remove the key")
}
