//! One bucket: what is configured about it, and what was learned of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::s3::customer_key::CustomerKey;
use crate::s3::endpoint::{Addressing, Endpoint, Location};
use crate::s3::source::Source;

/// One bucket, with all that is needed to sign and send a request for an object of it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The bucket's name.
    pub name: String,
    /// The server or servers that have it.
    pub endpoint: Endpoint,
    /// Whether the bucket's name is part of the path or of the host.
    pub addressing: Addressing,
    /// `None` sends requests unsigned (`credentials: anonymous`).
    pub credentials: Option<Arc<Source>>,
    /// Whether the owner of the credentials agrees to pay for requests and traffic (Amazon S3
    /// User Guide, "Using Requester Pays buckets").
    pub requester_pays: bool,
    /// The path that the endpoint's URL ends with, encoded and without a slash at its end: in front
    /// of all that is asked for, and empty for most.
    pub base_path: String,
    /// The key that the objects are encrypted with, where S3 does not keep it itself.
    pub customer_key: Option<Arc<CustomerKey>>,
    /// Shared by all cores.
    learned: Arc<Learned>,
}

/// What S3 itself has told about a bucket.
#[derive(Debug)]
struct Learned {
    location: ArcSwap<Location>,
    /// Seconds that S3's clock is ahead of ours.
    clock_offset: AtomicI64,
}

impl Bucket {
    /// A bucket that is taken to be in `region`.
    pub fn new(
        name: String,
        region: &str,
        endpoint: Endpoint,
        addressing: Addressing,
        credentials: Option<Arc<Source>>,
    ) -> Bucket {
        let location = ArcSwap::from_pointee(endpoint.locate(&name, region, addressing));
        let learned = Arc::new(Learned { location, clock_offset: AtomicI64::new(0) });
        Bucket {
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

    /// Where its requests go now.
    pub fn location(&self) -> Guard<Arc<Location>> {
        self.learned.location.load()
    }

    /// Learns that the bucket is in another region than was thought, unless that makes no sense.
    pub fn learn_region(&self, region: &str) {
        if !self.endpoint.takes_region(region) || self.location().region == region {
            return;
        }
        let location = self.endpoint.locate(&self.name, region, self.addressing);
        log::warn!(
            "bucket {} is in region {region}: asking at {} from now on; write 'region: {region}' \
             to spare the detour",
            self.name,
            location.origin
        );
        self.learned.location.store(Arc::new(location));
    }

    /// Seconds to add to this machine's clock for that of S3.
    pub fn clock_offset(&self) -> i64 {
        self.learned.clock_offset.load(Ordering::Relaxed)
    }

    /// Learns how far S3's clock is ahead, in seconds; says so where that is news.
    pub fn learn_clock_offset(&self, offset: i64) {
        let old = self.learned.clock_offset.swap(offset, Ordering::Relaxed);
        if old.abs_diff(offset) < CLOCK_NEWS_S {
            return;
        }
        let direction = if offset > 0 { "behind" } else { "ahead of" };
        log::warn!(
            "this machine's clock is {} s {direction} that of S3, which refuses more than 900 s: \
             signing with S3's time from now on; set the clock (NTP)",
            offset.unsigned_abs()
        );
    }

    /// Whether a customer key travels over a network where others can read it. AWS refuses such
    /// requests, other stores may take them.
    pub fn exposes_customer_key(&self) -> bool {
        let origin = Arc::clone(&self.location().origin);
        let host = origin.host.as_str();
        let loopback = match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            // RFC 6761 §6.3: the name and those below it are always this machine.
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        };
        self.customer_key.is_some() && !origin.tls && !loopback
    }
}

/// A difference between two clocks that is worth a new try, in seconds: S3 refuses 15 minutes.
pub(super) const CLOCK_NEWS_S: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::endpoint::Aws;
    use crate::upstream::Origin;

    fn bucket() -> Bucket {
        let endpoint = Endpoint::Aws(Aws::default());
        Bucket::new("lab".to_owned(), "us-east-1", endpoint, Addressing::Auto, None)
    }

    #[test]
    fn a_region_is_learned_for_all_copies_and_nonsense_never() {
        let (bucket, other) = (bucket(), bucket());
        for nonsense in ["", "evil.example/", "EU", &"x".repeat(65)] {
            bucket.learn_region(nonsense);
            assert_eq!(bucket.location().region, "us-east-1", "{nonsense}");
        }
        let shared = bucket.clone();
        bucket.learn_region("eu-west-1");
        assert_eq!(shared.location().origin.host, "lab.s3.eu-west-1.amazonaws.com");
        let known = Arc::clone(&shared.location());
        shared.learn_region("eu-west-1");
        assert!(Arc::ptr_eq(&known, &bucket.location()));
        assert_eq!(other.location().region, "us-east-1");
    }

    #[test]
    fn at_an_endpoint_of_ones_own_regions_have_other_names() {
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
    fn a_clock_offset_is_learned_for_all_copies() {
        let (bucket, shared) = {
            let b = bucket();
            (b.clone(), b)
        };
        bucket.learn_clock_offset(-1000);
        assert_eq!(shared.clock_offset(), -1000);
        shared.learn_clock_offset(3);
        assert_eq!(bucket.clock_offset(), 3);
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
