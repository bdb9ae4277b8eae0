//! Parses YAML into a small tree whose nodes have line numbers.
//!
//! Scalars remain text: `bucket_name: 0123` and `bucket_name: yes` are strings, and the kind of a
//! key decides how they are parsed. The caller limits the size of the text, [`DEPTH`] the nesting,
//! [`ALIAS_BYTES`] the expansion of aliases. Only functions that walk a finished tree recurse, at
//! most to [`DEPTH`].
//!
//! Parsing continues after a duplicate key, a tag (`!x`) or a key that is a list or a map, so that
//! later mistakes are reported too. It stops at a syntax error, a second document, or a limit.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use crate::config::diagnostic::key_name;

/// Deepest nesting of lists and maps. A configuration needs five levels. Each level costs a stack
/// frame when a tree is walked, and a copy of its content if it has an anchor.
pub(in crate::config) const DEPTH: usize = 32;

/// Text to which all aliases of a file together may expand, in bytes, plus one for each value.
/// Without this limit, nested aliases in a few lines could exhaust memory ("billion laughs").
const ALIAS_BYTES: usize = 64 * 1024;

/// A value and the line it starts on.
#[derive(Clone)]
pub(in crate::config) struct Node {
    pub(in crate::config) line: usize,
    pub(in crate::config) value: Value,
}

#[derive(Clone)]
pub(in crate::config) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar, unparsed.
    Text(String),
    /// `- a`, `[a]`.
    List(Vec<Node>),
    /// `key: value`, in file order. A duplicate key has been reported; both entries are kept so
    /// that mistakes in either of them are reported too.
    Map(Vec<Entry>),
}

#[derive(Clone)]
pub(in crate::config) struct Entry {
    pub(in crate::config) line: usize,
    pub(in crate::config) key: String,
    pub(in crate::config) value: Node,
}

/// A mistake in the YAML itself.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) struct Malformed {
    pub(in crate::config) line: usize,
    pub(in crate::config) problem: String,
    pub(in crate::config) help: &'static str,
}

impl Node {
    /// A value that did not come from a file.
    pub(in crate::config) fn text(text: &str) -> Node {
        Node { line: 0, value: Value::Text(text.to_owned()) }
    }
}

impl Malformed {
    fn new(line: usize, problem: impl Into<String>, help: &'static str) -> Malformed {
        Malformed { line, problem: problem.into(), help }
    }
}

/// Parses one document. `None` if it is empty or null, or if parsing stopped before its end.
pub(in crate::config) fn parse(text: &str) -> (Option<Node>, Vec<Malformed>) {
    // Editors on Windows put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let last_line = lines(text).count();
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        let step = match event {
            // The position is past the end if something is never closed or has no value.
            Ok((event, span)) => tree.take(event, span.start.line().clamp(1, last_line)),
            Err(error) => Err(describe(&error, text)),
        };
        if let Err(end) = step {
            tree.mistakes.push(end);
            return (None, tree.mistakes);
        }
    }
    (tree.root.filter(|root| !matches!(root.value, Value::Null)), tree.mistakes)
}

/// The lines of a text, at least one. In YAML, a carriage return alone ends a line too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim_end_matches(['\r', '\n']);
    text.split("\r\n").flat_map(|part| part.split(['\r', '\n']))
}

/// The parser's message without its position, with help for the most likely mistakes.
fn describe(error: &ScanError, text: &str) -> Malformed {
    let line = error.marker().line().clamp(1, lines(text).count());
    let written = lines(text).nth(line - 1).unwrap_or_default();
    let help = if written.contains('\t') || error.info().contains("a tab") {
        "indent with spaces, not with tabs"
    } else if written.contains('*') {
        "put '*' between quotation marks"
    } else if written.contains("[::") {
        "put an address with brackets between quotation marks"
    } else {
        ""
    };
    Malformed::new(line, format!("is not YAML: {}", error.info()), help)
}

/// Builds a tree from parser events.
#[derive(Default)]
struct Tree {
    documents: usize,
    root: Option<Node>,
    /// The unfinished lists and maps, outermost first.
    open: Vec<Open>,
    /// Values with an anchor, by the parser's number of it.
    anchored: HashMap<usize, Node>,
    /// The [`size`] of all expanded aliases so far.
    alias_bytes: usize,
    mistakes: Vec<Malformed>,
}

