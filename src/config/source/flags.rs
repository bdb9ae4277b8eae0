//! Settings on the command line, which take precedence over all others.

use crate::config::diagnostic::{Location, Source};
use crate::config::source::Written;
use crate::config::source::yaml::{Node, Value};

/// The flags that set keys, unparsed, so that wrong values are reported as in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// All `--listen` flags; if there are none, `listen` keeps its value.
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

/// The settings in the flags.
pub(in crate::config) fn read(flags: &Overrides) -> Vec<Written> {
    let listen = (!flags.listen.is_empty()).then(|| {
        let addresses = flags.listen.iter().map(|address| Node::text(address)).collect();
        Node { line: 0, value: Value::List(addresses) }
    });
    let text = |text: &Option<String>| text.as_deref().map(Node::text);
    let set = [
        ("listen", "--listen", listen),
        ("workers", "--workers", text(&flags.workers)),
        ("driver", "--driver", text(&flags.driver)),
        ("log_level", "--log-level", text(&flags.log_level)),
        ("log_file", "--log-file", text(&flags.log_file)),
    ];
    let written = set.into_iter().filter_map(|(key, flag, value)| {
        Some(Written { key, location: Location::new(Source::Flag, flag), value: value? })
    });
    written.collect()
}
