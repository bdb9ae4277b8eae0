//! `rewrite_rules`: regular expressions applied to a key before it is looked up.
//!
//! The rules run in file order, each on the result of the one before it, and each replaces every
//! match, as `re.sub` did in the 2014 application. The engine is linear in the length of the key,
//! so a hostile URL cannot make it backtrack; look-around and back-references inside `from` are
//! therefore not supported.

use std::borrow::Cow;

use regex::Regex;

/// One rule: every match of `from` becomes `to`.
#[derive(Clone, Debug)]
pub struct Rule {
    name: String,
    from: Regex,
    to: String,
}

impl Rule {
    /// Compiles a rule. `to` is written as for Python's `re.sub`: `\1` and `\g<name>` stand for
    /// groups, `\\` for a backslash, and `$` has no special meaning.
    ///
    /// # Errors
    /// One line that says what is wrong with `from`, or which group `to` names in vain.
    pub fn new(name: &str, from: &str, to: &str) -> Result<Rule, String> {
        let from = Regex::new(from).map_err(|error| describe(&error))?;
        if to.contains('\0') {
            return Err("'to' holds a NUL character, which no key has".to_owned());
        }
        let to = replacement(to, &from)?;
        Ok(Rule { name: name.to_owned(), from, to })
    }

    /// The rule's key in the configuration file.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// All rules, in file order.
#[derive(Clone, Debug, Default)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// Changes a key in place; leaves it alone where no rule matches, which is the usual case.
    pub fn apply(&self, key: &mut String) {
        for rule in &self.0 {
            if let Cow::Owned(rewritten) = rule.from.replace_all(key, rule.to.as_str()) {
                *key = rewritten;
            }
        }
    }
}

/// The last line of a regex error says what is wrong; those before it draw the pattern.
fn describe(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Turns a replacement in Python's notation into that of the `regex` crate.
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
                let index: usize = group.parse().map_err(|_| "bad group number".to_owned())?;
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
                let known = from.capture_names().flatten().any(|known| known == name)
                    || name.parse().is_ok_and(|index: usize| index < from.captures_len());
                if !known {
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
        let rule = |(from, to): &(&str, &str)| Rule::new("r", from, to).unwrap();
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
    fn rules_run_in_order_each_on_the_result_of_the_last() {
        assert_eq!(applied(&[("a", "b"), ("b", "c")], "ab"), "cc");
    }

    #[test]
    fn groups_are_written_as_in_python_and_a_dollar_is_a_dollar() {
        assert_eq!(applied(&[(r"(\w+)/(\w+)", r"\2/\1$1")], "x/y"), "y/x$1");
        assert_eq!(applied(&[(r"(?P<run>\d+)", r"run-\g<run>\\")], "7"), "run-7\\");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Rule::new("r", "a", "b\0").unwrap_err().contains("a NUL character"));
        assert!(Rule::new("r", "(", "").unwrap_err().contains("unclosed group"));
        assert!(Rule::new("r", "(?=a)", "").unwrap_err().contains("look-around"));
        assert!(Rule::new("r", "a", r"\1").unwrap_err().contains("group \\1"));
        assert!(Rule::new("r", "a", r"\g<x>").unwrap_err().contains("g<x>"));
    }
}
