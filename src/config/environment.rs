//! Settings from environment variables: `S3PROXY_<KEY>`, and those that AWS's own tools read.

use std::collections::BTreeMap;

use crate::config::file::Setting;
use crate::config::problem::{Fault, Place, Problem, Spot, nearest};
use crate::config::schema::{self, Shape};
use crate::config::yaml::{Node, Value};

/// Longest name of an unknown variable that is repeated, in bytes.
const NAME_BYTES: usize = 64;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// The process's own environment. Bytes that are no UTF-8 become `U+FFFD`, which no setting
/// accepts where it matters.
pub fn of_process() -> Environment {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// The settings that `environment` holds. An empty variable counts as unset.
pub(super) fn read(environment: &Environment, problems: &mut Vec<Problem>) -> Vec<Setting> {
    report_unknown(environment, problems);
    let ignore_endpoints = ignores_configured_endpoints(environment);
    let mut settings = Vec::new();
    for key in schema::KEYS {
        let set = key.variables.iter().find_map(|&variable| {
            if ignore_endpoints && variable.starts_with("AWS_ENDPOINT_URL") {
                return None;
            }
            let value = environment.get(variable)?.trim();
            (!value.is_empty()).then_some((variable, value))
        });
        if let Some((variable, text)) = set {
            let spot = Spot::new(Place::Environment, variable);
            settings.push(Setting { key: key.name, spot, value: value(text, key.shape) });
        }
    }
    settings
}

/// Whether the endpoints that are configured for AWS's tools are not to count.
pub(super) fn ignores_configured_endpoints(environment: &Environment) -> bool {
    let value = environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

fn value(text: &str, shape: Shape) -> Node {
    let one = |text: &str| Node { line: 0, value: Value::Text(text.trim().to_owned()) };
    match shape {
        Shape::One | Shape::Map => one(text),
        Shape::Many => Node { line: 0, value: Value::List(text.split(',').map(one).collect()) },
    }
}

fn report_unknown(environment: &Environment, problems: &mut Vec<Problem>) {
    let known = || schema::KEYS.iter().flat_map(|key| key.variables.iter().copied());
    for (name, value) in environment {
        if !name.starts_with("S3PROXY_") || value.trim().is_empty() || is_from_kubernetes(name) {
            continue;
        }
        if known().any(|variable| variable == name) {
            continue;
        }
        // Without the prefix, which all share and which would make all similar.
        let nearest = nearest(&name["S3PROXY_".len()..], schema::names()).and_then(|found| {
            let key = schema::KEYS.iter().find(|key| key.name == found)?;
            key.variables.first()
        });
        let remedy = match nearest {
            Some(variable) => format!("did you mean {variable}?"),
            None => "config.example.yaml lists all keys".to_owned(),
        };
        let fault = Fault::new("sets nothing that is known", remedy);
        let shown = if name.len() <= NAME_BYTES { name } else { "S3PROXY_…" };
        problems.push(Spot::new(Place::Environment, shown).problem(fault));
    }
}

/// Kubernetes puts the address of a service called `s3proxy` into every pod beside it, ours
/// included, as `S3PROXY_SERVICE_HOST`, `S3PROXY_PORT`, `S3PROXY_PORT_5000_TCP_ADDR`, ….
fn is_from_kubernetes(name: &str) -> bool {
    name.starts_with("S3PROXY_SERVICE_")
        || name == "S3PROXY_PORT"
        || name.starts_with("S3PROXY_PORT_")
}
