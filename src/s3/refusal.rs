//! Reads an error response of S3.

use crate::clock;
use crate::http1::conditional::http_date;
use crate::http1::framing::decimal;
use crate::http1::range::ContentRange;
use crate::http1::response::Field;
use crate::limits;
use crate::s3::error::ServiceError;
use crate::s3::object::content_range;
use crate::s3::response::Response;

impl Response {
    /// Reads an error response, with as much of its body as can be received.
    pub(crate) async fn into_error(mut self) -> ServiceError {
        // An error document that is cut short still has its status.
        let (_, body) = self.read_all(limits::ERROR_BODY_BYTES).await;
        let head = self.head();
        let mut error = ServiceError::parse(head.status, &body, self.field(Field::RequestId));
        if let Some(region) = self.field(Field::BucketRegion) {
            error.region = Some(String::from_utf8_lossy(region).into_owned());
        }
        error.date = self.field(Field::Date).and_then(http_date);
        error.retry_after =
            self.field(Field::RetryAfter).and_then(|value| retry_after(value, error.date));
        if let Some(ContentRange::Unsatisfied { size }) = content_range(head, self.head_bytes()) {
            error.actual_object_size = Some(size);
        }
        self.recycle();
        error
    }
}

/// The seconds of a `Retry-After`, which may also be a date (RFC 9110 §10.2.3) by S3's clock.
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
