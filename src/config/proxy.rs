//! `proxy`, and the variables that every program reads for the same: `HTTPS_PROXY`, `HTTP_PROXY`,
//! `ALL_PROXY`, `NO_PROXY`, in small letters or in capitals. No message repeats a value: a proxy's
//! URL may hold a password.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::bucket::host_and_port;
use crate::config::environment::Environment;
use crate::config::problem::{Fault, Place, Problem, Spot};
use crate::config::reader::Reader;
use crate::http1::target::percent_decode;
use crate::policy::route::Mount;
use crate::upstream::proxy::{Exempt, HttpProxy, Proxies};

/// Longest name or password, in bytes.
const CREDENTIAL_BYTES: usize = 1024;

/// The proxies, and mistakes in variables, which count only where somebody would be asked through
/// what they name.
pub(super) struct Written {
    pub(super) proxies: Arc<Proxies>,
    mistakes: Vec<Mistake>,
}

struct Mistake {
    for_tls: bool,
    problem: Problem,
}

/// Reads both. The key wins over the variables, but for `NO_PROXY`, which belongs to no proxy.
pub(super) fn read(reader: &mut Reader, environment: &Environment) -> Written {
    let exempt = variable(environment, &["no_proxy", "NO_PROXY"]);
    let exempt = exempt.map(|(_, list)| Exempt::parse(list)).unwrap_or_default();
    let mut mistakes = Vec::new();
    let is_set = reader.spot("proxy").is_some();
    let (https, http) = match reader.value("proxy", setting) {
        Some(proxy) => (proxy.clone(), proxy),
        None if is_set => (None, None),
        None => {
            let mut of = |for_tls, names: &[&'static str]| {
                let (name, text) = variable(environment, names)?;
                url(text)
                    .map_err(|fault| {
                        let problem = Spot::new(Place::Environment, name).problem(fault);
                        mistakes.push(Mistake { for_tls, problem });
                    })
                    .ok()
                    .map(Arc::new)
            };
            let https = of(true, &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]);
            // A web server hands a request's field `Proxy` to its programs under that name.
            let is_cgi = environment.contains_key("REQUEST_METHOD");
            let names: &[&str] = match is_cgi {
                true => &["http_proxy", "all_proxy", "ALL_PROXY"],
                false => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
            };
            (https, of(false, names))
        }
    };
    Written { proxies: Arc::new(Proxies { https, http, exempt }), mistakes }
}

impl Written {
    /// Reports the mistakes that matter to these mounts, each once.
    pub(super) fn report(self, mounts: &[Arc<Mount>], problems: &mut Vec<Problem>) {
        let exempt = &self.proxies.exempt;
        for Mistake { for_tls, problem } in self.mistakes {
            let is_used = mounts.iter().any(|mount| {
                let origin = Arc::clone(&mount.bucket.location().origin);
                origin.tls == for_tls && !exempt.covers(&origin.host, origin.port)
            });
            if is_used && !problems.contains(&problem) {
                problems.push(problem);
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
fn setting(text: &str) -> Result<Option<Arc<HttpProxy>>, Fault> {
    match text {
        "off" | "false" => Ok(None),
        text => url(text).map(|proxy| Some(Arc::new(proxy))),
    }
}

/// `http://[name:password@]host[:port]`, or without the scheme, as curl takes it too.
fn url(text: &str) -> Result<HttpProxy, Fault> {
    const REMEDY: &str = "write it as http://proxy.example.org:3128, with name:password@ before the \
                          host where it wants them; 'proxy: off' uses none";
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => {
            return Err(Fault::new(
                "names a proxy that is spoken to over TLS, which is not supported",
                REMEDY,
            ));
        }
        scheme if scheme.starts_with("socks") => {
            return Err(Fault::new("names a SOCKS proxy, which is not supported", REMEDY));
        }
        _ => return Err(Fault::new("is not the URL of an HTTP proxy", REMEDY)),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user_info, authority) = match rest.rsplit_once('@') {
        Some((user_info, authority)) => (Some(user_info), authority),
        None => (None, rest),
    };
    let refused = || Fault::new("is not the URL of an HTTP proxy", REMEDY);
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
    // It would end the name.
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
        Spot::new(Place::Flag, "").problem(url(text).unwrap_err()).to_string()
    }

    #[test]
    fn a_proxy_is_a_host_with_or_without_the_rest() {
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
        assert!(matches!(setting("off"), Ok(None)));
    }

    #[test]
    fn what_is_no_proxy_for_us_is_refused_and_not_repeated() {
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
    fn variables_count_in_small_letters_first_and_empty_ones_do_not() {
        let read = |variables: &[(&str, &str)]| {
            let environment: Environment = variables
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let written = super::read(&mut Reader::new(Vec::new()), &environment);
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
