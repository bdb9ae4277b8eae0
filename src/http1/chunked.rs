//! Decodes the chunked transfer coding (RFC 9112 §7.1) of S3's responses.

use crate::limits;

/// The chunked coding of a body is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked coding of the body is invalid")]
pub struct ChunkedError;

/// Decodes a body as it arrives, in constant memory.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions and trailers so far.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a chunk's size, after this many digits.
    Size {
        digits: u8,
        size: u64,
    },
    /// After a chunk's size, in extensions or spaces, which are ignored.
    Extension {
        size: u64,
    },
    /// After the CR of a size line.
    SizeEnd {
        size: u64,
    },
    /// In a chunk's data, of which this many bytes are missing.
    Data {
        missing: u64,
    },
    /// After the last byte of a chunk's data.
    DataEnd,
    /// After the CR that follows a chunk's data.
    DataLineEnd,
    /// In a line of the trailer section, after this many bytes.
    Trailer {
        length: usize,
    },
    /// After the CR of a line of the trailer section. The last line is empty.
    TrailerEnd {
        is_last: bool,
    },
    Done,
}

impl Default for State {
    fn default() -> State {
        State::Size { digits: 0, size: 0 }
    }
}

impl Decoder {
    /// Decodes the next bytes of a body in place, and returns the number of decoded bytes, which
    /// are then at the start of `bytes`. Bytes after the end of the body are an error: requests are
    /// not pipelined, so they cannot belong to another response.
    ///
    /// # Errors
    /// [`ChunkedError`]. Bytes decoded before the error are discarded: a body with invalid framing cannot
    /// be trusted.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, ChunkedError> {
        let (mut at, mut decoded) = (0, 0);
        while at < bytes.len() {
            if let State::Data { missing } = self.state {
                let count = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len() - at);
                bytes.copy_within(at..at + count, decoded);
                (at, decoded) = (at + count, decoded + count);
                let missing = missing - count as u64;
                self.state = if missing == 0 { State::DataEnd } else { State::Data { missing } };
                continue;
            }
            self.state = self.after(bytes[at])?;
            at += 1;
        }
        Ok(decoded)
    }

    /// Whether the body has ended, trailers included.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The state after a byte outside of chunk data.
    fn after(&mut self, byte: u8) -> Result<State, ChunkedError> {
        Ok(match (self.state, byte) {
            // Fifteen digits are enough for any object, and cannot overflow.
            (State::Size { digits, size }, byte) if byte.is_ascii_hexdigit() && digits < 15 => {
                let digit = (byte as char).to_digit(16).ok_or(ChunkedError)?;
                State::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (State::Size { digits: 1.., size }, b'\r') => State::SizeEnd { size },
            (State::Size { digits: 1.., size }, b';' | b' ' | b'\t') => State::Extension { size },
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { size }, byte) if byte != b'\n' => {
                self.count_overhead()?;
                State::Extension { size }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailer { length: 0 },
            (State::SizeEnd { size }, b'\n') => State::Data { missing: size },
            (State::DataEnd, b'\r') => State::DataLineEnd,
            (State::DataLineEnd, b'\n') => State::default(),
            (State::Trailer { length }, b'\r') => State::TrailerEnd { is_last: length == 0 },
            (State::Trailer { length }, byte) if byte != b'\n' => {
                self.count_overhead()?;
                State::Trailer { length: length + 1 }
            }
            (State::TrailerEnd { is_last: true }, b'\n') => State::Done,
            (State::TrailerEnd { is_last: false }, b'\n') => State::Trailer { length: 0 },
            _ => return Err(ChunkedError),
        })
    }

    fn count_overhead(&mut self) -> Result<(), ChunkedError> {
        self.overhead += 1;
        if self.overhead > limits::CHUNK_OVERHEAD_BYTES { Err(ChunkedError) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `encoded` in pieces of `size` bytes.
    fn stream(encoded: &[u8], size: usize) -> Result<(Vec<u8>, bool), ChunkedError> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for piece in encoded.chunks(size) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece)?;
            out.extend_from_slice(&piece[..decoded]);
        }
        Ok((out, decoder.is_done()))
    }

    #[test]
    fn a_body_is_decoded_however_it_is_split() {
        let body = &BODY[..BODY.len() - 4];
        for size in 1..=body.len() {
            assert_eq!(stream(body, size), Ok((b"Wikipedia".to_vec(), true)), "{size}");
        }
        for end in 0..body.len() {
            assert!(matches!(stream(&body[..end], 3), Ok((_, false))), "{end}");
        }
        assert_eq!(stream(BODY, 7), Err(ChunkedError), "bytes after the end of the body");
        assert_eq!(stream(b"0\r\n\r\n", 2), Ok((Vec::new(), true)));
        assert_eq!(stream(b"00A \r\n0123456789\r\n0;x\r\n\r\n", 5).map(|got| got.0.len()), Ok(10));
    }

    #[test]
    fn invalid_chunked_coding_is_rejected() {
        let long = [&b"1;"[..], &b"x".repeat(20_000), b"\r\na\r\n0\r\n\r\n"].concat();
        let trailers = [&b"0\r\n"[..], &b"A: b\r\n".repeat(10_000), b"\r\n"].concat();
        for bad in [
            &b"x\r\n"[..],
            b"\r\n",
            b"4\nWiki",
            b"4\r\nWikiXX",
            b"-1\r\n",
            b"4\rWiki",
            b"1000000000000000\r\n",
            b"4;a\nWiki",
            b"0\r\nA\n\r\n",
            &long,
            &trailers,
        ] {
            assert_eq!(stream(bad, 4096), Err(ChunkedError), "{:?}", &bad[..bad.len().min(20)]);
        }
    }

    const BODY: &[u8] = b"4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\nTrailer: x\r\n\r\nnext";
}
