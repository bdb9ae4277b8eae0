//! `rewrite_rules`, in file order.

use crate::config::file::{Setting, fields};
use crate::config::problem::{Fault, Problem, Spot, key_name};
use crate::config::reader::Reader;
use crate::config::schema::RULE_KEYS;
use crate::config::yaml::{Entry, Value};
use crate::rewrite::{Rule, Rules};

/// All rules; the key with nothing behind it is no rules, as it was in 2014.
pub(super) fn read(reader: &mut Reader) -> Rules {
    let Some(Setting { spot, value, .. }) = reader.take("rewrite_rules").pop() else {
        return Rules::default();
    };
    match value.value {
        Value::Null => Rules::default(),
        Value::Map(entries) => Rules(
            entries
                .into_iter()
                .filter_map(|entry| rule(&spot, entry, &mut reader.problems))
                .collect(),
        ),
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
    for &key in RULE_KEYS {
        if reader.spot(key).is_none() {
            let remedy = "write '' if it is to be empty";
            reader.report(&spot, Fault::new(format!("has no '{key}'"), remedy));
        }
    }
    let as_typed = |text: &str| Ok(text.to_owned());
    let (from, to) = (reader.value("from", as_typed), reader.value("to", as_typed));
    problems.append(&mut reader.problems);
    Rule::new(&entry.key, &from?, &to?)
        .map_err(|what| problems.push(spot.problem(Fault::new(what, ""))))
        .ok()
}