/// An unfinished list or map.
struct Open {
    node: Node,
    anchor: usize,
    /// In a map before a value: the line and the text of its key; no text if the key is a list or a
    /// map.
    key: Option<(usize, Option<String>)>,
}

impl Tree {
    /// Processes an event that starts on `line`. An error stops parsing.
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Malformed> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let help = "keep one, and put it on top";
                    return Err(Malformed::new(line, "a second document starts", help));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(line, tag.as_deref());
                let null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Text(text.into_owned()) };
                self.add(Node { line, value }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(line, tag.as_deref());
                self.open(Node { line, value: Value::List(Vec::new()) }, anchor)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(line, tag.as_deref());
                self.open(Node { line, value: Value::Map(Vec::new()) }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { node, anchor, .. }) = self.open.pop() {
                    self.report_repeated_keys(&node);
                    self.add(node, anchor);
                }
            }
            Event::Alias(anchor) => {
                let value = self.aliased(anchor, line)?;
                self.add(Node { line, value }, 0);
            }
            Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn refuse_tag(&mut self, line: usize, tag: Option<&Tag>) {
        if tag.is_some() {
            self.mistakes.push(Malformed::new(line, "has a '!' tag", "tags are not used here"));
        }
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), Malformed> {
        if self.open.len() == DEPTH {
            let help = "no setting is nested as deeply";
            return Err(Malformed::new(node.line, "is nested too deeply", help));
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// The value that an alias refers to.
    fn aliased(&mut self, anchor: usize, line: usize) -> Result<Value, Malformed> {
        let Some(node) = self.anchored.get(&anchor) else {
            let problem = "an alias is inside the value that it refers to";
            return Err(Malformed::new(line, problem, "write the value out"));
        };
        self.alias_bytes += size(node);
        // The copy is nested in all open lists and maps.
        if self.alias_bytes > ALIAS_BYTES || self.open.len() + depth(node) > DEPTH {
            let problem = "the aliases up to here expand to too much";
            return Err(Malformed::new(line, problem, "write the values out"));
        }
        Ok(node.value.clone())
    }

    /// Adds a finished node to the innermost open list or map.
    fn add(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.anchored.insert(anchor, node.clone());
        }
        let Some(Open { node: parent, key, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match (&mut parent.value, key.take()) {
            (Value::Map(entries), Some((line, Some(key)))) => {
                entries.push(Entry { line, key, value: node });
            }
            (Value::Map(_), Some((_, None))) => {}
            (Value::Map(_), None) => {
                let word = match node.value {
                    Value::Text(word) => Some(word),
                    Value::Null => Some(String::new()),
                    Value::List(_) | Value::Map(_) => {
                        let problem = "a key is a list or a map";
                        self.mistakes.push(Malformed::new(node.line, problem, "keys are words"));
                        None
                    }
                };
                *key = Some((node.line, word));
            }
            (Value::List(items), _) => items.push(node),
            (Value::Null | Value::Text(_), _) => {}
        }
    }

    fn report_repeated_keys(&mut self, node: &Node) {
        let Value::Map(entries) = &node.value else { return };
        let mut seen = HashSet::new();
        for entry in entries {
            if !seen.insert(entry.key.as_str()) {
                let problem = format!("{} is written twice", key_name(&entry.key));
                self.mistakes.push(Malformed::new(entry.line, problem, "keep one of the two"));
            }
        }
    }
}

/// The text in a tree, in bytes, plus one for each value.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null => 0,
        Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|e| e.key.len() + size(&e.value)).sum(),
    }
}

/// The number of nested lists and maps in a tree.
fn depth(node: &Node) -> usize {
    let deepest = match &node.value {
        Value::Null | Value::Text(_) => return 0,
        Value::List(items) => items.iter().map(depth).max(),
        Value::Map(entries) => entries.iter().map(|entry| depth(&entry.value)).max(),
    };
    1 + deepest.unwrap_or(0)
}
