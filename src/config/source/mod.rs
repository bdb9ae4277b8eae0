//! The sources of settings: a YAML file, the environment and command-line flags. Each returns its
//! settings unparsed, with their locations, and reports unknown keys.

pub(super) mod environment;
pub(super) mod file;
pub(super) mod flags;
pub(super) mod yaml;

use crate::config::diagnostic::Location;
use crate::config::source::yaml::Node;

/// One key that is set.
#[derive(Clone)]
pub(super) struct Written {
    /// The name of the key in the file, even if it is set elsewhere.
    pub(super) key: &'static str,
    pub(super) location: Location,
    pub(super) value: Node,
}
