//! `rewrite_rules`, in file order.

use crate::config::diagnostic::{Diagnostic, Fault, Location, key_name};
use crate::config::key::{Reading, read_map};
use crate::config::settings::RULE;
use crate::config::source::yaml::{Entry, Value};
use crate::config::values::Kind;
use crate::limits;
use crate::policy::rewrite::{Rule, Rules, When};

/// A map of names to rules. Without a value there are no rules, as in the 2014 application.
pub(super) struct RewriteRules;

impl Kind<Rules> for RewriteRules {
    fn read(&self, mut reading: Reading<'_>, into: &mut Rules) {
        let location = &reading.written.location;
        *into = match &reading.written.value.value {
            Value::Null => Rules::default(),
            Value::Map(entries) => {
                let rules = entries.iter().filter_map(|e| rule(location, e, reading.diagnostics));
                Rules(rules.collect())
            }
            Value::Text(_) | Value::List(_) => {
                let help =
                    r"write one line per rule, such as 'bai: { from: \.bam\.bai$, to: .bai }'";
                return reading.report(Fault::new("is not a map of names to rules", help));
            }
        };
        let for_missing = into.for_missing();
        if for_missing > limits::RULES_FOR_MISSING_KEYS {
            let problem = format!("has {for_missing} rules with 'when: missing'");
            let help = format!("keep {} at most", limits::RULES_FOR_MISSING_KEYS);
            reading.report(Fault::new(problem, help));
        }
    }

    fn show(&self, _: &Rules) -> Option<String> {
        None
    }
}

/// A rule as written.
#[derive(Default)]
pub(super) struct RuleText {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) when: When,
}

fn rule(rules: &Location, entry: &Entry, diagnostics: &mut Vec<Diagnostic>) -> Option<Rule> {
    let location = rules.child(entry.line, key_name(&entry.key));
    let Value::Map(entries) = &entry.value.value else {
        let fault = Fault::new("is not a map", "give it 'from' and 'to'");
        diagnostics.push(location.diagnostic(fault));
        return None;
    };
    let (rule, marks) = read_map(RULE, &location, entries, diagnostics);
    for key in ["from", "to"] {
        if !marks.is_set(key) {
            let fault = Fault::new(format!("has no '{key}'"), "write '' if it is to be empty");
            diagnostics.push(location.diagnostic(fault));
        }
    }
    let RuleText { from, to, when } = rule;
    Rule::new(&entry.key, &from?, &to?, when)
        .map_err(|problem| diagnostics.push(location.diagnostic(Fault::new(problem, ""))))
        .ok()
}
