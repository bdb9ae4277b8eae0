//! Where settings are written: a YAML file, the environment and command-line flags. Each gives its
//! settings as typed, with their locations, and reports unknown keys; values are read later.

pub(super) mod environment;
pub(super) mod file;
pub(super) mod flags;
pub(super) mod yaml;

use crate::config::diagnostic::Location;
use crate::config::source::yaml::Node;

/// One key that is set.
#[derive(Clone)]
pub(super) struct Written {
    /// Its name in the file, whichever source it is from.
    pub(super) key: &'static str,
    pub(super) location: Location,
    pub(super) value: Node,
}
