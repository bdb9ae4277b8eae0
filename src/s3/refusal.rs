//! A response of S3 that is an error: its body, read as far as it tells something.

use crate::clock;
use crate::http1::chunked;
use crate::http1::conditional::http_date;
use crate::http1::framing::{BodyLength, decimal};
use crate::http1::range::ContentRange;
use crate::http1::response::Field;
use crate::limits;
use crate::s3::error::ServiceError;
use crate::s3::object::content_range;
use crate::s3::response::Response;

impl Response {
    /// Reads the answer as an error of S3, body included.
    pub async fn into_error(mut self) -> ServiceError {
        let (body, remaining) = self.read_error_body().await;
        let mut error = ServiceError::parse(self.head.status, &body, self.field(Field::RequestId));
        if let Some(region) = self.field(Field::BucketRegion) {
            error.region = Some(String::from_utf8_lossy(region).into_owned());
        }
        error.date = self.field(Field::Date).and_then(http_date);
        error.retry_after =
            self.field(Field::RetryAfter).and_then(|value| retry_after(value, error.date));
        if let Some(ContentRange::Unsatisfied { size }) =
            content_range(&self.head, self.head_bytes())
        {
            error.actual_object_size = Some(size);
        }
        self.finish(remaining).await;
        error
    }

    /// The body as far as it could be read, and how many bytes of it are still to come (`None`
    /// where that is not known, so that the connection must be closed).
    async fn read_error_body(&mut self) -> (Vec<u8>, Option<u64>) {
        if self.declares_no_body() {
            return (Vec::new(), Some(0));
        }
        let limit = self.body_start + limits::ERROR_BODY_BYTES;
        let mut decoded = Vec::new();
        loop {
            let came = &self.buf[self.body_start..];
            match self.head.body_length {
                BodyLength::Known(length) if came.len() as u64 >= length => {
                    let exact = came.len() as u64 == length;
                    return (came[..length as usize].to_vec(), exact.then_some(0));
                }
                BodyLength::Chunked => match chunked::decode(came, &mut decoded) {
                    Ok(chunked::Progress::Complete(length)) => {
                        let exact = came.len() == length;
                        return (decoded, exact.then_some(0));
                    }
                    Ok(chunked::Progress::Incomplete) => {}
                    Err(chunked::ChunkedError) => return (decoded, None),
                },
                BodyLength::Known(_) | BodyLength::UntilClose => {}
            }
            let room = limit.saturating_sub(self.buf.len()) as u64;
            if room == 0 || self.receive_more(room).await.is_err() {
                let body = match self.head.body_length {
                    BodyLength::Chunked => decoded,
                    _ => self.buf[self.body_start..].to_vec(),
                };
                return (body, None);
            }
        }
    }
}

/// The seconds of a `Retry-After`, which may also hold the time of their end (RFC 9110 §10.2.3) by
/// S3's clock.
fn retry_after(value: &[u8], s3_now: Option<u64>) -> Option<u64> {
    let until = |end: u64| end.saturating_sub(s3_now.unwrap_or_else(clock::unix_seconds));
    decimal(value).or_else(|| http_date(value).map(until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(b"120", None), Some(120));
        let noon = b"Tue, 24 Nov 2026 12:00:00 GMT";
        let now = http_date(noon).map(|noon| noon - 7);
        assert_eq!(retry_after(noon, now), Some(7));
        assert_eq!(retry_after(noon, now.map(|now| now + 60)), Some(0), "it has passed");
        assert_eq!(retry_after(b"Tue, 24 Nov 2015 12:00:00 GMT", None), Some(0));
        for nonsense in [&b""[..], b"-1", b"soon", b"1.5"] {
            assert_eq!(retry_after(nonsense, now), None);
        }
    }
}
