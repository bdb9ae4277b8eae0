//! YAML text as a small tree in which every node knows its line.
//!
//! Scalars keep the text as typed: `bucket_name: 0123` and `bucket_name: yes` are strings here,
//! and what they mean is decided by whoever reads that key. The text is bounded by the caller,
//! nesting by [`DEPTH`], what aliases stand for by [`ALIAS_BYTES`]. Nothing here recurses but
//! over a finished tree, which is no deeper than that.
//!
//! What can be read over is reported and read over: a key written twice, a tag (`!x`), a key that
//! is no word. A syntax error, a second document and the bounds end the reading.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use crate::config::problem::key_name;

/// Deepest nesting of lists and maps. A configuration has five levels; each costs a stack frame
/// where a tree is walked, and its anchors a copy of what is below them.
pub(super) const DEPTH: usize = 32;

/// Text that all aliases of a file together may stand for, in bytes, each value counting one more.
/// Aliases of aliases multiply: a few lines could stand for more than there is memory.
const ALIAS_BYTES: usize = 64 * 1024;

/// A value and the line it starts on.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar, as typed.
    Text(String),
    /// `- a`, `[a]`.
    List(Vec<Node>),
    /// `key: value`, in file order. A key that occurs twice has been reported, and both entries
    /// are there so that what is wrong with either of them is reported too.
    Map(Vec<Entry>),
}

/// One `key: value` of a map.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: Node,
}

/// Something about a text that is not understood here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) what: String,
    pub(super) remedy: &'static str,
}

impl Malformed {
    fn new(line: usize, what: impl Into<String>, remedy: &'static str) -> Malformed {
        Malformed { line, what: what.into(), remedy }
    }
}

/// Reads one document; `None` is a text without any value, such as an empty file, or one whose
/// reading was ended by the last of the mistakes.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Malformed>) {
    // Editors on Windows put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let last_line = lines(text).count();
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        let step = match event {
            // Where something is never closed or said, the position is past the end.
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

/// The lines as YAML counts them, at least one: a carriage return alone ends one too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim_end_matches(['\r', '\n']);
    text.split("\r\n").flat_map(|part| part.split(['\r', '\n']))
}

/// The parser's words without their position, which is reported apart, and a hint for the
/// mistakes that configurations of this kind invite.
fn describe(error: &ScanError, text: &str) -> Malformed {
    let line = error.marker().line().clamp(1, lines(text).count());
    let written = lines(text).nth(line - 1).unwrap_or_default();
    let remedy = if written.contains('\t') || error.info().contains("a tab") {
        "indent with spaces, not with tabs"
    } else if written.contains('*') {
        "put '*' between quotation marks"
    } else if written.contains("[::") {
        "put an address with brackets between quotation marks"
    } else {
        ""
    };
    Malformed::new(line, format!("is not YAML: {}", error.info()), remedy)
}

/// A tree that grows event by event.
#[derive(Default)]
struct Tree {
    documents: usize,
    root: Option<Node>,
    /// The lists and maps that have not ended yet, the outermost first.
    open: Vec<Open>,
    /// Values that may be referred to, by the parser's number.
    anchored: HashMap<usize, Node>,
    /// What aliases have stood for so far.
    alias_bytes: usize,
    mistakes: Vec<Malformed>,
}

/// A list or a map that has not ended yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The line and the key of a map whose value comes next; a key that is no word is `None`.
    key: Option<(usize, Option<String>)>,
}

impl Tree {
    /// Takes the next event, which starts on `line`; an error ends the reading.
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Malformed> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let remedy = "keep one, and put it on top";
                    return Err(Malformed::new(line, "a second document starts", remedy));
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
            let remedy = "no setting is that deep";
            return Err(Malformed::new(node.line, "is nested too deeply", remedy));
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// What an alias stands for.
    fn aliased(&mut self, anchor: usize, line: usize) -> Result<Value, Malformed> {
        let Some(node) = self.anchored.get(&anchor) else {
            let what = "an alias stands inside the value that it stands for";
            return Err(Malformed::new(line, what, "write the value out"));
        };
        self.alias_bytes += size(node);
        // The copy is as deep as what it stands for, and stands as deep as what is open.
        if self.alias_bytes > ALIAS_BYTES || self.open.len() + depth(node) > DEPTH {
            let what = "the aliases up to here stand for too much";
            return Err(Malformed::new(line, what, "write the values out"));
        }
        Ok(node.value.clone())
    }

    /// Puts a finished node where it belongs.
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
                        let what = "a key is a list or a map";
                        self.mistakes.push(Malformed::new(node.line, what, "keys are words"));
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
                let what = format!("{} is written twice", key_name(&entry.key));
                self.mistakes.push(Malformed::new(entry.line, what, "keep one of the two"));
            }
        }
    }
}

/// The text in a tree in bytes, each value counting one more.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null => 0,
        Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|e| e.key.len() + size(&e.value)).sum(),
    }
}

/// The lists and maps that the deepest value of a tree is in.
fn depth(node: &Node) -> usize {
    let deepest = match &node.value {
        Value::Null | Value::Text(_) => return 0,
        Value::List(items) => items.iter().map(depth).max(),
        Value::Map(entries) => entries.iter().map(|entry| depth(&entry.value)).max(),
    };
    1 + deepest.unwrap_or(0)
}
