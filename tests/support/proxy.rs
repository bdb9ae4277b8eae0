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
    /// Its name in the configuration and in the start-up line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// A configuration file under construction: each key with its value as YAML.
#[derive(Clone)]
pub(crate) struct Config {
    entries: Vec<(String, String)>,
}

impl Config {
    /// [`BUCKET`] under `/files/` on one worker, so that all requests share one cache.
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

    /// Sets a key, replacing its earlier value.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Config {
        self.entries.retain(|(known, _)| known != key);
        self.entries.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Removes a key.
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
    /// The start-up line that names the driver of the workers.
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

    /// Its log so far.
    pub(crate) fn stderr(&self) -> String {
        self.running.stderr.text()
    }

    /// Its working directory.
    pub(crate) fn directory(&self) -> PathBuf {
        self.running.directory.path().to_owned()
    }

    /// The path of a file in that directory, also if it is on a mount in the program's own
    /// namespace.
    pub(crate) fn path_in_its_mounts(&self, name: &str) -> PathBuf {
        let (pid, path) = (self.running.child.id(), self.directory().join(name));
        PathBuf::from(format!("/proc/{pid}/root{}", path.display()))
    }

    pub(crate) fn fd_count(&self) -> usize {
        self.fds().len()
    }

    /// Number of open sockets. Unlike pipes, which are pooled, they must not outlive their
    /// connection.
    pub(crate) fn socket_count(&self) -> usize {
        self.fds().iter().filter(|fd| fd.starts_with("socket:")).count()
    }

    /// The target of each open file descriptor (`proc_pid_fd(5)`): `socket:[1234]`, a path, ….
    pub(crate) fn fds(&self) -> Vec<String> {
        let path = format!("/proc/{}/fd", self.running.child.id());
        let entries = fs::read_dir(path).expect("a running process").flatten();
        // One may have been closed meanwhile.
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.map(|target| target.display().to_string()).collect()
    }

    pub(crate) fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.running.child.id());
        let status = fs::read_to_string(path).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("VmRSS in kB");
        kib.parse::<u64>().expect("a number") * 1024
    }

    /// Sends SIGTERM, as an init system does.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits until it has exited and its output is complete, then returns the exit code.
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

/// Prints the proxy's log if the test fails.
impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- log of the proxy\n{}---", self.stderr());
        }
    }
}
