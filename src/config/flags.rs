//! Settings from the command line, which win over all others.

use crate::config::file::Setting;
use crate::config::problem::{Place, Spot};
use crate::config::yaml::{Node, Value};

/// What the command line says; text as typed, so that a wrong value is described in the same
/// words as in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`, as often as it was given; empty leaves `listen` as it is.
    pub listen: Vec<String>,
    /// `--workers`.
    pub workers: Option<String>,
    /// `--driver`.
    pub driver: Option<String>,
    /// `--log-level`, or `debug` for `--debug`.
    pub log_level: Option<String>,
    /// `--log-file`.
    pub log_file: Option<String>,
}

/// The settings that the flags hold.
pub(super) fn read(flags: &Overrides) -> Vec<Setting> {
    let text = |text: &String| Node { line: 0, value: Value::Text(text.clone()) };
    let mut settings = Vec::new();
    let mut push = |key, flag: &str, value| {
        settings.push(Setting { key, spot: Spot::new(Place::Flag, flag), value });
    };
    if !flags.listen.is_empty() {
        let value = Value::List(flags.listen.iter().map(text).collect());
        push("listen", "--listen", Node { line: 0, value });
    }
    for (key, flag, value) in [
        ("workers", "--workers", &flags.workers),
        ("driver", "--driver", &flags.driver),
        ("log_level", "--log-level", &flags.log_level),
        ("log_file", "--log-file", &flags.log_file),
    ] {
        if let Some(value) = value {
            push(key, flag, text(value));
        }
    }
    settings
}
