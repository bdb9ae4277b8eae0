//! The services that AWS credentials come from, over real HTTP on one port: the instance metadata
//! service in its version 2, the container endpoint, STS, and the portal of single sign-on. The
//! S3 server accepts their credentials.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use s3proxy::internals::Iso8601;

use super::PATIENCE;
use super::s3_server::{Keyring, Keys};

/// The `Authorization` field that the container endpoint requires.
pub(crate) const CONTAINER_TOKEN: &str = "container-authorization-token";
/// The `ExternalId` that STS requires.
pub(crate) const EXTERNAL_ID: &str = "lab:42/external";
/// The `WebIdentityToken` that STS requires.
pub(crate) const IDENTITY_TOKEN: &str = "eyJhbGciOi.web-identity.token";
/// The access token of a login with AWS IAM Identity Center, which its portal requires.
pub(crate) const SSO_TOKEN: &str = "sso-access-token";
pub(crate) const ROLE_ARN: &str = "arn:aws:iam::111122223333:role/reader";

const METADATA_SESSION: &str = "metadata-session-token";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
const INSTANCE_ROLE: &str = "lab-instance-role";

/// How the services respond.
#[derive(Clone)]
pub(crate) enum Mode {
    Up,
    /// Connections are closed without a response.
    Down,
    /// Every request for credentials gets this status and body.
    Responding(u16, String),
}

struct State {
    mode: Mode,
    lifetime: Duration,
    seen: Vec<Seen>,
    stop: bool,
}

/// A request received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    method: String,
    path: String,
    fields: HashMap<String, String>,
    /// The parameters of the form in its body, decoded.
    pub(crate) form: HashMap<String, String>,
}

