//! Message framing: the end of a head and the length of a body (RFC 9112 §2.2, §6).

/// The end of a head in the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadEnd {
    /// The head has this many bytes, its empty line included.
    At(usize),
    /// The empty line has not arrived yet.
    Missing,
    /// A line ends with LF alone. RFC 9112 §2.2 allows recipients to accept it, but servers that
    /// disagree about line ends may disagree about the end of a message (request smuggling).
    BareLineFeed,
}

/// Searches `bytes` from the start for the empty line that ends a head.
pub fn find_head_end(bytes: &[u8]) -> HeadEnd {
    let mut line_start = 0;
    for line_feed in memchr::memchr_iter(b'\n', bytes) {
        if line_feed == 0 || bytes[line_feed - 1] != b'\r' {
            return HeadEnd::BareLineFeed;
        }
        if line_feed - 1 == line_start {
            return HeadEnd::At(line_feed + 1);
        }
        line_start = line_feed + 1;
    }
    HeadEnd::Missing
}

/// The length of a message's body, as declared in its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// `Content-Length` in bytes; 0 if there is no body.
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection is closed (responses only).
    UntilClose,
}

impl BodyLength {
    /// Whether a body of `length` bytes would match the declaration.
    pub fn allows(self, length: u64) -> bool {
        match self {
            BodyLength::Known(declared) => declared == length,
            BodyLength::Chunked | BodyLength::UntilClose => true,
        }
    }
}

/// The framing fields of a head are invalid (RFC 9112 §6.3, rules 3 to 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// More than one `Content-Length`, or one that is not a number.
    #[error("Content-Length is repeated or not a number")]
    ContentLength,
    /// A `Transfer-Encoding` other than `chunked`, or more than one.
    #[error("Transfer-Encoding other than chunked")]
    TransferEncoding,
}

/// Collects the framing fields of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FramingFields {
    content_length: Option<u64>,
    chunked: bool,
}

impl FramingFields {
    /// Reads a `Content-Length` field.
    ///
    /// # Errors
    /// [`FramingError::ContentLength`] if it is repeated or not a plain number. Repeated equal values are
    /// rejected too, as RFC 9112 §6.3 allows; no known client sends them.
    pub(crate) fn content_length(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.content_length.is_some() {
            return Err(FramingError::ContentLength);
        }
        self.content_length = Some(decimal(value).ok_or(FramingError::ContentLength)?);
        Ok(())
    }

    /// Reads a `Transfer-Encoding` field.
    ///
    /// # Errors
    /// [`FramingError::TransferEncoding`] for everything except a single `chunked`.
    pub(crate) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(FramingError::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// The declared length; `None` if there is no framing field.
    ///
    /// # Errors
    /// [`FramingError::LengthAndEncoding`] if both are present.
    pub(crate) fn body_length(self) -> Result<Option<BodyLength>, FramingError> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(FramingError::LengthAndEncoding),
            (Some(length), false) => Ok(Some(BodyLength::Known(length))),
            (None, true) => Ok(Some(BodyLength::Chunked)),
            (None, false) => Ok(None),
        }
    }
}

/// One or more ASCII digits that fit into 64 bits, without sign or white space.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a comma-separated list contains `token`, case-insensitively (`Connection: a, Close`).
pub(crate) fn list_has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        assert_eq!(find_head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"), HeadEnd::At(27));
        assert_eq!(find_head_end(b"GET / HTTP/1.1\r\nHost: a\r\n"), HeadEnd::Missing);
        assert_eq!(find_head_end(b""), HeadEnd::Missing);
    }

    #[test]
    fn a_bare_line_feed_is_detected_before_the_head_ends() {
        assert_eq!(find_head_end(b"GET / HTTP/1.1\n"), HeadEnd::BareLineFeed);
        assert_eq!(find_head_end(b"\n"), HeadEnd::BareLineFeed);
        assert_eq!(find_head_end(b"GET / HTTP/1.1\r\n\n"), HeadEnd::BareLineFeed);
    }

    #[test]
    fn lengths_are_plain_decimal_numbers() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", "1 ", "0x1", "18446744073709551616", "1,1"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn contradictory_framing_fields_are_rejected() {
        let mut twice = FramingFields::default();
        twice.content_length(b"5").unwrap();
        assert_eq!(twice.content_length(b"5"), Err(FramingError::ContentLength));

        let mut both = FramingFields::default();
        both.content_length(b"5").unwrap();
        both.transfer_encoding(b"Chunked").unwrap();
        assert_eq!(both.body_length(), Err(FramingError::LengthAndEncoding));

        let mut gzip = FramingFields::default();
        assert_eq!(gzip.transfer_encoding(b"gzip, chunked"), Err(FramingError::TransferEncoding));
    }
}
