//! The YAML tree: line numbers, unparsed scalars, and mistakes.

use crate::config::source::yaml::{DEPTH, Entry, Malformed, Node, Value, parse};

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
    let (root, mistakes) = parse(text);
    assert_eq!(mistakes, []);
    show(&root.unwrap())
}

/// The only mistake of a text.
fn malformed(text: &str) -> Malformed {
    let mut mistakes = parse(text).1;
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes.remove(0)
}

#[test]
fn every_node_has_its_line_number() {
    assert_eq!(
        tree("a: x\nb:\n  - y\n  - z\nc: {d: e}\n"),
        r#"{a@1="x"@1 b@2=["y"@3 "z"@4]@3 c@5={d@5="e"@5}@5}@1"#
    );
    assert_eq!(tree("\u{feff}a: x\r\nb: y\r\n"), r#"{a@1="x"@1 b@2="y"@2}@1"#);
}

#[test]
fn scalars_remain_text() {
    for typed in ["0123", "12345", "1e3", "0x1F", "true", "FALSE", "off", "1.50", "+7", ".inf"] {
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
fn a_missing_value_is_null_and_a_quoted_null_is_text() {
    assert_eq!(tree("a:\nb: ~\nc: null\nd: 'null'\ne: ''\n").matches('~').count(), 3);
    for empty in ["", "\n", "# only a comment\n", "---\n", "~"] {
        let (root, mistakes) = parse(empty);
        assert!(root.is_none() && mistakes.is_empty(), "{empty:?}");
    }
}

#[test]
fn a_syntax_error_has_a_line_and_if_possible_help() {
    let error = malformed("a: b\nc: [1, 2\n");
    assert!(error.problem.starts_with("is not YAML: "), "{error:?}");
    assert!(error.line >= 2, "{error:?}");
    assert_eq!(malformed("a: 1\ncors: *\n").help, "put '*' between quotation marks");
    assert_eq!(malformed("a: 1\ncors: *\n").line, 2);
    assert!(malformed("listen: [::1]:5000\n").help.contains("quotation marks"));
    assert!(malformed("a:\n\tb: c\n").help.contains("spaces"));
    assert!(malformed("a: b\n\tc: d\n").help.contains("spaces"));
}

#[test]
fn yaml_that_a_configuration_does_not_need_is_rejected() {
    assert_eq!(malformed("a: 1\nb: 2\na: 3\n").line, 3);
    assert_eq!(malformed("a: 1\nb: 2\na: 3\n").problem, "a is written twice");
    assert_eq!(malformed("a: 1\n---\nb: 2\n").problem, "a second document starts");
    assert_eq!(malformed("a: !x 1\n").problem, "has a '!' tag");
    assert_eq!(malformed("a: !!int x\n").problem, "has a '!' tag");
    assert_eq!(malformed("[a]: 1\n").problem, "a key is a list or a map");
}

#[test]
fn mistakes_that_do_not_stop_parsing_are_all_reported() {
    let (root, mistakes) = parse("a: 1\nb: {c: !x 2, c: 3}\n? [d]\n: 4\na: 5\n");
    let said: Vec<_> = mistakes.iter().map(|m| (m.line, m.problem.as_str())).collect();
    assert_eq!(
        said,
        [
            (2, "has a '!' tag"),
            (2, "c is written twice"),
            (3, "a key is a list or a map"),
            (5, "a is written twice"),
        ]
    );
    assert_eq!(show(&root.unwrap()), r#"{a@1="1"@1 b@2={c@2="2"@2 c@2="3"@2}@2 a@5="5"@5}@1"#);
}

#[test]
fn a_position_past_the_end_is_on_the_last_line() {
    // A carriage return alone ends a line of YAML, and an omitted value may have the position
    // of what comes next; both were found by fuzzing.
    for (text, lines) in [("\rB", 2), ("?\n ", 2), ("a: [\r\n\r\n", 1), ("a:\r", 1)] {
        let (root, mistakes) = parse(text);
        for line in root.iter().flat_map(entry_lines).chain(mistakes.iter().map(|m| m.line)) {
            assert!((1..=lines).contains(&line), "{text:?}: {line}");
        }
    }
}

/// The lines of a map's entries and of their values.
fn entry_lines(node: &Node) -> Vec<usize> {
    match &node.value {
        Value::Map(entries) => entries.iter().flat_map(|e| [e.line, e.value.line]).collect(),
        _ => vec![node.line],
    }
}

#[test]
fn deep_nesting_is_rejected_without_recursion() {
    let n = 100_000;
    for mark in ["- ", "? ", "[", "{a: ", "? - ", "-\t", "a: [", "!t [", "&a [", "- ? "] {
        let (root, mistakes) = parse(&mark.repeat(n));
        assert!(root.is_none() && !mistakes.is_empty(), "{mark:?}");
    }
    let staircase: String = (0..1_400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(malformed(&staircase).problem, "is nested too deeply");
    let long_comment = format!("a: 1\n#{}\n", "-".repeat(10_000));
    assert_eq!(tree(&long_comment), r#"{a@1="1"@1}@1"#);
}

#[test]
fn aliases_of_aliases_do_not_multiply() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let last = n - 1;
        text += &format!("a{n}: &a{n} [*a{last}, *a{last}, *a{last}, *a{last}, *a{last}]\n");
    }
    assert!(malformed(&text).problem.contains("alias"));

    let long = "x".repeat(1_000);
    let text = format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(100));
    assert!(malformed(&text).problem.contains("alias"));

    let mut text = "a0: &a0 [x]\n".to_owned();
    for n in 1..DEPTH {
        text += &format!("a{n}: &a{n} [*a{}]\n", n - 1);
    }
    assert!(malformed(&text).problem.contains("alias"));
    assert!(malformed("a: &a [*a]\n").problem.contains("alias"));
}
