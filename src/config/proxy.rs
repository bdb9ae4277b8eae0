//! `proxy`, and the usual variables: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, in upper
//! or lower case. Diagnostics never contain the URL of a proxy, which may include a password.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::diagnostic::{Diagnostic, Fault, Location, Source};
use crate::config::endpoint::host_and_port;
use crate::config::source::environment::Environment;
use crate::http1::target::percent_decode;
use crate::policy::route::Mount;
use crate::upstream::proxy::{Exempt, HttpProxy, Proxies};

/// Longest user name or password of a proxy, in bytes.
const CREDENTIAL_BYTES: usize = 1024;

/// The proxies, and the mistakes in variables, which are reported only if a mount would use that
/// proxy.
pub(super) struct ProxySettings {
    pub(super) proxies: Arc<Proxies>,
    mistakes: Vec<Mistake>,
}

struct Mistake {
    for_tls: bool,
    diagnostic: Diagnostic,
}

/// Reads the variables. The key `proxy`, if set, takes precedence over all but `NO_PROXY`.
pub(super) fn read(
    proxy: Option<Option<Arc<HttpProxy>>>,
    environment: &Environment,
) -> ProxySettings {
    let exempt = variable(environment, &["no_proxy", "NO_PROXY"]);
    let exempt = exempt.map(|(_, list)| Exempt::parse(list)).unwrap_or_default();
    let mut mistakes = Vec::new();
    let (https, http) = match proxy {
        Some(proxy) => (proxy.clone(), proxy),
        None => {
            let mut of = |for_tls, names: &[&'static str]| {
                let (name, text) = variable(environment, names)?;
                url(text)
                    .map_err(|fault| {
                        let location = Location::new(Source::Environment, name);
                        let diagnostic = location.diagnostic(fault);
                        mistakes.push(Mistake { for_tls, diagnostic });
                    })
                    .ok()
                    .map(Arc::new)
            };
            let https = of(true, &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
            // In a CGI program HTTP_PROXY is the `Proxy` field of a client's request (httpoxy).
            let is_cgi = environment.contains_key("REQUEST_METHOD");
            let names: &[&str] = match is_cgi {
                true => &["http_proxy", "all_proxy", "ALL_PROXY"],
                false => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
            };
            (https, of(false, names))
        }
    };
    ProxySettings { proxies: Arc::new(Proxies { https, http, exempt }), mistakes }
}

impl ProxySettings {
    /// Reports each mistake that affects one of these mounts, once.
    pub(super) fn report(self, mounts: &[Arc<Mount>], diagnostics: &mut Vec<Diagnostic>) {
        let exempt = &self.proxies.exempt;
        for Mistake { for_tls, diagnostic } in self.mistakes {
            let is_used = mounts.iter().any(|mount| {
                let origin = Arc::clone(&mount.bucket.location().origin);
                origin.tls == for_tls && !exempt.covers(&origin.host, origin.port)
            });
            if is_used && !diagnostics.contains(&diagnostic) {
                diagnostics.push(diagnostic);
            }
        }
    }
}

/// The first of these variables that is set and not empty.
fn variable<'e, 'n>(environment: &'e Environment, names: &[&'n str]) -> Option<(&'n str, &'e str)> {
    names.iter().find_map(|&name| {
        let value = environment.get(name)?.trim();
        (!value.is_empty()).then_some((name, value))
    })
}

/// The value of the key: a URL, or `off`.
pub(super) fn url_or_off(text: &str) -> Result<Option<Arc<HttpProxy>>, Fault> {
    match text {
        "off" | "false" => Ok(None),
        text => url(text).map(|proxy| Some(Arc::new(proxy))),
    }
}

/// Parses `http://[name:password@]host[:port]`. The scheme is optional, as for curl.
fn url(text: &str) -> Result<HttpProxy, Fault> {
    const HELP: &str = "write it as http://proxy.example.org:3128, with name:password@ before the \
                        host if it needs them; 'proxy: off' uses none";
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => {
            return Err(Fault::new("names a proxy over TLS, which is not supported", HELP));
        }
        scheme if scheme.starts_with("socks") => {
            return Err(Fault::new("names a SOCKS proxy, which is not supported", HELP));
        }
        _ => return Err(Fault::new("is not the URL of an HTTP proxy", HELP)),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user_info, authority) = match rest.rsplit_once('@') {
        Some((user_info, authority)) => (Some(user_info), authority),
        None => (None, rest),
    };
    let refused = || Fault::new("is not the URL of an HTTP proxy", HELP);
    let origin = host_and_port(authority, false).ok_or_else(refused)?;
    let authorization = user_info.map(|info| basic(info).ok_or_else(refused)).transpose()?;
    let url = match user_info {
        Some(user_info) => format!("http://{user_info}@{}", origin.host_and_port()),
        None => format!("http://{}", origin.host_and_port()),
    };
    Ok(HttpProxy { origin: Arc::new(origin), authorization, url })
}

