//! One bucket: its configuration, and its region and clock as learned from S3's responses.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::s3::clock::{NOTABLE_SKEW_S, S3Clock, Skew};
use crate::s3::credentials::handle::CredentialsHandle;
use crate::s3::endpoint::{Addressing, Endpoint, Location};
use crate::s3::sse_c::CustomerKey;

/// Identifies a bucket in this process, also across reloads of the configuration, so that one
/// bucket's cache entries never serve another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketId(u64);

impl BucketId {
    /// An id that is never used again in this process.
    pub fn unique() -> BucketId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        BucketId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    #[cfg(test)]
    pub(crate) const fn for_test(number: u64) -> BucketId {
        BucketId(number)
    }
}

/// One bucket, with all settings needed to sign and send a request for one of its objects.
#[derive(Debug)]
pub struct Bucket {
    /// Identifies the bucket in caches and in clients.
    pub id: BucketId,
    /// Its name in S3.
    pub name: String,
    /// The server, or AWS.
    pub endpoint: Endpoint,
    /// How the bucket's name is put into a request.
    pub addressing: Addressing,
    /// `None` sends requests unsigned (`credentials: anonymous`).
    pub credentials: Option<Arc<CredentialsHandle>>,
    /// Whether the owner of the credentials agrees to pay for requests and traffic (Amazon S3
    /// User Guide, "Using Requester Pays buckets").
    pub requester_pays: bool,
    /// Prefix of each request's path: the path of the endpoint's URL, percent-encoded, without a
    /// trailing slash. Usually empty.
    pub base_path: String,
    /// The key that the objects are encrypted with, if S3 does not store it (SSE-C).
    pub customer_key: Option<Arc<CustomerKey>>,
    learned: Learned,
}

/// Learned from S3's responses.
#[derive(Debug)]
struct Learned {
    location: ArcSwap<Location>,
    clock: S3Clock,
}

impl Bucket {
    /// A bucket that is assumed to be in `region`.
    pub fn new(
        name: String,
        region: &str,
        endpoint: Endpoint,
        addressing: Addressing,
        credentials: Option<Arc<CredentialsHandle>>,
    ) -> Bucket {
        let location = ArcSwap::from_pointee(endpoint.locate(&name, region, addressing));
        let learned = Learned { location, clock: S3Clock::default() };
        Bucket {
            id: BucketId::unique(),
            name,
            endpoint,
            addressing,
            credentials,
            requester_pays: false,
            base_path: String::new(),
            customer_key: None,
            learned,
        }
    }

    /// Where its requests are sent.
    pub fn location(&self) -> Guard<Arc<Location>> {
        self.learned.location.load()
    }

    /// Moves the bucket to the region that S3 named, if the name is valid for the endpoint.
    pub fn learn_region(&self, region: &str) {
        if !self.endpoint.takes_region(region) || self.location().region == region {
            return;
        }
        let location = self.endpoint.locate(&self.name, region, self.addressing);
        log::warn!(
            "bucket {} is in region {region}: requests go to {} from now on; set 'region: {region}' \
             to save the redirect",
            self.name,
            location.origin
        );
        self.learned.location.store(Arc::new(location));
    }

    /// S3's time.
    pub fn clock(&self) -> &S3Clock {
        &self.learned.clock
    }

    /// Learns S3's time, in seconds since 1970, and logs a notable difference.
    pub fn learn_time(&self, seconds: u64) {
        let differs = self.clock().seconds().abs_diff(seconds) >= NOTABLE_SKEW_S;
        self.clock().learn(seconds);
        if let Some(handle) = &self.credentials {
            handle.clock().learn(seconds);
        }
        let skew = Skew::to(seconds);
        if differs && !skew.is_small() {
            log::warn!(
                "this machine's clock is {skew} at {}, which rejects more than 900 s: requests are \
                 signed with S3's time from now on; set the clock (NTP)",
                self.location().origin
            );
        } else if differs {
            log::info!("this machine's clock agrees with that of S3 again");
        }
    }

