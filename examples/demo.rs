//! A private bucket behind plain URLs, to try without an account:
//!
//! ```text
//! cargo run --release --example demo [-- --port PORT] [--directory DIRECTORY]
//! ```
//!
//! Writes two indexed BAM files into a bucket, serves the bucket with an S3 server that checks
//! every signature, starts the real proxy over it from a configuration file, checks with
//! one read that it works, and prints what to paste into samtools, curl and IGV. Runs until Ctrl-C.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use s3proxy::internals::{Environment, Overrides, load_config, open_log, start_server};
use s3s::dto::{GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use signal_hook::consts::{SIGINT, SIGTERM};

#[path = "../tests/support/genomics.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod genomics;
#[path = "../tests/support/s3_server.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod s3_server;

use s3_server::{ACCESS_KEY, REGION, S3Server, SECRET_KEY};

const BUCKET: &str = "genomics-lab";
/// The key of the large file, whose index is beside it.
const LARGE: &str = "runs/demo.bam";
/// The key of the small file.
const SMALL: &str = "runs/small.bam";
/// Reads that make about 20 MB.
const LARGE_READS: usize = 200_000;
/// Reads that make about 0.2 MB.
const SMALL_READS: usize = 2_000;
/// Time for the last lines of the log.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);
/// The region to look at.
const REGION_OF_INTEREST: &str = "chr1:1,000,000-1,002,000";

/// Serves a private bucket of generated BAM files through s3proxy.
#[derive(Parser)]
struct Options {
    /// Port of the proxy; 0 is any free one
    #[arg(long, default_value_t = 5000)]
    port: u16,

    /// Where the bucket and the configuration file are written
    #[arg(long, default_value = "demo-data")]
    directory: PathBuf,
}

fn main() -> ExitCode {
    match demo(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &Options) -> Result<(), Box<dyn Error>> {
    ensure_free(options.port)?;
    println!("\ns3proxy demo: a private bucket behind plain URLs\n");

    let bucket = options.directory.join("s3").join(BUCKET);
    fs::create_dir_all(bucket.join("runs"))?;
    say("writing", "two BAM files with their indexes ...");
    for (key, reads) in [(LARGE, LARGE_READS), (SMALL, SMALL_READS)] {
        let path = bucket.join(key);
        genomics::write_bam(&path, reads)?;
        say("", &format!("{}  {}", path.display(), megabytes(fs::metadata(&path)?.len())));
    }

    let s3 = S3Server::start(Files::new(options.directory.join("s3"))?)?;
    say("S3", &format!("{}  bucket {BUCKET}, every signature is checked", s3.endpoint()));

    let config_path = options.directory.join("config.yaml");
    let log_path = options.directory.join("proxy.log");
    fs::write(&config_path, configuration(options.port, &s3.endpoint(), &log_path))?;
    say("config", &config_path.display().to_string());
    say("log", &format!("{}  one line per request", log_path.display()));

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let config = load_config(Some(&config_path), &Environment::default(), &Overrides::default())?;
    let log = open_log(&config.settings)?;
    let mut proxy = start_server(config.settings, config.live, &log)?;
    let url = proxy.addresses.first().ok_or("the proxy listens nowhere")?.to_string();
    say("proxy", &format!("{url}  {}", workers(&proxy.drivers)));
    say("proof", &prove(&url, &s3, &bucket.join(LARGE))?);

    print_commands(&url);
    // The first signal ends the demo; a second one is for the impatient.
    let _ = signals.forever().next();
    println!("\nstopping ...");
    proxy.drain();
    log.finish(LOG_TIMEOUT);
    Ok(())
}

/// The files of a directory as S3 shows them: their keys are their paths. The file system alone
/// would fail for the path of a directory, and know several paths of one file.
struct Files {
    root: PathBuf,
    store: s3s_fs::FileSystem,
}

impl Files {
    fn new(root: PathBuf) -> Result<Files, String> {
        let store = s3s_fs::FileSystem::new(&root);
        let store = store.map_err(|error| format!("the S3 server: {error:?}"))?;
        Ok(Files { root, store })
    }

    fn check_key(&self, bucket: &str, key: &str) -> S3Result<()> {
        let is_plain = |segment: &str| !matches!(segment, "" | "." | "..");
        if key.split('/').all(is_plain) && self.root.join(bucket).join(key).is_file() {
            return Ok(());
        }
        Err(s3_error!(NoSuchKey))
    }
}

#[async_trait::async_trait]
impl S3 for Files {
    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.check_key(&request.input.bucket, &request.input.key)?;
        self.store.get_object(request).await
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.check_key(&request.input.bucket, &request.input.key)?;
        self.store.head_object(request).await
    }
}

fn say(what: &str, text: &str) {
    println!("  {what:<8} {text}");
}

/// `2 workers on io_uring (…)`; all workers of one machine get the same.
fn workers(drivers: &[String]) -> String {
    let driver = drivers.first().map_or("nothing", String::as_str);
    format!("{} worker{} on {driver}", drivers.len(), if drivers.len() == 1 { "" } else { "s" })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Fails in words a newcomer can act on, before anything is written.
fn ensure_free(port: u16) -> Result<(), String> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(format!(
            "port {port} is taken by another program; choose another one: \
             cargo run --release --example demo -- --port {}",
            port.checked_add(1).unwrap_or(5001)
        )),
        Err(error) => Err(format!("cannot listen on port {port}: {error}")),
    }
}