/// `Basic …` (RFC 7617) for the percent-encoded `name:password` of a URL.
fn basic(user_info: &str) -> Option<String> {
    let (name, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let (mut user_pass, mut decoded) = (String::new(), String::new());
    percent_decode(name, CREDENTIAL_BYTES, &mut user_pass).ok()?;
    // A colon would separate name and password (RFC 7617 §2).
    if user_pass.contains(':') {
        return None;
    }
    percent_decode(password, CREDENTIAL_BYTES, &mut decoded).ok()?;
    user_pass.push(':');
    user_pass.push_str(&decoded);
    (!user_pass.chars().any(char::is_control))
        .then(|| format!("Basic {}", STANDARD.encode(user_pass)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Origin;

    fn said(text: &str) -> String {
        Location::new(Source::Flag, "").diagnostic(url(text).unwrap_err()).to_string()
    }

    #[test]
    fn only_the_host_of_a_proxy_is_required() {
        for (text, shown, authorization) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("http://proxy", "http://proxy", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("HTTP://[::1]:3128/", "http://[::1]:3128", None),
            ("http://user:pw@proxy:3128", "http://proxy:3128", Some("Basic dXNlcjpwdw==")),
            ("http://u%40d:p%3A%40%2F@proxy:1", "http://proxy:1", Some("Basic dUBkOnA6QC8=")),
            ("user@proxy:1", "http://proxy:1", Some("Basic dXNlcjo=")),
        ] {
            let proxy = url(text).unwrap();
            assert_eq!(
                (proxy.to_string().as_str(), proxy.authorization.as_deref()),
                (shown, authorization)
            );
        }
        assert!(matches!(url_or_off("off"), Ok(None)));
    }

    #[test]
    fn an_unsupported_proxy_is_rejected_and_not_shown() {
        for (text, words) in [
            ("socks5://u:hush@p:1080", "a SOCKS proxy, which is not supported"),
            ("SOCKS5H://p", "a SOCKS proxy"),
            ("https://u:hush@p", "over TLS, which is not supported"),
            ("ftp://hush", "is not the URL"),
            ("http://hush/path", "is not the URL"),
            ("http://u:hush%0a@p", "is not the URL"),
            ("http://u:hush%@p", "is not the URL"),
            ("http://u%3ahush@p", "is not the URL"),
            ("http://", "is not the URL"),
            ("http://p:hush", "is not the URL"),
        ] {
            let said = said(text);
            assert!(said.contains(words) && !said.contains("hush"), "{text}: {said}");
            assert!(said.contains("'proxy: off' uses none"), "{said}");
        }
    }

    #[test]
    fn lower_case_variables_take_precedence_and_empty_ones_are_ignored() {
        let read = |variables: &[(&str, &str)]| {
            let environment: Environment = variables
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let written = super::read(None, &environment);
            let port = |tls| {
                let origin = Origin { tls, host: "s3".to_owned(), port: 443 };
                written.proxies.of(&origin).map(|proxy| proxy.origin.port)
            };
            (port(true), port(false))
        };
        assert_eq!(read(&[]), (None, None));
        assert_eq!(read(&[("HTTPS_PROXY", "p:1"), ("HTTP_PROXY", "p:2")]), (Some(1), Some(2)));
        assert_eq!(read(&[("HTTPS_PROXY", "p:1"), ("https_proxy", "p:3")]), (Some(3), None));
        assert_eq!(read(&[("HTTPS_PROXY", "p:1"), ("https_proxy", " ")]), (Some(1), None));
        assert_eq!(read(&[("ALL_PROXY", "p:1"), ("http_proxy", "p:2")]), (Some(1), Some(2)));
        assert_eq!(read(&[("ALL_PROXY", "p:1"), ("NO_PROXY", ".x, s3")]), (None, None));
        assert_eq!(read(&[("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")]), (None, None));
        assert_eq!(read(&[("http_proxy", "p:1"), ("REQUEST_METHOD", "GET")]), (None, Some(1)));
    }
}
