//! The real program as a process of its own, on a port that it chose itself.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use super::memory_store::{BUCKET, TestS3};
use super::s3_server::{ACCESS_KEY, REGION, SECRET_KEY};
use super::{PATIENCE, eventually};

/// The event loop that a test asks the program for.
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
    /// [`BUCKET`] behind `/files/` on one worker, so that what one request taught is known to the
    /// next one.
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

/// The program with its arguments, not started yet.
pub(crate) struct Process {
    command: Command,
    directory: TempDir,
}

impl Process {
    /// `s3proxy` with these arguments, in an empty directory and without environment.
    pub(crate) fn new(arguments: &[&str]) -> Process {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_s3proxy"));
        command.args(arguments).env_clear().current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Process { command, directory }
    }

    /// `s3proxy -c FILE` with this text in the file.
    pub(crate) fn with_config(yaml: &str) -> Process {
        let mut process = Process::new(&["-c", "test.yaml"]);
        process.write("test.yaml", yaml);
        process
    }

    /// The path that a file in the program's directory has.
    pub(crate) fn path_of(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Puts a file into the directory that the program runs in.
    pub(crate) fn write(&mut self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.directory.path().join(name), content).expect("a file in a new directory");
    }

    /// One more argument.
    pub(crate) fn argument(mut self, argument: &str) -> Process {
        self.command.arg(argument);
        self
    }

    /// One environment variable.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Process {
        self.command.env(name, value);
        self
    }

    /// Runs `hook` in the child between `fork` and `exec`.
    #[allow(unsafe_code, reason = "std has no safe way to limit a child's system calls")]
    pub(crate) fn before_exec(
        mut self,
        hook: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Process {
        // SAFETY: the hooks of this suite only make system calls on memory that was prepared
        // before the fork; they take no lock and allocate nothing.
        unsafe { self.command.pre_exec(hook) };
        self
    }

    /// Has the file of this name in the program's directory be its `/etc/resolv.conf`, which needs
    /// root.
    pub(crate) fn with_resolv_conf(self, name: &str) -> Process {
        let path = self.directory.path().join(name);
        self.before_exec(move || {
            unshare_mounts()?;
            Ok(mount_bind(&path, "/etc/resolv.conf")?)
        })
    }

    /// Has the program's directory hold a file system of this name with room for 64 KiB, which
    /// needs root.
    pub(crate) fn with_small_disk(self, name: &str) -> Process {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).expect("a free name");
        self.before_exec(move || {
            unshare_mounts()?;
            Ok(mount("none", &path, "tmpfs", MountFlags::empty(), Some(c"size=64k"))?)
        })
    }

    /// Has its standard output go elsewhere; it is not collected then.
    pub(crate) fn stdout_to(mut self, stdout: impl Into<Stdio>) -> Process {
        self.command.stdout(stdout);
        self
    }

    /// The same for its standard error.
    pub(crate) fn stderr_to(mut self, stderr: impl Into<Stdio>) -> Process {
        self.command.stderr(stderr);
        self
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> Running {
        let mut child = self.command.spawn().expect("the program starts");
        let stdout = child.stdout.take().map(Collected::of).unwrap_or_default();
        let stderr = child.stderr.take().map(Collected::of).unwrap_or_default();
        Running { child, stdout, stderr, directory: self.directory }
    }

    /// Runs it to its end: exit code, standard output, standard error.
    pub(crate) fn run(self) -> Finished {
        let mut running = self.spawn();
        let status = running.wait();
        running.stdout.join();
        running.stderr.join();
        Finished {
            code: status.code().expect("the program was not killed"),
            stdout: running.stdout.text(),
            stderr: running.stderr.text(),
        }
    }
}

/// Gives the process mounts of its own, so that nobody else's files are changed.
#[allow(unsafe_code, reason = "rustix marks all of unshare(2) so for one flag of it")]
fn unshare_mounts() -> std::io::Result<()> {
    // SAFETY: only the unsharing of descriptors may harm, which is not asked for.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process that is killed by its own id at the latest when this is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Collected,
    stderr: Collected,
    directory: TempDir,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a running process");
    }

    /// Waits for the end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.expect("was awaited")
    }

    /// The first `count` lines of standard output, as soon as they are there.
    fn first_lines(&mut self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.stdout.text();
            if text.matches('\n').count() >= count {
                return text.lines().take(count).map(str::to_owned).collect();
            }
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the program did not start ({ended:?}).\nstdout:\n{text}\nstderr:\n{}",
                self.stderr.text()
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago, which is no reason to fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

    /// What each open file descriptor is, as proc_pid_fd(5) tells it: `socket:[1234]`, a path, ….
    pub(crate) fn fds(&self) -> Vec<String> {
        let path = format!("/proc/{}/fd", self.running.child.id());
        let entries = fs::read_dir(path).expect("a running process").flatten();
        // One that was closed meanwhile is none.
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

/// The text that a stream brings, collected on a thread so that the writer never waits.
#[derive(Default)]
struct Collected {
    text: Arc<Mutex<String>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Collected {
    fn of(stream: impl Read + Send + 'static) -> Collected {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let thread = std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
        });
        Collected { text, thread: Some(thread) }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the stream's end.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the collector does not panic");
        }
    }
}
