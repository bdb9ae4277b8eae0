//! Mistakes in the configuration, and where they were made.
//!
//! A run that is refused says everything that is wrong in one go, one line per mistake, each with
//! its place and, where there is one, its remedy. No line ever shows a secret: what is quoted
//! passes through [`quoted`] or [`key_name`], and the readers of secrets quote nothing.

use std::fmt;

use crate::config::schema;

/// Which of its sources a piece of configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file, and the line if the mistake has one.
    File {
        /// The file's name, as the user gave it.
        name: String,
        /// Counted from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment,
    /// A command-line flag.
    Flag,
    /// Something is missing, and there is no file that it could be missing from.
    Nowhere,
}

/// A place and the name that the thing has there: `mounts./files/.bucket`, `S3PROXY_LISTEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) key: String,
}

impl Spot {
    pub(super) fn new(place: Place, key: impl Into<String>) -> Spot {
        Spot { place, key: key.into() }
    }

    /// The same thing, pointing at another line of the file.
    pub(super) fn on_line(&self, line: usize) -> Spot {
        let mut spot = self.clone();
        if let Place::File { line: old, .. } = &mut spot.place {
            *old = Some(line);
        }
        spot
    }

    /// Something inside this thing.
    pub(super) fn child(&self, line: usize, key: &str) -> Spot {
        let mut spot = self.on_line(line);
        if !spot.key.is_empty() {
            spot.key.push('.');
        }
        spot.key.push_str(key);
        spot
    }

    pub(super) fn problem(&self, fault: Fault) -> Problem {
        Problem {
            place: self.place.clone(),
            key: self.key.clone(),
            what: one_line(&fault.what),
            remedy: one_line(&fault.remedy),
        }
    }
}

/// What is wrong with one value; a [`Problem`] before it is known where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    what: String,
    remedy: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { what: what.into(), remedy: remedy.into() }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was made.
    pub place: Place,
    /// The key, variable or flag, as the user would write it; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it; may be empty where `what` says enough.
    pub remedy: String,
}

/// `config.yaml:7: metadata_tll: unknown key; did you mean 'metadata_ttl'?`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { name, line: Some(line) } => write!(f, "{}:{line}: ", one_line(name))?,
            Place::File { name, line: None } => write!(f, "{}: ", one_line(name))?,
            Place::Environment => f.write_str("environment: ")?,
            Place::Nowhere => f.write_str("configuration: ")?,
            Place::Flag => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", one_line(&self.key))?;
        }
        f.write_str(&self.what)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// Every mistake of one configuration, at least one: those of the file by line, then those of
/// the environment, then those of the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Puts `problems` into reading order.
    pub(super) fn new(mut problems: Vec<Problem>) -> Problems {
        debug_assert!(!problems.is_empty());
        problems.sort_by_key(|problem| match problem.place {
            Place::File { line: Some(line), .. } => (0, line),
            Place::File { line: None, .. } | Place::Nowhere => (1, 0),
            Place::Environment => (2, 0),
            Place::Flag => (3, 0),
        });
        Problems(problems)
    }

    /// The mistakes in reading order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

/// Most mistakes that are printed; a file of another program has one on every line.
const PRINTED: usize = 20;

/// One line per mistake, without a line feed at the end.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(PRINTED).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        match self.0.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            1 => f.write_str("\nand 1 more mistake"),
            more => write!(f, "\nand {more} more mistakes"),
        }
    }
}

impl std::error::Error for Problems {}

/// Longest piece of a user's text that is repeated to him, in characters.
const QUOTED_CHARS: usize = 80;

/// Control characters, and those that have no shape or turn the direction of a line, made visible:
/// a line of output must not be broken, coloured or reordered by a value.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        let is_plain = matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
        if is_plain { line.push(c) } else { line.extend(c.escape_debug()) }
    }
    line
}