fn configuration(port: u16, endpoint: &str, log_path: &Path) -> String {
    format!(
        "# Written by the demo, which serves from it. The S3 server ends with the demo.\n\
         listen: 127.0.0.1:{port}\n\
         bucket_name: {BUCKET}\n\
         AWS_ACCESS_KEY_ID: {ACCESS_KEY}\n\
         AWS_SECRET_ACCESS_KEY: {SECRET_KEY}\n\
         region: {REGION}\n\
         endpoint: {endpoint}\n\
         addressing: path\n\
         log_file: {}\n",
        log_path.display()
    )
}

/// Reads one range through the proxy, compares it with the file, and shows that S3 itself refuses
/// the same request without a signature.
fn prove(url: &str, s3: &S3Server, file: &Path) -> Result<String, Box<dyn Error>> {
    const FIRST: usize = 1_000_000;
    const LENGTH: usize = 65_536;
    let range = format!("bytes={FIRST}-{}", FIRST + LENGTH - 1);

    let (status, body) = read(url, &format!("/files/{LARGE}"), &range)?;
    if status != 206 || body != fs::read(file)?[FIRST..FIRST + LENGTH] {
        return Err(format!("the proxy responded {status} with {} bytes", body.len()).into());
    }
    let signed = s3.requests().iter().filter(|seen| seen.is_signed()).count();
    let (refused, _) = read(&s3.endpoint(), &format!("/{BUCKET}/{LARGE}"), &range)?;
    if refused != 403 {
        return Err(format!("S3 responded {refused} to an unsigned request").into());
    }
    Ok(format!(
        "{LENGTH} bytes from offset {FIRST}, the same as in the file, for {signed} signed request\n\
         {:11}(the same read straight from S3, unsigned: {refused})",
        ""
    ))
}

/// One ranged GET on a connection of its own: the status and the body.
fn read(url: &str, target: &str, range: &str) -> Result<(u16, Vec<u8>), Box<dyn Error>> {
    let host = url.strip_prefix("http://").ok_or("not a plain URL")?;
    let mut stream = TcpStream::connect(host)?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nRange: {range}\r\n")?;
    write!(stream, "Connection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").ok_or("half a response")?;
    let status = response.get(9..12).and_then(|digits| str::from_utf8(digits).ok());
    let status = status.and_then(|digits| digits.parse().ok()).ok_or("not an HTTP response")?;
    Ok((status, response.split_off(end + 4)))
}

fn print_commands(url: &str) {
    println!(
        "
Paste into another terminal:

  curl -r 0-65535 -o part.bgz {url}/files/{LARGE}
  samtools view {url}/files/{LARGE} {REGION_OF_INTEREST}
  samtools idxstats {url}/files/{LARGE}

In IGV, with any genome that has a chr1 (hg38, hg19): File > Load from URL ...

  {url}/files/{LARGE}
  then go to {REGION_OF_INTEREST}

Ctrl-C stops the demo."
    );
}
