//! HTTP proxies for requests to the services that issue credentials.

use aws_smithy_http_client::proxy::ProxyConfig;

use crate::upstream::proxy::{HttpProxy, Proxies};

/// Addresses of the instance and container metadata services (Amazon EC2 User Guide, "Use the
/// Instance Metadata Service"; Amazon ECS and EKS User Guides). Through a
/// proxy they would return the credentials of the proxy's machine instead of this one's.
const METADATA: &str = "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23";

/// Variables that override these addresses.
const METADATA_VARIABLES: [&str; 2] =
    ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

/// The AWS libraries take one proxy per client. STS and SSO use HTTPS, so the https proxy wins if
/// the two differ.
pub(super) fn config(proxies: &Proxies) -> ProxyConfig {
    let url = |proxy: &HttpProxy| proxy.url.clone();
    let configured = match (&proxies.https, &proxies.http) {
        (Some(https), Some(http)) if https == http => ProxyConfig::all(url(https)),
        (Some(https), _) => ProxyConfig::https(url(https)),
        (None, Some(http)) => ProxyConfig::http(url(http)),
        (None, None) => return ProxyConfig::disabled(),
    };
    let mut exempt = format!("{},{METADATA}", proxies.exempt.text());
    for variable in METADATA_VARIABLES {
        let url = std::env::var(variable).ok();
        let authority = url.as_deref().and_then(|url| url.split('/').nth(2));
        if let Some(host) = authority.and_then(|authority| host(authority)) {
            exempt.push(',');
            exempt.push_str(host);
        }
    }
    // Invalid URLs were rejected when the configuration was read.
    configured.map_or_else(|_| ProxyConfig::disabled(), |proxies| proxies.no_proxy(exempt))
}

/// The host of `host`, `host:port`, `[v6]` and `[v6]:port`.
fn host(authority: &str) -> Option<&str> {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    }
}