/// A value between quotation marks, cut to a readable length and kept on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    // A quotation mark needs no escape to be read.
    format!("'{}'", shown.replace("\\'", "'").replace("\\\"", "\""))
}

/// From this length on an unknown key is taken for a secret: those of MinIO have 16 characters and
/// more, those of AWS 40.
const SECRET_BYTES: usize = 16;

/// A key as far as it may be shown. Where a file is malformed a secret can end up in the place of a
/// key; keys that are known, and paths of mounts, are none.
pub(super) fn key_name(key: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_short = key.len() < SECRET_BYTES || (is_mount_path(key) && key.len() < 40);
    let is_shown = schema::is_known(key) || (is_short && key.chars().all(plain));
    if is_shown && !key.is_empty() { key } else { "(a key)" }
}

fn is_mount_path(key: &str) -> bool {
    key.starts_with('/') && key.ends_with('/')
}

/// The known name that `typed` was probably meant to be.
pub(super) fn nearest<'n>(typed: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    /// Below this Jaro-Winkler similarity a suggestion confuses more than it helps.
    const SIMILAR: f64 = 0.82;
    let typed = typed.to_ascii_lowercase();
    known
        .map(|name| (name, strsim::jaro_winkler(&typed, &name.to_ascii_lowercase())))
        .filter(|&(_, similarity)| similarity >= SIMILAR)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_that_starts_with_its_place() {
        let file = Place::File { name: "config.yaml".to_owned(), line: Some(7) };
        let fault = || Fault::new("unknown key", "did you mean 'metadata_ttl'?");
        assert_eq!(
            Spot::new(file.clone(), "metadata_tll").problem(fault()).to_string(),
            "config.yaml:7: metadata_tll: unknown key; did you mean 'metadata_ttl'?"
        );
        let fault_of_two_lines = Spot::new(Place::Flag, "").problem(Fault::new("a\nb", ""));
        assert_eq!(fault_of_two_lines.to_string(), "a\\nb");
        let flag = Spot::new(Place::Flag, "--listen").problem(Fault::new("is bad", ""));
        assert_eq!(flag.to_string(), "--listen: is bad");
        let variable = Spot::new(Place::Environment, "S3PROXY_LISTEN").problem(fault());
        assert!(variable.to_string().starts_with("environment: S3PROXY_LISTEN: unknown"));
    }

    #[test]
    fn quoted_text_stays_short_and_on_one_line() {
        assert_eq!(quoted("it's\n\u{1b}[31m"), r"'it's\n\u{1b}[31m'");
        assert!(quoted(&"x".repeat(10_000)).len() < 100);
    }

    #[test]
    fn a_key_that_may_be_a_secret_is_not_repeated() {
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
        let problem =
            Spot::new(Place::File { name, line: Some(1) }, "").problem(Fault::new("x", ""));
        assert_eq!(problem.to_string(), r"a\nb\u{1b}[31m\u{202e}'c\:1: x");
    }

    #[test]
    fn twenty_mistakes_are_printed_and_the_others_counted() {
        let printed = |count: usize| {
            let problem = Spot::new(Place::Flag, "x").problem(Fault::new("is bad", ""));
            Problems::new(vec![problem; count]).to_string()
        };
        assert_eq!(printed(20).lines().count(), 20);
        assert!(printed(21).ends_with("\nx: is bad\nand 1 more mistake"));
        assert!(printed(1000).ends_with("\nand 980 more mistakes"));
        assert_eq!(printed(1000).lines().count(), 21);
    }

    #[test]
    fn the_nearest_key_is_named_and_nothing_far_off() {
        let known = ["bucket_name", "metadata_ttl", "metadata_entries", "listen"];
        assert_eq!(nearest("metadata_tll", known.into_iter()), Some("metadata_ttl"));
        assert_eq!(nearest("bucket", known.into_iter()), Some("bucket_name"));
        assert_eq!(nearest("Listen", known.into_iter()), Some("listen"));
        assert_eq!(nearest("zzz", known.into_iter()), None);
    }
}
