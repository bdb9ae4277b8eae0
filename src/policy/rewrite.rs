//! `rewrite_rules`: regular expressions applied to a key before its object is requested.
//!
//! Rules are applied in file order, each to the result of the one before, and each replaces every
//! match, as `re.sub` did in the 2014 application. Matching takes time linear in the length of the
//! key, so a hostile URL cannot cause catastrophic backtracking; look-around and back-references
//! inside `from` are therefore not supported.
//!
//! Rules with `when: missing` are applied only to keys that do not exist, each on its own: every
//! rule gives another key to try, in file order.

use std::borrow::Cow;

use regex::Regex;

/// Replaces every match of `from` by `to`.
#[derive(Clone, Debug)]
pub struct Rule {
    name: String,
    from: Regex,
    to: String,
    when: When,
}

/// When a rule is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// To every key, as in the 2014 application.
    #[default]
    Always,
    /// To keys that do not exist.
    Missing,
}

impl Rule {
    /// Compiles a rule. `to` is written as for Python's `re.sub`: `\1` and `\g<name>` stand for
    /// groups, `\\` for a backslash, and `$` has no special meaning.
    ///
    /// # Errors
    /// One line about the syntax error in `from`, or the group in `to` that `from` does not have.
    pub fn new(name: &str, from: &str, to: &str, when: When) -> Result<Rule, String> {
        let from = Regex::new(from).map_err(|error| describe(&error))?;
        if to.contains('\0') {
            return Err("'to' contains a NUL character, which keys cannot contain".to_owned());
        }
        let to = replacement(to, &from)?;
        Ok(Rule { name: name.to_owned(), from, to, when })
    }

    /// The rule's key in the configuration file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it is applied.
    pub fn when(&self) -> When {
        self.when
    }

    /// Rewrites a key in place; `false` if it stays the same.
    fn apply(&self, key: &mut String) -> bool {
        match self.from.replace_all(key, self.to.as_str()) {
            Cow::Owned(rewritten) if rewritten != *key => {
                *key = rewritten;
                true
            }
            _ => false,
        }
    }
}

/// All rules, in file order.
#[derive(Clone, Debug, Default)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// Rewrites a key in place. Allocates only if a rule matches.
    pub fn apply(&self, key: &mut String) {
        for rule in self.0.iter().filter(|rule| rule.when == When::Always) {
            rule.apply(key);
        }
    }

    /// The number of rules with `when: missing`.
    pub fn for_missing(&self) -> usize {
        self.0.iter().filter(|rule| rule.when == When::Missing).count()
    }

    /// Rewrites a missing key in place by one of the rules with `when: missing`, counted from 0;
    /// `false` if it stays the same.
    pub fn apply_to_missing(&self, number: usize, key: &mut String) -> bool {
        let rule = self.0.iter().filter(|rule| rule.when == When::Missing).nth(number);
        rule.is_some_and(|rule| rule.apply(key))
    }
}

/// The last line of a regex error, which names the problem; the lines before it show the pattern.
fn describe(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Converts a replacement from Python's syntax to that of the `regex` crate.
fn replacement(to: &str, from: &Regex) -> Result<String, String> {
    let mut out = String::with_capacity(to.len() + 8);
    let mut rest = to.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek().copied()) {
            ('$', _) => out.push_str("$$"),
            ('\\', Some('\\')) => {
                rest.next();
                out.push('\\');
            }
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                let mut group = String::new();
                while group.len() < 2
                    && let Some(digit) = rest.next_if(char::is_ascii_digit)
                {
                    group.push(digit);
                }
                let index: usize =
                    group.parse().map_err(|_| "'to' has an invalid group number".to_owned())?;
                if index >= from.captures_len() {
                    return Err(format!("'to' uses group \\{index}, which 'from' does not have"));
                }
                out.push_str(&format!("${{{index}}}"));
            }
            ('\\', Some('g')) => {
                rest.next();
                let name: String = match rest.next() {
                    Some('<') => rest.by_ref().take_while(|&c| c != '>').collect(),
                    _ => return Err("'\\g' in 'to' must be followed by <name>".to_owned()),
                };
                let exists = from.capture_names().flatten().any(|other| other == name)
                    || name.parse().is_ok_and(|index: usize| index < from.captures_len());
                if !exists {
                    return Err(format!("'to' uses group \\g<{name}>, which 'from' does not have"));
                }
                out.push_str(&format!("${{{name}}}"));
            }
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(rules: &[(&str, &str)], key: &str) -> String {
        let rule = |(from, to): &(&str, &str)| Rule::new("r", from, to, When::Always).unwrap();
        let mut key = key.to_owned();
        Rules(rules.iter().map(rule).collect()).apply(&mut key);
        key
    }

    #[test]
    fn the_rule_of_the_2014_readme_maps_index_names() {
        let rules = [(r"\.bam\.bai$", ".bai")];
        assert_eq!(applied(&rules, "a/b.bam.bai"), "a/b.bai");
        assert_eq!(applied(&rules, "a/b.bam"), "a/b.bam");
    }

    #[test]
    fn rules_are_applied_in_order_each_to_the_result_of_the_one_before() {
        assert_eq!(applied(&[("a", "b"), ("b", "c")], "ab"), "cc");
    }

    #[test]
    fn groups_are_written_as_in_python_and_a_dollar_is_a_dollar() {
        assert_eq!(applied(&[(r"(\w+)/(\w+)", r"\2/\1$1")], "x/y"), "y/x$1");
        assert_eq!(applied(&[(r"(?P<run>\d+)", r"run-\g<run>\\")], "7"), "run-7\\");
    }

    #[test]
    fn mistakes_in_a_rule_are_reported() {
        let says = |from, to| Rule::new("r", from, to, When::Always).unwrap_err();
        assert!(says("a", "b\0").contains("a NUL character"));
        assert!(says("(", "").contains("unclosed group"));
        assert!(says("(?=a)", "").contains("look-around"));
        assert!(says("a", r"\1").contains("group \\1"));
        assert!(says("a", r"\g<x>").contains("g<x>"));
    }

    #[test]
    fn rules_for_missing_keys_are_applied_only_to_them_and_one_at_a_time() {
        let rule = |from, to, when| Rule::new("r", from, to, when).unwrap();
        let rules = Rules(vec![
            rule("a", "b", When::Missing),
            rule("x", "y", When::Always),
            rule("c", "d", When::Missing),
        ]);
        let mut key = "acx".to_owned();
        rules.apply(&mut key);
        assert_eq!((key.as_str(), rules.for_missing()), ("acy", 2));
        let rewritten = |number| {
            let mut key = key.clone();
            rules.apply_to_missing(number, &mut key).then_some(key)
        };
        assert_eq!(rewritten(0).as_deref(), Some("bcy"));
        assert_eq!(rewritten(1).as_deref(), Some("ady"));
        assert_eq!(rewritten(2), None);
        assert!(!rules.apply_to_missing(0, &mut "zzz".to_owned()));
    }
}
