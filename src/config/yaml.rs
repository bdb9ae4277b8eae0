//! YAML text as a small tree in which every node knows its line.
//!
//! Scalars keep the text as typed: `bucket_name: 0123` and `bucket_name: yes` are strings here,
//! and what they mean is decided by whoever reads that key. The text is bounded by the caller,
//! depth by [`INDENT_CHARS`] (blocks) and by the parser (255 for brackets), aliases by the parser
//! (100,000 nodes). Tags (`!x`) and several documents in one file are refused.
//!
//! A key written twice in one map ends the reading of the file, as a syntax error does.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, ScanError, YamlData};

use crate::config::problem::key_name;

/// Longest run of spaces and list marks that a line may start with. Each level of nesting takes
/// one at least, and the parser recurses: half a megabyte of `- - - …` would end the process.
const INDENT_CHARS: usize = 200;

/// A value and the line it starts on.
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a node holds.
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar, as typed.
    Text(String),
    /// `- a`, `[a]`.
    List(Vec<Node>),
    /// `key: value`, in file order; every key occurs once.
    Map(Vec<Entry>),
}

/// One `key: value` of a map.
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: Node,
}

/// Why a text is no YAML that is understood here.
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

/// Reads one document; `None` is a text without any value, such as an empty file.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Malformed> {
    // Editors on Windows put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_deep_nesting(text)?;
    let documents = MarkedYaml::load_from_str(text).map_err(|error| describe(&error, text))?;
    if let Some(second) = documents.get(1) {
        let remedy = "keep one, and put it on top";
        return Err(Malformed::new(second.span.start.line(), "a second document starts", remedy));
    }
    let source = Source { text, offsets: text.char_indices().map(|(offset, _)| offset).collect() };
    match documents.first() {
        None => Ok(None),
        Some(root) if matches!(root.data, YamlData::BadValue) => Ok(None),
        Some(root) => {
            let root = source.node(root)?;
            Ok(if matches!(root.value, Value::Null) { None } else { Some(root) })
        }
    }
}

fn refuse_deep_nesting(text: &str) -> Result<(), Malformed> {
    for (index, line) in text.lines().enumerate() {
        let is_mark = |c: char| c.is_whitespace() || "-?:".contains(c);
        if line.chars().take_while(|&c| is_mark(c)).count() > INDENT_CHARS {
            let what = "is nested too deeply";
            return Err(Malformed::new(index + 1, what, "indent each level by two spaces"));
        }
    }
    Ok(())
}

/// The parser's words without their position, which is reported apart, and a hint for the
/// mistakes that configurations of this kind invite.
fn describe(error: &ScanError, text: &str) -> Malformed {
    // Past the end where something is never closed.
    let lines = text.lines().count().max(1);
    let line = error.marker().line().clamp(1, lines);
    let written = text.lines().nth(line - 1).unwrap_or_default();
    if error.info() == "duplicated key in mapping" {
        let key: String = written.chars().skip(error.marker().col()).collect();
        let key = key.split(':').next().unwrap_or_default().trim_matches(['"', '\'', ' ']);
        let what = format!("{} is written twice", key_name(key));
        return Malformed::new(line, what, "keep one of the two");
    }
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

/// The text, addressable by the parser's positions, which count characters.
struct Source<'t> {
    text: &'t str,
    offsets: Vec<usize>,
}

