//! The chunked transfer coding (RFC 9112 §7.1), decoded. S3 uses it for error bodies only.

/// What a decoder made of the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Incomplete,
    /// The body ended; this many of the given bytes belong to it.
    Complete(usize),
}

/// A body that is not in the chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not in the chunked coding")]
pub struct ChunkedError;

/// Decodes the whole of `encoded` into `out`, which is cleared first. Meant to be called again
/// with a longer `encoded` as bytes arrive: bodies are small, so starting over is simpler than
/// keeping a state. Trailers are read over.
///
/// # Errors
/// [`ChunkedError`] where a chunk has no valid size or does not end as it should.
pub fn decode(encoded: &[u8], out: &mut Vec<u8>) -> Result<Progress, ChunkedError> {
    out.clear();
    let mut at = 0;
    loop {
        let Some(line) = line(encoded, at)? else { return Ok(Progress::Incomplete) };
        let size = chunk_size(line)?;
        at += line.len() + 2;
        if size == 0 {
            return trailers(encoded, at);
        }
        let Some(data) = encoded.get(at..at + size) else { return Ok(Progress::Incomplete) };
        out.extend_from_slice(data);
        at += size;
        match encoded.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Err(ChunkedError),
            None => return Ok(Progress::Incomplete),
        }
    }
}

fn trailers(encoded: &[u8], mut at: usize) -> Result<Progress, ChunkedError> {
    loop {
        let Some(line) = line(encoded, at)? else { return Ok(Progress::Incomplete) };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Progress::Complete(at));
        }
    }
}

/// The line that starts at `at`, without its CRLF.
fn line(encoded: &[u8], at: usize) -> Result<Option<&[u8]>, ChunkedError> {
    let rest = &encoded[at..];
    match memchr::memchr(b'\n', rest) {
        Some(end) if end > 0 && rest[end - 1] == b'\r' => Ok(Some(&rest[..end - 1])),
        Some(_) => Err(ChunkedError),
        None => Ok(None),
    }
}

/// The size of a chunk, in bytes; an extension after `;` is read over. At most 7 digits: nothing
/// that is decoded here is near 256 MiB, and sums cannot overflow.
fn chunk_size(line: &[u8]) -> Result<usize, ChunkedError> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 7 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(ChunkedError);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| ChunkedError)?;
    usize::from_str_radix(digits, 16).map_err(|_| ChunkedError)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\nTrailer: x\r\n\r\nnext";

    #[test]
    fn chunks_are_joined_and_trailers_read_over() {
        let mut out = Vec::new();
        assert_eq!(decode(BODY, &mut out), Ok(Progress::Complete(BODY.len() - 4)));
        assert_eq!(out, b"Wikipedia");
    }

    #[test]
    fn every_shorter_prefix_is_incomplete() {
        let mut out = Vec::new();
        for end in 0..BODY.len() - 4 {
            assert_eq!(decode(&BODY[..end], &mut out), Ok(Progress::Incomplete), "{end}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut out = Vec::new();
        for bad in [&b"x\r\n"[..], b"\r\n", b"4\nWiki", b"4\r\nWikiXX", b"-1\r\n", b"fffffffff\r\n"]
        {
            assert_eq!(decode(bad, &mut out), Err(ChunkedError));
        }
    }
}
