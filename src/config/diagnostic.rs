//! Diagnostics: the mistakes in a configuration, with their locations.
//!
//! All mistakes are printed at once, each on one line with its location, the problem and a remedy.
//! No line contains a secret: other text from users passes through [`quoted`] or [`key_name`], and
//! the parsers of secrets quote nothing.

use std::fmt;

use crate::config::settings;

/// The location of a setting, and its name there: `mounts./files/.bucket`, `S3PROXY_LISTEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, the environment or the command line.
    pub source: Source,
    /// The key, variable or flag; empty for the file as a whole.
    pub key: String,
}

/// A source of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A configuration file.
    File {
        /// As the user gave it.
        name: String,
        /// Counted from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment,
    /// A command-line flag.
    Flag,
    /// The location of a missing setting if there is no file.
    Nowhere,
}

impl Location {
    pub(super) fn new(source: Source, key: impl Into<String>) -> Location {
        Location { source, key: key.into() }
    }

    pub(super) fn on_line(&self, line: usize) -> Location {
        let mut location = self.clone();
        if let Source::File { line: old, .. } = &mut location.source {
            *old = Some(line);
        }
        location
    }

    /// The location of `key` in the map at this location.
    pub(super) fn child(&self, line: usize, key: &str) -> Location {
        let mut child = self.on_line(line);
        if !child.key.is_empty() {
            child.key.push('.');
        }
        child.key.push_str(key);
        child
    }

    pub(super) fn diagnostic(&self, fault: Fault) -> Diagnostic {
        let (problem, help) = (one_line(&fault.problem), one_line(&fault.help));
        Diagnostic { location: self.clone(), problem, help }
    }
}

/// A problem and its remedy: a [`Diagnostic`] without a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    problem: String,
    help: String,
}

impl Fault {
    pub(super) fn new(problem: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault { problem: problem.into(), help: help.into() }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub location: Location,
    pub problem: String,
    /// The remedy; empty if `problem` suggests it.
    pub help: String,
}

/// `config.yaml:7: metadata_tll: unknown key; did you mean 'metadata_ttl'?`
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location.source {
            Source::File { name, line: Some(line) } => write!(f, "{}:{line}: ", one_line(name))?,
            Source::File { name, line: None } => write!(f, "{}: ", one_line(name))?,
            Source::Environment => f.write_str("environment: ")?,
            Source::Nowhere => f.write_str("configuration: ")?,
            Source::Flag => {}
        }
        if !self.location.key.is_empty() {
            write!(f, "{}: ", one_line(&self.location.key))?;
        }
        f.write_str(&self.problem)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

/// Every mistake of one configuration, at least one: those in the file by line, then those in the
/// environment, then those in the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts them into reading order.
    pub(super) fn new(mut diagnostics: Vec<Diagnostic>) -> Diagnostics {
        debug_assert!(!diagnostics.is_empty());
        diagnostics.sort_by_key(|diagnostic| match diagnostic.location.source {
            Source::File { line: Some(line), .. } => (0, line),
            Source::File { line: None, .. } | Source::Nowhere => (1, 0),
            Source::Environment => (2, 0),
            Source::Flag => (3, 0),
        });
        Diagnostics(diagnostics)
    }

    /// In reading order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

/// Largest number of mistakes that are printed: another program's file may have one in every line.
const PRINTED: usize = 20;

/// One line per mistake, without a line feed at the end.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().take(PRINTED).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        match self.0.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            1 => f.write_str("\nand 1 more mistake"),
            more => write!(f, "\nand {more} more mistakes"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Longest user text that is quoted, in characters.
const QUOTED_CHARS: usize = 80;

/// Escapes control, invisible and bidirectional characters, so that text from users cannot break,
/// colour or reorder a line of output.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        let is_plain = matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
        if is_plain { line.push(c) } else { line.extend(c.escape_debug()) }
    }
    line
}

/// Quotes, truncates and escapes a value for a diagnostic.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    // Quotation marks are readable without an escape.
    format!("'{}'", shown.replace("\\'", "'").replace("\\\"", "\""))
}

/// Length from which an unknown key may be a secret, in bytes: MinIO's secrets have 16 or more,
/// those of AWS 40.
const SECRET_BYTES: usize = 16;

