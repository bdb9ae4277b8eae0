//! Addresses to listen on: `127.0.0.1:5000`, `localhost:5000`, `[::1]:5000`, `unix:/path`.
//!
//! A port without an address is refused rather than guessed at: it would mean "every interface"
//! to some and "this machine only" to others, and the proxy hands out private data.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::problem::{Fault, quoted};
use crate::sys::socket::ListenAddress;

/// Longest path of a Unix socket, in bytes: `sun_path` in unix(7), less its final NUL.
const UNIX_PATH_BYTES: usize = 107;

/// Where the 2014 application listened too.
pub(super) const DEFAULT: ListenAddress =
    ListenAddress::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000));

/// One address to listen on.
pub(super) fn address(text: &str) -> Result<ListenAddress, Fault> {
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
    Err(explain(text))
}

fn unix(path: &str) -> Result<ListenAddress, Fault> {
    if !path.starts_with('/') || path.chars().any(char::is_control) {
        let what = format!("{} is not an absolute path", quoted(path));
        return Err(Fault::new(what, "write it as 'unix:/run/s3proxy.sock'"));
    }
    if path.len() > UNIX_PATH_BYTES {
        let remedy = format!("a socket's path has at most {UNIX_PATH_BYTES} bytes");
        return Err(Fault::new(format!("{} is too long", quoted(path)), remedy));
    }
    Ok(ListenAddress::Unix(PathBuf::from(path)))
}

/// Digits that are a port; `SocketAddr` would take no sign either.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Says what is missing from an address, for each way to leave something out.
fn explain(text: &str) -> Fault {
    if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
        let what = format!("{} has no address", quoted(text));
        let remedy = format!(
            "write '127.0.0.1:{port}' for this machine only, '0.0.0.0:{port}' for all networks"
        );
        return Fault::new(what, remedy);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let what = format!("{} has no port", quoted(text));
        return Fault::new(what, format!("write '{}'", SocketAddr::new(ip, 5000)));
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
    use crate::config::problem::{Place, Spot};

    fn say(text: &str) -> String {
        Spot::new(Place::Flag, "").problem(address(text).unwrap_err()).to_string()
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
    fn a_half_written_address_is_answered_with_the_whole_one() {
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
