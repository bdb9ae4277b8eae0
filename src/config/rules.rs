//! `rewrite_rules`, in file order.

use crate::config::file::{Setting, fields};
use crate::config::problem::{Fault, Problem, Spot, key_name, quoted};
use crate::config::reader::Reader;
use crate::config::schema::RULE_KEYS;
use crate::config::yaml::{Entry, Value};
use crate::limits;
use crate::policy::rewrite::{Rule, Rules, When};

/// All rules; the key with nothing behind it is no rules, as it was in 2014.
pub(super) fn read(reader: &mut Reader) -> Rules {
    let Some(Setting { spot, value, .. }) = reader.take("rewrite_rules").pop() else {
        return Rules::default();
    };
    match value.value {
        Value::Null => Rules::default(),
        Value::Map(entries) => {
            let problems = &mut reader.problems;
            let rules = entries.into_iter().filter_map(|entry| rule(&spot, entry, problems));
            let rules = Rules(rules.collect());
            let for_missing = rules.for_missing();
            if for_missing > limits::RULES_FOR_MISSING_KEYS {
                let what = format!("has {for_missing} rules with 'when: missing'");
                let remedy = format!("keep {} at most", limits::RULES_FOR_MISSING_KEYS);
                reader.report(&spot, Fault::new(what, remedy));
            }
            rules
        }
        Value::Text(_) | Value::List(_) => {
            let remedy = r"write one line per rule, such as 'bai: { from: \.bam\.bai$, to: .bai }'";
            reader.report(&spot, Fault::new("is not a map of names to rules", remedy));
            Rules::default()
        }
    }
}

fn rule(rules: &Spot, entry: Entry, problems: &mut Vec<Problem>) -> Option<Rule> {
    let spot = rules.child(entry.line, key_name(&entry.key));
    let Value::Map(entries) = entry.value.value else {
        let fault = Fault::new("is not a map", "give it 'from' and 'to'");
        problems.push(spot.problem(fault));
        return None;
    };
    let mut reader = Reader::new(fields(&spot, entries, RULE_KEYS, problems));
    for key in ["from", "to"] {
        if reader.spot(key).is_none() {
            let remedy = "write '' if it is to be empty";
            reader.report(&spot, Fault::new(format!("has no '{key}'"), remedy));
        }
    }
    let as_typed = |text: &str| Ok(text.to_owned());
    let (from, to) = (reader.value("from", as_typed), reader.value("to", as_typed));
    let when = reader.value_or("when", when, When::default());
    problems.append(&mut reader.problems);
    Rule::new(&entry.key, &from?, &to?, when)
        .map_err(|what| problems.push(spot.problem(Fault::new(what, ""))))
        .ok()
}

fn when(text: &str) -> Result<When, Fault> {
    match text {
        "always" => Ok(When::Always),
        "missing" => Ok(When::Missing),
        _ => {
            let what = format!("{} is not a condition for a rule", quoted(text));
            Err(Fault::new(what, "write 'always' or 'missing'"))
        }
    }
}
