//! The proxy as a process, listening on a free port, and its configuration.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use rustix::process::Signal;

use super::PATIENCE;
use super::memory_store::{BUCKET, TestS3};
pub(crate) use super::process::{Process, Running};
use super::s3_server::{ACCESS_KEY, REGION, SECRET_KEY};

/// The event loop that a test configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    /// As the configuration and the start-up line call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// A configuration file in the making. Each key holds its value as YAML.
#[derive(Clone)]
pub(crate) struct Config {
    entries: Vec<(String, String)>,
}

impl Config {
    /// [`BUCKET`] behind `/files/` on one worker, so that all requests share one cache.
    pub(crate) fn new(driver: Driver, endpoint: &str) -> Config {
        Config { entries: Vec::new() }
            .set("listen", "127.0.0.1:0")
            .set("workers", "1")
            .set("driver", driver.name())
            .set("bucket_name", BUCKET)
            .set("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .set("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .set("region", REGION)
            .set("endpoint", endpoint)
            .set("addressing", "path")
    }

    /// The same over a [`TestS3`].
    pub(crate) fn over(driver: Driver, s3: &TestS3) -> Config {
        Config::new(driver, &s3.server.endpoint())
    }

    /// Sets a key, in place of its earlier value if it had one.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Config {
        self.entries.retain(|(known, _)| known != key);
        self.entries.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a key out.
    pub(crate) fn without(mut self, key: &str) -> Config {
        self.entries.retain(|(known, _)| known != key);
        self
    }

    /// The file's text.
    pub(crate) fn yaml(&self) -> String {
        self.entries.iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
    }

    /// Starts the program and waits until it listens.
    pub(crate) fn start(&self) -> Proxy {
        Proxy::start(Process::with_config(&self.yaml()))
    }
}

/// Starts the program over `s3` with the settings of most tests.
pub(crate) fn proxy_over(driver: Driver, s3: &TestS3) -> Proxy {
    Config::over(driver, s3).start()
}

/// The program, listening.
pub(crate) struct Proxy {
    running: Running,
    /// `http://127.0.0.1:41234` or `unix:/…`, as printed.
    pub(crate) url: String,
    /// The line that says which driver the workers got.
    pub(crate) driver_line: String,
}

impl Proxy {
    /// Starts `process` and reads its start-up lines.
    pub(crate) fn start(process: Process) -> Proxy {
        let mut running = process.spawn();
        let mut lines = running.first_lines(2).into_iter();
        let first = lines.next().expect("two lines");
        let url = first.strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("the first line is {first:?}")).to_owned();
        Proxy { running, url, driver_line: lines.next().expect("two lines") }
    }

    /// Where it listens on TCP.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.url.strip_prefix("http://").expect("a TCP listener");
        address.parse().expect("an address with the real port")
    }

    /// The URL of a target such as `/files/a.bam`.
    pub(crate) fn url_of(&self, target: &str) -> String {
        format!("{}{target}", self.url)
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        self.running.stderr.text()
    }

    /// The directory it runs in.
    pub(crate) fn directory(&self) -> PathBuf {
        self.running.directory.path().to_owned()
    }

    /// Where a file of that directory is found, even if it is on a mount of the program's own.
    pub(crate) fn path_in_its_mounts(&self, name: &str) -> PathBuf {
        let (pid, path) = (self.running.child.id(), self.directory().join(name));
        PathBuf::from(format!("/proc/{pid}/root{}", path.display()))
    }

    /// Open file descriptors.
    pub(crate) fn fd_count(&self) -> usize {
        self.fds().len()
    }

    /// Open sockets. Pipes come and go with the bodies that need them; sockets must not outlive their
    /// connection.
    pub(crate) fn socket_count(&self) -> usize {
        self.fds().iter().filter(|fd| fd.starts_with("socket:")).count()
    }

    /// What each open file descriptor is, as `proc_pid_fd(5)` shows it: `socket:[1234]`, a path, ….
    pub(crate) fn fds(&self) -> Vec<String> {
        let path = format!("/proc/{}/fd", self.running.child.id());
        let entries = fs::read_dir(path).expect("a running process").flatten();
        // One that was closed meanwhile does not count.
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.map(|target| target.display().to_string()).collect()
    }

    /// Resident memory.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.running.child.id());
        let status = fs::read_to_string(path).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("VmRSS in kB");
        kib.parse::<u64>().expect("a number") * 1024
    }

    /// Asks it to end, as an init system does.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits for its end and its last words, then returns the exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let status = self.running.wait();
        self.running.stderr.join();
        status.code()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.running.child.try_wait().expect("a child of ours").is_none()
    }

    /// A new connection to it.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("a listening proxy");
        stream.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a connected socket");
        stream.set_nodelay(true).expect("a connected socket");
        stream
    }
}

/// When a test fails, what the proxy had to say is the first thing one wants to read.
impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- log of the proxy\n{}---", self.stderr());
        }
    }
}
