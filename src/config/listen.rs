//! Addresses to listen on: `127.0.0.1:5000`, `localhost:5000`, `[::1]:5000`, `unix:/path`.
//!
//! A port without an address is an error: some expect it to mean all interfaces, others this
//! machine only, and s3proxy serves private data.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::diagnostic::{Fault, quoted};
use crate::config::key::Reading;
use crate::config::values::Kind;
use crate::sys::socket::ListenAddress;

/// Longest path of a Unix socket, in bytes: `sun_path` in unix(7), less its final NUL.
const UNIX_PATH_BYTES: usize = 107;

/// One address or several.
pub(super) struct Listen;

impl Kind<Vec<ListenAddress>> for Listen {
    fn read(&self, mut reading: Reading<'_>, into: &mut Vec<ListenAddress>) {
        let Some(addresses) = reading.list(address) else { return };
        if addresses.is_empty() {
            reading.report(Fault::new("is empty", "name an address, such as 127.0.0.1:5000"));
        }
        let any_port = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => address.port() == 0,
            ListenAddress::Unix(_) => false,
        };
        for (index, address) in addresses.iter().enumerate() {
            if !any_port(address) && addresses[..index].contains(address) {
                reading.report(Fault::new(format!("names {address} twice"), "remove one of them"));
            }
        }
        *into = addresses;
    }

    fn show(&self, value: &Vec<ListenAddress>) -> Option<String> {
        let shown = value.iter().map(|address| match address {
            ListenAddress::Tcp(address) => address.to_string(),
            ListenAddress::Unix(path) => format!("unix:{}", path.display()),
        });
        Some(shown.collect::<Vec<_>>().join(", "))
    }
}

/// One address to listen on.
fn address(text: &str) -> Result<ListenAddress, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ListenAddress::Tcp(address));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        return Ok(ListenAddress::Tcp(local));
    }
    Err(incomplete(text))
}

fn unix(path: &str) -> Result<ListenAddress, Fault> {
    if !path.starts_with('/') || path.chars().any(char::is_control) {
        let problem = format!("{} is not an absolute path", quoted(path));
        return Err(Fault::new(problem, "write it as 'unix:/run/s3proxy.sock'"));
    }
    if path.len() > UNIX_PATH_BYTES {
        let help = format!("a socket's path has at most {UNIX_PATH_BYTES} bytes");
        return Err(Fault::new(format!("{} is too long", quoted(path)), help));
    }
    Ok(ListenAddress::Unix(PathBuf::from(path)))
}

/// Accepts digits only; `u16::from_str` would accept a sign.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Explains an invalid address, and completes it if possible.
fn incomplete(text: &str) -> Fault {
    if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
        let problem = format!("{} has no address", quoted(text));
        let help = format!(
            "write '127.0.0.1:{port}' for this machine only, '0.0.0.0:{port}' for all networks"
        );
        return Fault::new(problem, help);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let problem = format!("{} has no port", quoted(text));
        return Fault::new(problem, format!("write '{}'", SocketAddr::new(ip, 5000)));
    }
    if text == "localhost" {
        return Fault::new("'localhost' has no port", "write 'localhost:5000'");
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Fault::new(
            format!("{} is a URL", quoted(text)),
            "write only the address and the port, such as 127.0.0.1:5000",
        );
    }
    Fault::new(
        format!("{} is not an address", quoted(text)),
        "write an IP address or 'localhost' and a port, such as 127.0.0.1:5000, or unix:/path",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Location, Source};

    fn say(text: &str) -> String {
        Location::new(Source::Flag, "").diagnostic(address(text).unwrap_err()).to_string()
    }

    #[test]
    fn addresses_are_ip_and_port_localhost_or_a_socket() {
        for (text, shown) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("0.0.0.0:0", "http://0.0.0.0:0"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("localhost:80", "http://127.0.0.1:80"),
            ("unix:/run/s3proxy.sock", "unix:/run/s3proxy.sock"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn the_help_for_an_incomplete_address_completes_it() {
        assert!(say("5000").ends_with(
            "write '127.0.0.1:5000' for this machine only, '0.0.0.0:5000' for all networks"
        ));
        assert!(say(":5000").starts_with("':5000' has no address; write '127.0.0.1:5000'"));
        assert_eq!(say("10.0.0.1"), "'10.0.0.1' has no port; write '10.0.0.1:5000'");
        assert_eq!(say("::1"), "'::1' has no port; write '[::1]:5000'");
        assert_eq!(say("[::1]"), "'[::1]' has no port; write '[::1]:5000'");
        assert!(say("localhost").ends_with("write 'localhost:5000'"));
        assert!(say("http://127.0.0.1:5000").contains("is a URL"));
        assert!(say("unix:run.sock").contains("absolute"));
        assert!(say(&format!("unix:/{}", "x".repeat(107))).contains("too long"));
        for wrong in ["", ":", "myhost:5000", "127.0.0.1:99999", "localhost:+80", "localhost:"] {
            assert!(say(wrong).contains("is not an address"), "{wrong}");
        }
    }
}
