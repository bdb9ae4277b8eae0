//! Foreign S3 servers, one process for each that a run of the suite needs, all with the same
//! objects.
//!
//! curl, whose signer is independent of ours, stores the objects and reads them without the proxy.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::certificates::Authority;
use super::memory_store::BUCKET;
use super::proxy::{Config, Driver};
use super::raw_http::encode;
use super::tools;

/// A server that `tests/servers` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implementation {
    Moto,
    /// Over HTTPS.
    MotoTls,
    Swift,
    Garage,
}

impl Implementation {
    /// Its name in `tests/servers`.
    fn name(self) -> &'static str {
        match self {
            Implementation::Moto | Implementation::MotoTls => "moto",
            Implementation::Swift => "swift",
            Implementation::Garage => "garage",
        }
    }
}

/// A running server with [`BUCKET`] in it.
pub(crate) struct RealS3 {
    pub(crate) implementation: Implementation,
    pub(crate) endpoint: String,
    access_key: String,
    secret_key: String,
    /// Keys of objects that the server does not return as they were stored.
    pub(crate) refused_keys: BTreeSet<String>,
    /// The authority of its certificate, if it uses TLS.
    authority: Option<Authority>,
    directory: TempDir,
    /// Ends when its standard input is closed, so at the latest with this process.
    _process: Child,
}

/// A response that curl received.
pub(crate) struct Direct {
    pub(crate) status: u16,
    /// Status line and fields.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.body[..self.body.len().min(600)];
        write!(f, "{}{}", self.head, String::from_utf8_lossy(start))
    }
}

impl Direct {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim())
    }
}

/// The server, started and filled on first use.
pub(crate) fn running(
    implementation: Implementation,
    objects: impl FnOnce() -> Vec<(String, Vec<u8>)>,
) -> &'static RealS3 {
    static SERVERS: [OnceLock<Result<RealS3, String>>; 4] = [const { OnceLock::new() }; 4];
    // An error is kept too, so that not every test waits for the server again.
    SERVERS[implementation as usize]
        .get_or_init(|| RealS3::start(implementation, &objects()))
        .as_ref()
        .unwrap_or_else(|error| panic!("{implementation:?}: {error}"))
}

impl RealS3 {
    fn start(
        implementation: Implementation,
        objects: &[(String, Vec<u8>)],
    ) -> Result<RealS3, String> {
        let serve = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/serve");
        let authority = (implementation == Implementation::MotoTls).then(Authority::new);
        let mut command = Command::new(serve);
        command.arg(implementation.name());
        if let Some(authority) = &authority {
            command.arg(authority.file()).args(authority.server_files("localhost"));
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{serve}: {error}"))?;
        let mut line = String::new();
        let stdout = process.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line of text");
        let access: serde_json::Value = serde_json::from_str(&line)
            .map_err(|_| "the server did not start; see above".to_owned())?;
        let text = |name: &str| access[name].as_str().expect("three texts").to_owned();
        let mut server = RealS3 {
            implementation,
            endpoint: text("endpoint"),
            access_key: text("access_key"),
            secret_key: text("secret_key"),
            refused_keys: BTreeSet::new(),
            authority,
            directory: tempfile::tempdir().expect("a temporary directory"),
            _process: process,
        };
        server.fill(objects)?;
        Ok(server)
    }

    fn fill(&mut self, objects: &[(String, Vec<u8>)]) -> Result<(), String> {
        let created = self.put(&format!("/{BUCKET}"), b"");
        if created.status != 200 {
            return Err(format!("no bucket could be created: {created:?}"));
        }
        let stored: Vec<bool> = objects
            .iter()
            .map(|(key, bytes)| self.put(&target(key), bytes).status == 200)
            .collect();
        // After all are stored, so that a server that confuses two keys is detected.
        for ((key, bytes), stored) in objects.iter().zip(stored) {
            if !stored || self.get(key).body != *bytes {
                self.refused_keys.insert(key.clone());
            }
        }
        Ok(())
    }

    /// A proxy over [`BUCKET`].
    pub(crate) fn config(&self, driver: Driver) -> Config {
        let config = match &self.authority {
            Some(authority) => {
                let file = authority.file();
                let file = file.to_str().expect("a path of ASCII");
                Config::new(driver, &self.endpoint).set("ca_file", file)
            }
            None => Config::new(driver, &self.endpoint),
        };
        config
            .set("AWS_ACCESS_KEY_ID", &format!("'{}'", self.access_key))
            .set("AWS_SECRET_ACCESS_KEY", &format!("'{}'", self.secret_key))
    }

    /// Requests an object of [`BUCKET`] from the server.
    pub(crate) fn get(&self, key: &str) -> Direct {
        self.get_with_secret(key, &self.secret_key)
    }

    /// The same, signed with another secret.
    pub(crate) fn get_with_secret(&self, key: &str, secret: &str) -> Direct {
        self.curl(&target(key), Some(secret), b"", &[])
    }

    /// The same, unsigned.
    pub(crate) fn get_unsigned(&self, key: &str) -> Direct {
        self.curl(&target(key), None, b"", &[])
    }

    fn put(&self, target: &str, bytes: &[u8]) -> Direct {
        let file = self.directory.path().join("upload");
        std::fs::write(&file, bytes).expect("a writable directory");
        // Not with -T, which appends the file's name if a key ends with a slash.
        let kind = "Content-Type: application/octet-stream";
        let arguments = ["-X", "PUT", "--data-binary", "@upload", "-H", kind];
        self.curl(target, Some(&self.secret_key), bytes, &arguments)
    }

    fn curl(&self, target: &str, secret: Option<&str>, payload: &[u8], more: &[&str]) -> Direct {
        let hash: String =
            Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect();
        let hash = format!("x-amz-content-sha256: {hash}");
        let mut url = format!("{}{target}", self.endpoint);
        let mut arguments = vec!["-s", "-S", "-i", "--path-as-is", "--globoff"];
        let authority = self.authority.as_ref().map(Authority::file);
        if let Some(file) = &authority {
            arguments.extend(["--cacert", file.to_str().expect("a path of ASCII")]);
        }
        if let Some(secret) = secret {
            // In the URL: an access key of Swift has a colon, which --user takes as its separator.
            let [user, password] =
                [&self.access_key, secret].map(|text| encode(text).replace('/', "%2F"));
            url = url.replace("://", &format!("://{user}:{password}@"));
            arguments.extend(["--aws-sigv4", "aws:amz:us-east-1:s3", "-H", &hash]);
        }
        arguments.extend(more);
        arguments.push(&url);
        let response = tools::run(self.directory.path(), "curl", &arguments);
        let mut response = response.as_slice();
        let end = loop {
            let end = response.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
            if !response.starts_with(b"HTTP/1.1 100 ") {
                break end;
            }
            response = &response[end..];
        };
        let head = String::from_utf8_lossy(&response[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|digits| digits.parse().ok());
        Direct { status: status.expect("a status line"), head, body: response[end..].to_vec() }
    }

    /// A directory for programs to run in.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The path of an object of [`BUCKET`].
fn target(key: &str) -> String {
    format!("/{BUCKET}/{}", encode(key))
}