/// A key as shown in diagnostics. In a malformed file a secret can be in the place of a key, so
/// only known keys, short ones and paths of mounts are shown.
pub(super) fn key_name(key: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_short = key.len() < SECRET_BYTES || (is_mount_path(key) && key.len() < 40);
    let is_shown = settings::is_known(key) || (is_short && key.chars().all(plain));
    if is_shown && !key.is_empty() { key } else { "(a key)" }
}

fn is_mount_path(key: &str) -> bool {
    key.starts_with('/') && key.ends_with('/')
}

/// The name that is most similar to the typed one, for "did you mean".
pub(super) fn nearest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    /// Below this Jaro-Winkler similarity a suggestion confuses more than it helps.
    const SIMILAR: f64 = 0.82;
    let typed = typed.to_ascii_lowercase();
    names
        .map(|name| (name, strsim::jaro_winkler(&typed, &name.to_ascii_lowercase())))
        .filter(|&(_, similarity)| similarity >= SIMILAR)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_is_one_line_that_starts_with_its_location() {
        let file = Source::File { name: "config.yaml".to_owned(), line: Some(7) };
        let fault = || Fault::new("unknown key", "did you mean 'metadata_ttl'?");
        assert_eq!(
            Location::new(file.clone(), "metadata_tll").diagnostic(fault()).to_string(),
            "config.yaml:7: metadata_tll: unknown key; did you mean 'metadata_ttl'?"
        );
        let fault_of_two_lines = Location::new(Source::Flag, "").diagnostic(Fault::new("a\nb", ""));
        assert_eq!(fault_of_two_lines.to_string(), "a\\nb");
        let flag = Location::new(Source::Flag, "--listen").diagnostic(Fault::new("is bad", ""));
        assert_eq!(flag.to_string(), "--listen: is bad");
        let variable = Location::new(Source::Environment, "S3PROXY_LISTEN").diagnostic(fault());
        assert!(variable.to_string().starts_with("environment: S3PROXY_LISTEN: unknown"));
    }

    #[test]
    fn quoted_text_stays_short_and_on_one_line() {
        assert_eq!(quoted("it's\n\u{1b}[31m"), r"'it's\n\u{1b}[31m'");
        assert!(quoted(&"x".repeat(10_000)).len() < 100);
    }

    #[test]
    fn a_key_that_may_be_a_secret_is_not_shown() {
        assert_eq!(key_name("metadata_tll"), "metadata_tll");
        assert_eq!(key_name("upstream_max_idle_connections"), "upstream_max_idle_connections");
        assert_eq!(key_name("/partner-institute/"), "/partner-institute/");
        assert_eq!(key_name(&"x".repeat(15)), "x".repeat(15));
        for secret in [&"x".repeat(16), &"x".repeat(40), &format!("/{}/", "x".repeat(38))] {
            assert_eq!(key_name(secret), "(a key)");
        }
        assert_eq!(key_name("AWS_SECRET_ACCESS_KEY=hush"), "(a key)");
    }

    #[test]
    fn a_file_name_is_kept_on_one_line() {
        let name = "a\nb\u{1b}[31m\u{202e}'c\\".to_owned();
        let diagnostic =
            Location::new(Source::File { name, line: Some(1) }, "").diagnostic(Fault::new("x", ""));
        assert_eq!(diagnostic.to_string(), r"a\nb\u{1b}[31m\u{202e}'c\:1: x");
    }

    #[test]
    fn twenty_mistakes_are_printed_and_the_others_counted() {
        let printed = |count: usize| {
            let diagnostic = Location::new(Source::Flag, "x").diagnostic(Fault::new("is bad", ""));
            Diagnostics::new(vec![diagnostic; count]).to_string()
        };
        assert_eq!(printed(20).lines().count(), 20);
        assert!(printed(21).ends_with("\nx: is bad\nand 1 more mistake"));
        assert!(printed(1000).ends_with("\nand 980 more mistakes"));
        assert_eq!(printed(1000).lines().count(), 21);
    }

    #[test]
    fn only_similar_keys_are_suggested() {
        let known = ["bucket_name", "metadata_ttl", "metadata_entries", "listen"];
        assert_eq!(nearest("metadata_tll", known.into_iter()), Some("metadata_ttl"));
        assert_eq!(nearest("bucket", known.into_iter()), Some("bucket_name"));
        assert_eq!(nearest("Listen", known.into_iter()), Some("listen"));
        assert_eq!(nearest("zzz", known.into_iter()), None);
    }
}
