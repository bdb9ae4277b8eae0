//! Finding and refreshing credentials, with stand-ins for AWS's credential services.

mod kinds;
mod refresh;
mod refused;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::header::AUTHORIZATION;

use crate::support::credential_services::{
    CONTAINER_TOKEN, CredentialServices, EXTERNAL_ID, IDENTITY_TOKEN, Mode, ROLE_ARN, SSO_TOKEN,
    json, process_json,
};
use crate::support::eventually;
use crate::support::memory_store::TestS3;
use crate::support::proxy::{Config, Driver, Process, Proxy};
use crate::support::raw_http::{Client, get};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};

const TARGET: &str = "/files/reads.bam";
const HOUR: Duration = Duration::from_secs(3600);

/// S3, the credential services, and a configuration without keys.
struct World {
    s3: TestS3,
    services: CredentialServices,
    config: Config,
}

impl World {
    fn new(driver: Driver, lifetime: Duration, credentials: &str) -> World {
        let s3 = TestS3::with("reads.bam", "ACGT");
        let services = CredentialServices::start(s3.server.keyring(), lifetime);
        let config = Config::over(driver, &s3)
            .without("AWS_ACCESS_KEY_ID")
            .without("AWS_SECRET_ACCESS_KEY")
            .set("log_level", "debug")
            .set("credentials", credentials);
        World { s3, services, config }
    }

    /// The program, with every service on the loopback device and no other credentials.
    fn process(&self) -> Process {
        World::process_of(&self.config, &self.services)
    }

    fn process_of(config: &Config, services: &CredentialServices) -> Process {
        Process::with_config(&config.yaml())
            .environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", &services.url())
            .environment("AWS_ENDPOINT_URL_STS", &services.url())
            .environment("AWS_ENDPOINT_URL_SSO", &services.url())
    }

    /// The same with other settings.
    fn config_process(&self, change: impl FnOnce(Config) -> Config) -> Process {
        let config = change(self.config.clone());
        World::process_of(&config, &self.services)
    }

    fn in_container(&self) -> Process {
        let process = self.process();
        process.environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &self.services.container_url())
    }

    /// The distinct access keys that signed requests.
    fn access_keys_used(&self) -> BTreeSet<String> {
        let requests = self.s3.server.requests();
        let fields = requests.iter().filter_map(|seen| seen.field(AUTHORIZATION));
        let key =
            |field: &str| Some(field.split_once("Credential=")?.1.split_once('/')?.0.to_owned());
        fields.filter_map(key).collect()
    }

    /// Fails if a secret is in the log.
    #[track_caller]
    fn assert_no_secret_in(&self, log: &str) {
        let issued = self.s3.server.keyring().issued();
        let secrets = issued.iter().flat_map(|keys| [Some(&keys.secret_key), keys.token.as_ref()]);
        let secrets = secrets.flatten().map(String::as_str);
        let tokens = [CONTAINER_TOKEN, IDENTITY_TOKEN, SSO_TOKEN, "metadata-session-token"];
        for secret in secrets.chain(tokens) {
            assert!(!log.contains(secret), "a secret is in the log:\n{log}");
        }
    }
}

/// Warnings and errors about credentials in the log.
fn warnings(proxy: &Proxy) -> Vec<String> {
    let log = proxy.stderr();
    let is_one = |line: &&str| {
        line.contains(" credentials of ") && (line.contains(" WARN ") || line.contains(" ERROR "))
    };
    log.lines().filter(is_one).map(str::to_owned).collect()
}

fn the_warning(proxy: &Proxy, words: &str) -> String {
    eventually(words, || warnings(proxy).iter().any(|line| line.contains(words)));
    let warnings = warnings(proxy);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    warnings[0].clone()
}
