//! Corrections after which a rejected request may succeed: the bucket's region, S3's clock, newer
//! credentials.
//!
//! Each is learned for all later requests, and retries one request a bounded number of times.

use crate::clock;
use crate::s3::client::{ClientError, Reply, Target};
use crate::s3::clock::NOTABLE_SKEW_S;
use crate::s3::credentials::handle::Need;
use crate::s3::error::{Kind, ServiceError};
use crate::s3::request::Signed;

/// Retries of one request with another signing time: up to two that S3 reports, and this machine's.
const MAX_CLOCK_RETRIES: u8 = 3;

/// The corrections made for one request so far.
#[derive(Default)]
pub(super) struct Corrections {
    region: bool,
    clock_retries: u8,
    credentials: bool,
}

impl Corrections {
    /// Whether a correction may help after this outcome.
    pub(super) fn may_help(&self, outcome: &Result<Reply, ClientError>) -> bool {
        match outcome {
            Ok(Reply::Object(_) | Reply::NotModified(_)) => false,
            Ok(Reply::Error(error)) => match error.kind() {
                Kind::WrongEndpoint => !self.region,
                Kind::Clock => self.clock_retries < MAX_CLOCK_RETRIES,
                Kind::Credentials => !self.credentials,
                _ => false,
            },
            Err(error) => matches!(error, ClientError::Credentials(_)) && !self.credentials,
        }
    }

    /// Corrects the cause of the error; `true` if a retry may succeed now.
    pub(super) async fn make(
        &mut self,
        target: &Target,
        outcome: &Result<Reply, ClientError>,
        signed: Signed,
    ) -> bool {
        match outcome {
            Ok(Reply::Error(error)) => match error.kind() {
                Kind::WrongEndpoint => {
                    self.region = true;
                    target.learn_region(error)
                }
                Kind::Clock => {
                    self.clock_retries += 1;
                    target.learn_time(error, signed)
                }
                _ => {
                    self.credentials = true;
                    target.learn_time_of_expiry(error);
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
        let differs = |time: &u64| time.abs_diff(signed.at) >= NOTABLE_SKEW_S;
        let told = [error.server_time, error.date].into_iter().flatten().find(differs);
        match told {
            Some(time) => self.bucket.learn_time(time),
            None if differs(&clock::unix_seconds()) => self.bucket.forget_time(),
            None => return false,
        }
        true
    }

    /// S3 rejects credentials that may have expired, depending on whose clock is right: its time
    /// decides.
    fn learn_time_of_expiry(&self, error: &ServiceError) {
        let handle = self.bucket.credentials.as_ref();
        let seems_expired =
            handle.and_then(|handle| handle.load().as_ref().map(|set| set.seems_expired));
        if let (Some(true), Some(time)) = (seems_expired, error.server_time.or(error.date)) {
            self.bucket.learn_time(time);
        }
    }

    async fn has_newer_credentials(&self, error: &ServiceError, signed: Signed) -> bool {
        let Some(handle) = &self.bucket.credentials else { return false };
        let need = if error.is_about_credentials() { Need::Certain } else { Need::Doubtful };
        handle.newer_than(signed.generation, need).await
    }

    async fn has_valid_credentials(&self) -> bool {
        let Some(handle) = &self.bucket.credentials else { return false };
        let generation = handle.generation();
        // They may have been refreshed in the meantime.
        self.is_signable()
            || handle.newer_than(generation, Need::Certain).await && self.is_signable()
    }

    fn is_signable(&self) -> bool {
        self.writer.borrow().check_credentials().is_ok()
    }
}
