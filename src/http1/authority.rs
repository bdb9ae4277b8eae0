//! The authority of a request: `host[:port]`, as in `Host` (RFC 9110 §7.2) and in an absolute
//! target.
//!
//! Other characters could make two servers in a chain see different hosts. User information
//! (`name:password@`) is rejected too (RFC 9110 §4.2.4).

use std::net::Ipv6Addr;

/// Whether `value` is a host with an optional port (RFC 3986 §3.2.2, §3.2.3). An empty value is
/// valid: clients send it in `Host` if the target URI has no authority (RFC 9112 §3.2).
pub(crate) fn is_valid(value: &[u8]) -> bool {
    match value {
        b"" => true,
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            is_ip_literal(&rest[..end]) && is_port(&rest[end + 1..])
        }
        _ => {
            let end = memchr::memchr(b':', value).unwrap_or(value.len());
            end > 0 && is_registered_name(&value[..end]) && is_port(&value[end..])
        }
    }
}

/// An empty string, or a colon and any number of digits, even none.
fn is_port(value: &[u8]) -> bool {
    match value {
        b"" => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The part between brackets: an IPv6 address, or `IPvFuture` (`v1.…`).
fn is_ip_literal(value: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = value {
        let Some(dot) = memchr::memchr(b'.', future) else { return false };
        let (version, address) = (&future[..dot], &future[dot + 1..]);
        let is_part = |&byte: &u8| is_unreserved_or_sub_delim(byte) || byte == b':';
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(is_part);
    }
    str::from_utf8(value).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// A `reg-name`, which includes IPv4 addresses.
fn is_registered_name(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some(other) = rest.iter().position(|&byte| !is_unreserved_or_sub_delim(byte)) {
        match &rest[other..] {
            [b'%', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after;
            }
            _ => return false,
        }
    }
    true
}

fn is_unreserved_or_sub_delim(byte: u8) -> bool {
    UNRESERVED_OR_SUB_DELIM[usize::from(byte)]
}

/// A table, since the `Host` of every request is checked (RFC 3986 §2.2, §2.3).
const UNRESERVED_OR_SUB_DELIM: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
            || matches!(byte, b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port_are_valid() {
        for value in [
            "",
            "h",
            "h:",
            "h:80",
            "h.example.org:5000",
            "my_host",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:5000",
            "[::ffff:10.0.0.1]",
            "[v1.a:b]",
            "%66",
            "a+b",
            "xn--e1aybc:1",
        ] {
            assert!(is_valid(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn other_values_are_invalid() {
        for value in [
            "user@h",
            "u:p@h",
            "h/path",
            "h:9000:80",
            "h:x",
            "h:-1",
            ":80",
            ":",
            "h?q",
            "h#f",
            "h h",
            "h\\x",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[h]",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "[]",
            "h%",
            "h%4",
            "h%zz",
            "h\"",
            "<h>",
            "h, g x",
            "höst",
            "http://h",
        ] {
            assert!(!is_valid(value.as_bytes()), "{value}");
        }
    }
}
