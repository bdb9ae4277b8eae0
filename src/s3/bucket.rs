//! Where a bucket is and how its objects are addressed.

use std::net::IpAddr;
use std::sync::Arc;

use crate::s3::credentials::Credentials;
use crate::s3::customer_key::CustomerKey;
use crate::upstream::Origin;

/// How the bucket's name is put into a request (Amazon S3 User Guide, "Virtual hosting of
/// general purpose buckets").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `http://endpoint/bucket/key`.
    Path,
    /// `http://bucket.endpoint/key`.
    Virtual,
}

/// One bucket, with all that is needed to sign and send a request for an object of it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The bucket's name.
    pub name: String,
    /// The region that goes into the signature.
    pub region: String,
    /// The server that is connected to; with [`Addressing::Virtual`] its host already starts
    /// with the bucket's name.
    pub origin: Arc<Origin>,
    /// Whether the bucket's name is part of the path or of the host.
    pub addressing: Addressing,
    /// `None` sends requests unsigned (`credentials: anonymous`).
    pub credentials: Option<Arc<Credentials>>,
    /// Whether the owner of the credentials agrees to pay for requests and traffic (Amazon S3
    /// User Guide, "Using Requester Pays buckets").
    pub requester_pays: bool,
    /// The key that the objects are encrypted with, where S3 does not keep it itself.
    pub customer_key: Option<Arc<CustomerKey>>,
}

impl Bucket {
    /// Whether a customer key travels over a network where others can read it. AWS refuses such
    /// requests, other stores may take them.
    pub fn exposes_customer_key(&self) -> bool {
        let host = self.origin.host.as_str();
        let loopback = match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            // RFC 6761 §6.3: the name and those below it are always this machine.
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        };
        self.customer_key.is_some() && !loopback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_exposed_unless_it_stays_on_this_machine() {
        let exposes = |host: &str, customer_key| {
            let bucket = Bucket {
                name: "lab".to_owned(),
                region: "us-east-1".to_owned(),
                origin: Arc::new(Origin { host: host.to_owned(), port: 80 }),
                addressing: Addressing::Path,
                credentials: None,
                requester_pays: false,
                customer_key,
            };
            bucket.exposes_customer_key()
        };
        let key = || Some(Arc::new(CustomerKey::new(&[7; 32])));
        for host in ["127.0.0.1", "127.1.2.3", "::1", "localhost", "lab.localhost"] {
            assert!(!exposes(host, key()), "{host}");
        }
        for host in ["minio", "10.0.0.1", "fd00::1", "localhost.example.org", "notlocalhost"] {
            assert!(exposes(host, key()), "{host}");
            assert!(!exposes(host, None));
        }
    }
}
