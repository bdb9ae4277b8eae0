//! Settings in environment variables: `S3PROXY_<KEY>`, and those of AWS's tools.

use std::collections::BTreeMap;

use crate::config::diagnostic::{Diagnostic, Fault, Location, Source, nearest};
use crate::config::settings;
use crate::config::source::Written;
use crate::config::source::yaml::Node;

/// Longest name of an unknown variable that is shown, in bytes.
const NAME_BYTES: usize = 64;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// The environment of this process. Bytes that are not UTF-8 become `U+FFFD`.
pub(crate) fn of_process() -> Environment {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// The settings in `environment`. An empty variable counts as unset.
pub(in crate::config) fn read(
    environment: &Environment,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Written> {
    report_unknown(environment, diagnostics);
    let ignore_endpoints = ignores_configured_endpoints(environment);
    let mut settings = Vec::new();
    for key in settings::top_level() {
        let set = key.variables().into_iter().find_map(|variable| {
            if ignore_endpoints && variable.starts_with("AWS_ENDPOINT_URL") {
                return None;
            }
            let value = environment.get(&variable)?.trim();
            (!value.is_empty()).then_some((variable, value))
        });
        if let Some((variable, text)) = set {
            let location = Location::new(Source::Environment, variable);
            settings.push(Written { key: key.name, location, value: Node::text(text) });
        }
    }
    settings
}

/// Whether endpoints from AWS's variables and profiles must be ignored.
pub(in crate::config) fn ignores_configured_endpoints(environment: &Environment) -> bool {
    let value = environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

fn report_unknown(environment: &Environment, diagnostics: &mut Vec<Diagnostic>) {
    let keys: Vec<(&str, Vec<String>)> =
        settings::top_level().map(|key| (key.name, key.variables())).collect();
    for (name, value) in environment {
        if !name.starts_with("S3PROXY_") || value.trim().is_empty() || is_from_kubernetes(name) {
            continue;
        }
        if keys.iter().any(|(_, variables)| variables.contains(name)) {
            continue;
        }
        // Compared without the prefix, which would make all names similar.
        let nearest = nearest(&name["S3PROXY_".len()..], keys.iter().map(|&(key, _)| key));
        let nearest = keys.iter().find(|&&(key, _)| Some(key) == nearest);
        let help = match nearest.and_then(|(_, variables)| variables.first()) {
            Some(variable) => format!("did you mean {variable}?"),
            None => "config.example.yaml lists all keys".to_owned(),
        };
        let shown = if name.len() <= NAME_BYTES { name } else { "S3PROXY_…" };
        let location = Location::new(Source::Environment, shown);
        diagnostics.push(location.diagnostic(Fault::new("unknown variable", help)));
    }
}

/// Kubernetes sets the address of a service called `s3proxy` in every pod of its namespace, ours
/// included: `S3PROXY_SERVICE_HOST`, `S3PROXY_PORT`, `S3PROXY_PORT_5000_TCP_ADDR`, ….
fn is_from_kubernetes(name: &str) -> bool {
    name.starts_with("S3PROXY_SERVICE_")
        || name == "S3PROXY_PORT"
        || name.starts_with("S3PROXY_PORT_")
}