    /// Uses this machine's clock again, because the time learned from S3 was wrong.
    pub fn forget_time(&self) {
        self.clock().forget();
        if let Some(handle) = &self.credentials {
            handle.clock().forget();
        }
    }

    /// Whether a customer key would be sent unencrypted over a network. AWS rejects such requests,
    /// other stores may not.
    pub fn exposes_customer_key(&self) -> bool {
        let origin = Arc::clone(&self.location().origin);
        let host = origin.host.as_str();
        let loopback = match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            // RFC 6761 §6.3: the name and its subdomains are always this machine.
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        };
        self.customer_key.is_some() && !origin.tls && !loopback
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix_seconds;
    use crate::s3::endpoint::Aws;
    use crate::upstream::Origin;

    fn bucket() -> Bucket {
        let endpoint = Endpoint::Aws(Aws::default());
        Bucket::new("lab".to_owned(), "us-east-1", endpoint, Addressing::Auto, None)
    }

    #[test]
    fn two_buckets_of_the_same_name_have_different_ids() {
        assert_ne!(bucket().id, bucket().id);
    }

    #[test]
    fn a_region_is_learned_for_one_bucket_and_an_invalid_one_never() {
        let (bucket, other) = (bucket(), bucket());
        for nonsense in ["", "evil.example/", "EU", &"x".repeat(65)] {
            bucket.learn_region(nonsense);
            assert_eq!(bucket.location().region, "us-east-1", "{nonsense}");
        }
        bucket.learn_region("eu-west-1");
        assert_eq!(bucket.location().origin.host, "lab.s3.eu-west-1.amazonaws.com");
        let before = Arc::clone(&bucket.location());
        bucket.learn_region("eu-west-1");
        assert!(Arc::ptr_eq(&before, &bucket.location()));
        assert_eq!(other.location().region, "us-east-1");
    }

    #[test]
    fn at_other_endpoints_regions_have_other_names() {
        let origin = Origin { tls: false, host: "minio".to_owned(), port: 9000 };
        let endpoint = Endpoint::At(Arc::new(origin));
        let bucket = Bucket::new("lab".to_owned(), "a", endpoint, Addressing::Auto, None);
        for region in ["RegionOne", "GRA", "eu_1.x", "\"#{}~"] {
            bucket.learn_region(region);
            assert_eq!(bucket.location().region, region);
        }
        for nonsense in ["", "a/b", "a,b", "a b", "a\r\nx", "\u{e9}", &"x".repeat(65)] {
            bucket.learn_region(nonsense);
            assert_eq!(bucket.location().region, "\"#{}~", "{nonsense:?}");
        }
    }

    #[test]
    fn s3s_time_is_learned_and_forgotten() {
        let bucket = bucket();
        bucket.learn_time(1_000_000_000);
        assert!(bucket.clock().seconds().abs_diff(1_000_000_000) <= 1);
        bucket.forget_time();
        assert!(bucket.clock().seconds().abs_diff(unix_seconds()) <= 1);
    }

    #[test]
    fn a_key_is_exposed_unless_it_is_encrypted_or_stays_on_this_machine() {
        let exposes = |tls: bool, host: &str, customer_key| {
            let origin = Origin { tls, host: host.to_owned(), port: 80 };
            let endpoint = Endpoint::At(Arc::new(origin));
            let name = "lab".to_owned();
            let mut bucket = Bucket::new(name, "us-east-1", endpoint, Addressing::Auto, None);
            bucket.customer_key = customer_key;
            bucket.exposes_customer_key()
        };
        let key = || Some(Arc::new(CustomerKey::new(&[7; 32])));
        for host in ["127.0.0.1", "127.1.2.3", "::1", "localhost", "lab.localhost"] {
            assert!(!exposes(false, host, key()), "{host}");
        }
        for host in ["minio", "10.0.0.1", "fd00::1", "localhost.example.org", "notlocalhost"] {
            assert!(exposes(false, host, key()), "{host}");
            assert!(!exposes(true, host, key()) && !exposes(false, host, None));
        }
    }
}
