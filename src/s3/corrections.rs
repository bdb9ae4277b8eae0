//! Corrections after which a rejected request may succeed: the bucket's region, S3's clock, newer
//! credentials.
//!
//! Each is learned for all later requests, and retries one request a bounded number of times.

use crate::clock;
use crate::s3::client::{ClientError, Reply, Target};
use crate::s3::clock::CLOCK_NEWS_S;
use crate::s3::credentials::handle::Need;
use crate::s3::error::{Kind, ServiceError};
use crate::s3::request::Signed;

/// Retries of one request with another signing time: S3 may report two, and this machine has its
/// own.
const TIMES: u8 = 3;

/// The corrections made for one request so far.
#[derive(Default)]
pub(super) struct Corrections {
    region: bool,
    times: u8,
    credentials: bool,
}

impl Corrections {
    /// Whether a correction may help after this outcome.
    pub(super) fn may_help(&self, outcome: &Result<Reply, ClientError>) -> bool {
        match outcome {
            Ok(Reply::Object(_) | Reply::NotModified(_)) => false,
            Ok(Reply::Refused(error)) => match error.kind() {
                Kind::WrongEndpoint => !self.region,
                Kind::Clock => self.times < TIMES,
                Kind::Credentials => !self.credentials,
                _ => false,
            },
            Err(error) => matches!(error, ClientError::Credentials(_)) && !self.credentials,
        }
    }

    /// Learns what was wrong; `true` if a retry may succeed now.
    pub(super) async fn make(
        &mut self,
        target: &Target,
        outcome: &Result<Reply, ClientError>,
        signed: Signed,
    ) -> bool {
        match outcome {
            Ok(Reply::Refused(error)) => match error.kind() {
                Kind::WrongEndpoint => {
                    self.region = true;
                    target.learn_region(error)
                }
                Kind::Clock => {
                    self.times += 1;
                    target.learn_time(error, signed)
                }
                _ => {
                    self.credentials = true;
                    target.learn_end(error);
                    target.has_newer_credentials(error, signed).await
                }
            },
            _ => {
                self.credentials = true;
                target.has_valid_credentials().await
            }
        }
    }
}

impl Target {
    fn learn_region(&self, error: &ServiceError) -> bool {
        let Some(region) = &error.region else { return false };
        self.bucket.learn_region(region);
        // Another worker may have been faster.
        self.has_moved()
    }

    /// Takes the first time that differs from that of the rejected signature: the server time in
    /// the error, the response's `Date` and, as either may be missing or wrong, this machine's.
    fn learn_time(&self, error: &ServiceError, signed: Signed) -> bool {
        let is_news = |time: &u64| time.abs_diff(signed.at) >= CLOCK_NEWS_S;
        let told = [error.server_time, error.date].into_iter().flatten().find(is_news);
        match told {
            Some(time) => self.bucket.learn_time(time),
            None if is_news(&clock::unix_seconds()) => self.bucket.forget_time(),
            None => return false,
        }
        true
    }

    /// S3 rejects credentials that may have expired, depending on whose clock is right: its time
    /// decides.
    fn learn_end(&self, error: &ServiceError) {
        let source = self.bucket.credentials.as_ref();
        let is_doubtful =
            source.and_then(|source| source.load().as_ref().map(|set| set.is_doubtful));
        if let (Some(true), Some(time)) = (is_doubtful, error.server_time.or(error.date)) {
            self.bucket.learn_time(time);
        }
    }

    async fn has_newer_credentials(&self, error: &ServiceError, signed: Signed) -> bool {
        let Some(source) = &self.bucket.credentials else { return false };
        let need = if error.is_about_credentials() { Need::Certain } else { Need::Doubtful };
        source.newer_than(signed.generation, need).await
    }

    async fn has_valid_credentials(&self) -> bool {
        let Some(source) = &self.bucket.credentials else { return false };
        let generation = source.generation();
        // They may have been refreshed in the meantime.
        self.is_signable()
            || source.newer_than(generation, Need::Certain).await && self.is_signable()
    }

    fn is_signable(&self) -> bool {
        self.writer.borrow().check_credentials().is_ok()
    }
}