impl Source<'_> {
    fn node(&self, yaml: &MarkedYaml<'_>) -> Result<Node, Malformed> {
        let line = yaml.span.start.line();
        let value = match &yaml.data {
            YamlData::Value(Scalar::Null) => Value::Null,
            YamlData::Value(scalar) => Value::Text(self.as_typed(yaml, scalar)),
            YamlData::Sequence(items) => {
                Value::List(items.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            YamlData::Mapping(entries) => {
                Value::Map(entries.iter().map(|(k, v)| self.entry(k, v)).collect::<Result<_, _>>()?)
            }
            // Representations are not asked for; the rest are tags and values that belie theirs.
            YamlData::Tagged(..)
            | YamlData::BadValue
            | YamlData::Alias(_)
            | YamlData::Representation(..) => {
                return Err(Malformed::new(line, "has a '!' tag", "tags are not used here"));
            }
        };
        Ok(Node { line, value })
    }

    fn entry(&self, key: &MarkedYaml<'_>, value: &MarkedYaml<'_>) -> Result<Entry, Malformed> {
        let line = key.span.start.line();
        let key = match self.node(key)?.value {
            Value::Text(key) => key,
            Value::Null => String::new(),
            Value::List(_) | Value::Map(_) => {
                return Err(Malformed::new(line, "a key is a list or a map", "keys are words"));
            }
        };
        Ok(Entry { line, key, value: self.node(value)? })
    }

    /// A scalar's text. Numbers and booleans are taken from the source, because `0123` and `1e3`
    /// do not survive being numbers.
    fn as_typed(&self, yaml: &MarkedYaml<'_>, scalar: &Scalar<'_>) -> String {
        let typed = self.slice(yaml.span.start.index(), yaml.span.end.index()).trim();
        match scalar {
            Scalar::String(text) => text.to_string(),
            // An alias (`*name`) stands where its value would; a quoted number has a tag.
            _ if !typed.starts_with(['*', '\'', '"', '!', '&']) => typed.to_owned(),
            Scalar::Integer(number) => number.to_string(),
            Scalar::FloatingPoint(number) => number.to_string(),
            Scalar::Boolean(value) => value.to_string(),
            Scalar::Null => String::new(),
        }
    }

    fn slice(&self, start: usize, end: usize) -> &str {
        let offset = |index: usize| self.offsets.get(index).copied().unwrap_or(self.text.len());
        self.text.get(offset(start)..offset(end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as one line of text with the line of each node.
    fn show(node: &Node) -> String {
        let value = match &node.value {
            Value::Null => "~".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Map(entries) => {
                let entry = |e: &Entry| format!("{}@{}={}", e.key, e.line, show(&e.value));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        };
        format!("{value}@{}", node.line)
    }

    fn tree(text: &str) -> String {
        show(&parse(text).unwrap().unwrap())
    }

    fn malformed(text: &str) -> Malformed {
        parse(text).err().unwrap()
    }

    #[test]
    fn every_node_knows_its_line() {
        assert_eq!(
            tree("a: x\nb:\n  - y\n  - z\nc: {d: e}\n"),
            r#"{a@1="x"@1 b@2=["y"@3 "z"@4]@3 c@5={d@5="e"@5}@5}@1"#
        );
        assert_eq!(tree("\u{feff}a: x\r\nb: y\r\n"), r#"{a@1="x"@1 b@2="y"@2}@1"#);
    }

    #[test]
    fn scalars_keep_the_text_as_typed() {
        for typed in ["0123", "12345", "1e3", "0x1F", "true", "FALSE", "off", "1.50", "+7", ".inf"]
        {
            assert_eq!(tree(&format!("é: {typed}  # why\n")), format!("{{é@1={typed:?}@1}}@1"));
            assert_eq!(tree(&format!("{{a: {typed}}}")), format!("{{a@1={typed:?}@1}}@1"));
            assert_eq!(tree(&format!("a: '{typed}'")), format!("{{a@1={typed:?}@1}}@1"));
        }
        assert_eq!(tree("123: 0123"), r#"{123@1="0123"@1}@1"#);
    }

    #[test]
    fn an_alias_stands_for_its_value() {
        assert_eq!(tree("a: &x 12\nb: *x\n"), r#"{a@1="12"@1 b@2="12"@2}@1"#);
    }

    #[test]
    fn nothing_is_null_and_a_quoted_null_is_text() {
        assert_eq!(tree("a:\nb: ~\nc: null\nd: 'null'\ne: ''\n").matches('~').count(), 3);
        for empty in ["", "\n", "# only a comment\n", "---\n", "~"] {
            assert!(parse(empty).unwrap().is_none(), "{empty:?}");
        }
    }

    #[test]
    fn a_syntax_error_has_a_line_and_where_possible_a_hint() {
        let error = malformed("a: b\nc: [1, 2\n");
        assert!(error.what.starts_with("is not YAML: "), "{error:?}");
        assert!(error.line >= 2, "{error:?}");
        assert_eq!(malformed("a: 1\ncors: *\n").remedy, "put '*' between quotation marks");
        assert_eq!(malformed("a: 1\ncors: *\n").line, 2);
        assert!(malformed("listen: [::1]:5000\n").remedy.contains("quotation marks"));
        assert!(malformed("a:\n\tb: c\n").remedy.contains("spaces"));
        assert!(malformed("a: b\n\tc: d\n").remedy.contains("spaces"));
    }

    #[test]
    fn what_a_configuration_has_no_use_for_is_refused() {
        assert_eq!(malformed("a: 1\nb: 2\na: 3\n").line, 3);
        assert_eq!(malformed("a: 1\nb: 2\na: 3\n").what, "a is written twice");
        assert_eq!(malformed("a: 1\n---\nb: 2\n").what, "a second document starts");
        assert_eq!(malformed("a: !x 1\n").what, "has a '!' tag");
        assert_eq!(malformed("a: !!int x\n").what, "has a '!' tag");
        assert_eq!(malformed("[a]: 1\n").what, "a key is a list or a map");
    }

    #[test]
    fn deep_nesting_is_refused_and_not_recursed_into() {
        let n = 100_000;
        for mark in ["- ", "? ", "[", "{a: ", "? - ", "-\t", "a: [", "!t [", "&a [", "- ? "] {
            assert!(parse(&mark.repeat(n)).is_err(), "{mark:?}");
        }
        let staircase: String =
            (0..1_400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert_eq!(malformed(&staircase).what, "is nested too deeply");
        let long_comment = format!("a: 1\n#{}\n", "-".repeat(10_000));
        assert!(parse(&long_comment).is_ok());
    }

    #[test]
    fn aliases_of_aliases_do_not_multiply() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..20 {
            let last = n - 1;
            text += &format!("a{n}: &a{n} [*a{last}, *a{last}, *a{last}, *a{last}, *a{last}]\n");
        }
        assert!(malformed(&text).what.contains("alias"));
    }
}
