//! HTTP proxies, and which origins are reached through them.
//!
//! An https origin is reached by CONNECT, so that TLS is end to end. Requests to an http origin are
//! sent in absolute-form (RFC 9112 §3.2.2), as every client does, since most proxies allow CONNECT
//! to HTTPS ports only. In both cases the proxy resolves the origin's name.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::upstream::Origin;

/// A proxy that is reached over plain HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    /// The proxy's host and port.
    pub origin: Arc<Origin>,
    /// The value of `Proxy-Authorization`, if its URL has credentials. A secret.
    pub authorization: Option<String>,
    /// As configured, credentials included. A secret.
    pub url: String,
}

/// `http://proxy:3128`, without credentials.
impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpProxy").field(&self.origin).finish_non_exhaustive()
    }
}

/// The proxies for both schemes, and the hosts reached without them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For https origins.
    pub https: Option<Arc<HttpProxy>>,
    /// For http origins.
    pub http: Option<Arc<HttpProxy>>,
    /// Hosts reached directly.
    pub exempt: Exempt,
}

impl Proxies {
    /// The proxy through which an origin is reached.
    pub fn of(&self, origin: &Origin) -> Option<&Arc<HttpProxy>> {
        let proxy = if origin.tls { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.exempt.covers(&origin.host, origin.port))
    }
}

/// An origin and the proxy in front of it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The server that requests are for.
    pub origin: Arc<Origin>,
    /// `None` if the origin is reached directly.
    pub via: Option<Arc<HttpProxy>>,
}

/// `https://s3.example.org through the proxy http://proxy:3128`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)?;
        match &self.via {
            Some(proxy) => write!(f, " through the proxy {proxy}"),
            None => Ok(()),
        }
    }
}

/// Hosts reached directly: the value of `NO_PROXY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exempt {
    text: String,
    rules: Vec<Rule>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    host: Host,
    /// `None` for any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// A name, and all names below it.
    Name(String),
    /// All addresses with this prefix of so many bits.
    Network(IpAddr, u32),
}

impl Exempt {
    /// Parses a list as curl does: separated by commas or spaces; `*` is all hosts; a name includes
    /// its subdomains, with or without a leading dot; addresses and networks (`10.0.0.0/8`) match
    /// hosts given by address. As in Go, an entry may end with a port. Other entries are ignored.
    pub fn parse(text: &str) -> Exempt {
        let entries = text.split([',', ' ', '\t']).map(str::trim).filter(|entry| !entry.is_empty());
        Exempt { text: text.to_owned(), rules: entries.filter_map(rule).collect() }
    }

    /// The list as configured.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a host is reached directly.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        self.rules.iter().any(|rule| {
            let is_host = match &rule.host {
                Host::Any => true,
                Host::Name(name) => {
                    let before = host.strip_suffix(name.as_str());
                    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
                }
                Host::Network(network, bits) => {
                    address.is_some_and(|address| is_within(address, *network, *bits))
                }
            };
            is_host && rule.port.is_none_or(|only| only == port)
        })
    }
}

fn rule(entry: &str) -> Option<Rule> {
    if entry == "*" {
        return Some(Rule { host: Host::Any, port: None });
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let network = address(network)?;
        let bits = bits.parse().ok().filter(|&bits| bits <= width(network))?;
        return Some(Rule { host: Host::Network(network, bits), port: None });
    }
    if let Some(only) = address(entry) {
        return Some(Rule { host: Host::Network(only, width(only)), port: None });
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if let Some(only) = address(host) {
        return Some(Rule { host: Host::Network(only, width(only)), port });
    }
    let name = host.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
    (!name.is_empty()).then_some(Rule { host: Host::Name(name), port })
}

/// An address, of IPv6 with brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && (number(address) ^ number(network)) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_exempt_hosts_is_parsed_as_curl_does() {
        for (list, host, port, expected) in [
            ("*", "minio", 9000, true),
            ("example.org", "example.org", 443, true),
            ("example.org", "s3.Example.ORG.", 443, true),
            (".example.org", "example.org", 443, true),
            (".example.org", "s3.example.org", 443, true),
            ("*.example.org", "s3.example.org", 443, true),
            ("example.org", "notexample.org", 443, false),
            ("a, example.org b", "b", 443, true),
            ("minio:9000", "minio", 9000, true),
            ("minio:9000", "minio", 9001, false),
            ("10.0.0.1", "10.0.0.1", 80, true),
            ("10.0.0.0/8", "10.200.0.1", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("10.0.0.0/33", "10.0.0.1", 80, false),
            ("0.0.0.0/0", "11.0.0.1", 80, true),
            ("0.0.0.0/0", "::1", 80, false),
            ("127.0.0.1:80", "127.0.0.1", 80, true),
            ("127.0.0.1:80", "127.0.0.1", 81, false),
            ("[::1]", "::1", 80, true),
            ("::1", "::1", 80, true),
            ("[::1]:80", "::1", 81, false),
            ("fd00::/8", "fd12::1", 80, true),
            ("", "minio", 80, false),
            (" , .", "minio", 80, false),
        ] {
            assert_eq!(Exempt::parse(list).covers(host, port), expected, "{list:?} {host}:{port}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_no_secret_is_shown() {
        let proxy = |port| {
            let origin = Arc::new(Origin { tls: false, host: "p".to_owned(), port });
            let authorization = Some("Basic hush".to_owned());
            Arc::new(HttpProxy { origin, authorization, url: "http://u:hush@p".to_owned() })
        };
        let exempt = Exempt::parse("minio");
        let proxies = Proxies { https: Some(proxy(1)), http: Some(proxy(2)), exempt };
        let port = |tls: bool, host: &str| {
            let origin = Origin { tls, host: host.to_owned(), port: 9000 };
            proxies.of(&origin).map(|proxy| proxy.origin.port)
        };
        assert_eq!(
            (port(true, "s3"), port(false, "s3"), port(true, "minio")),
            (Some(1), Some(2), None)
        );
        assert!(!format!("{proxies:?} {}", proxy(1)).contains("hush"));
    }
}