/// The running services; dropping stops them.
pub(crate) struct CredentialServices {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl CredentialServices {
    /// Issues credentials of `keyring` that are valid for `lifetime`.
    pub(crate) fn start(keyring: &Keyring, lifetime: Duration) -> CredentialServices {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let state = State { mode: Mode::Up, lifetime, seen: Vec::new(), stop: false };
        let state = Arc::new(Mutex::new(state));
        let (shared, keyring) = (Arc::clone(&state), keyring.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if lock(&shared).stop {
                    return;
                }
                let (shared, keyring) = (Arc::clone(&shared), keyring.clone());
                std::thread::spawn(move || serve(stream, &shared, &keyring));
            }
        });
        CredentialServices { address, state, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`, the endpoint of STS and of the metadata service.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value of `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub(crate) fn container_url(&self) -> String {
        format!("{}/container", self.url())
    }

    /// Changes how they respond from now on.
    pub(crate) fn set(&self, mode: Mode) {
        lock(&self.state).mode = mode;
    }

    /// Requests received so far, of any kind.
    pub(crate) fn request_count(&self) -> usize {
        lock(&self.state).seen.len()
    }

    /// The forms that STS has received.
    pub(crate) fn forms(&self) -> Vec<Seen> {
        let seen = lock(&self.state).seen.clone();
        seen.into_iter().filter(|seen| seen.method == "POST").collect()
    }
}

impl Drop for CredentialServices {
    fn drop(&mut self) {
        lock(&self.state).stop = true;
        // Wakes the accepting thread, so that it sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the requests of one connection.
fn serve(mut stream: TcpStream, state: &Mutex<State>, keyring: &Keyring) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    while let Some(seen) = read_request(&mut stream) {
        let (mode, lifetime) = {
            let mut state = lock(state);
            state.seen.push(seen.clone());
            (state.mode.clone(), state.lifetime)
        };
        let is_preface = seen.path == "/latest/api/token" || seen.path == ROLES;
        let (status, body) = match mode {
            Mode::Down => return,
            Mode::Responding(status, body) if !is_preface => (status, body),
            Mode::Up | Mode::Responding(..) => response(&seen, keyring, lifetime),
        };
        // The lifetime of a metadata session; the other services ignore it.
        let response = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let fields: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = fields.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    let form = pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect();
    Some(Seen { method, path, fields, form })
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, escape.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn response(seen: &Seen, keyring: &Keyring, lifetime: Duration) -> (u16, String) {
    let field = |name: &str| seen.fields.get(name).map(String::as_str);
    let in_session = || field("x-aws-ec2-metadata-token") == Some(METADATA_SESSION);
    let refused = (401, "no".to_owned());
    match (seen.method.as_str(), seen.path.as_str()) {
        ("PUT", "/latest/api/token") => match field("x-aws-ec2-metadata-token-ttl-seconds") {
            Some(_) => (200, METADATA_SESSION.to_owned()),
            None => (400, "no lifetime".to_owned()),
        },
        ("GET", path) if path.starts_with(ROLES) && !in_session() => refused,
        ("GET", ROLES) => (200, INSTANCE_ROLE.to_owned()),
        ("GET", path) if path.strip_prefix(ROLES) == Some(INSTANCE_ROLE) => {
            (200, json(&keyring.issue(lifetime)))
        }
        ("GET", "/container") if field("authorization") == Some(CONTAINER_TOKEN) => {
            (200, json(&keyring.issue(lifetime)))
        }
        ("GET", "/container") => refused,
        ("GET", "/federation/credentials?role_name=reader&account_id=111122223333") => {
            match field("x-amz-sso_bearer_token") {
                Some(SSO_TOKEN) => (200, sso_json(&keyring.issue(lifetime))),
                _ => refused,
            }
        }
        ("POST", "/") => sts(seen, keyring, lifetime),
        _ => (404, "nothing here".to_owned()),
    }
}

/// `AssumeRole` and `AssumeRoleWithWebIdentity` (AWS STS API Reference).
fn sts(seen: &Seen, keyring: &Keyring, lifetime: Duration) -> (u16, String) {
    let parameter = |name: &str| seen.form.get(name).map(String::as_str).unwrap_or_default();
    let action = parameter("Action");
    let credential =
        seen.fields.get("authorization").and_then(|field| field.split_once("Credential="));
    let access_key = credential.and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let is_lawful = parameter("RoleArn") == ROLE_ARN
        && match action {
            "AssumeRole" => keyring.accepts(access_key) && parameter("ExternalId") == EXTERNAL_ID,
            "AssumeRoleWithWebIdentity" => parameter("WebIdentityToken") == IDENTITY_TOKEN,
            _ => false,
        };
    if !is_lawful {
        let error = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
             <Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to assume the \
             role</Message></Error><RequestId>sts-1</RequestId></ErrorResponse>";
        return (403, error.to_owned());
    }
    let keys = keyring.issue(lifetime);
    let Keys { access_key, secret_key, .. } = &keys;
    let (token, end) = (keys.token.as_deref().unwrap_or_default(), end(&keys));
    let xml = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:s3proxy</AssumedRoleId>\
         <Arn>arn:aws:sts::111122223333:assumed-role/reader/s3proxy</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{access_key}</AccessKeyId>\
         <SecretAccessKey>{secret_key}</SecretAccessKey><SessionToken>{token}</SessionToken>\
         <Expiration>{end}</Expiration></Credentials></{action}Result>\
         <ResponseMetadata><RequestId>sts-1</RequestId></ResponseMetadata></{action}Response>"
    );
    (200, xml)
}

/// Credentials in the format of the metadata service and the container endpoint.
pub(crate) fn json(keys: &Keys) -> String {
    let Keys { access_key, secret_key, token, .. } = keys;
    let (token, end) = (token.as_deref().unwrap_or_default(), end(keys));
    format!(
        "{{\"Code\": \"Success\", \"Type\": \"AWS-HMAC\", \"AccessKeyId\": \"{access_key}\", \
         \"SecretAccessKey\": \"{secret_key}\", \"Token\": \"{token}\", \
         \"Expiration\": \"{end}\"}}"
    )
}

/// Credentials in the format of a `credential_process`.
pub(crate) fn process_json(keys: &Keys) -> String {
    json(keys)
        .replacen("\"Code\": \"Success\"", "\"Version\": 1", 1)
        .replace("\"Token\"", "\"SessionToken\"")
}

/// Credentials in the format of IAM Identity Center's portal (`GetRoleCredentials`).
fn sso_json(keys: &Keys) -> String {
    let Keys { access_key, secret_key, token, .. } = keys;
    let (token, end) = (token.as_deref().unwrap_or_default(), since_1970(keys).as_millis());
    format!(
        "{{\"roleCredentials\": {{\"accessKeyId\": \"{access_key}\", \"secretAccessKey\": \
         \"{secret_key}\", \"sessionToken\": \"{token}\", \"expiration\": {end}}}}}"
    )
}

/// When a set ends.
fn since_1970(keys: &Keys) -> Duration {
    let end = keys.ends.expect("issued credentials expire");
    end.duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970")
}

/// When a set ends, as ISO 8601.
fn end(keys: &Keys) -> String {
    Iso8601(since_1970(keys).as_secs()).to_string()
}
