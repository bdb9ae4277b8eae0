//! The program as a child process: its files, arguments and environment, its output, its end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use super::{PATIENCE, eventually};

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

    /// The path of a file in the program's directory.
    pub(crate) fn path_of(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Writes a file into the program's working directory.
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
        // before the fork; they neither take locks nor allocate.
        unsafe { self.command.pre_exec(hook) };
        self
    }

    /// Mounts the file of this name in the program's directory as its `/etc/resolv.conf`. Needs
    /// root.
    pub(crate) fn with_resolv_conf(self, name: &str) -> Process {
        let path = self.directory.path().join(name);
        self.before_exec(move || {
            unshare_mounts()?;
            Ok(mount_bind(&path, "/etc/resolv.conf")?)
        })
    }

    /// Mounts a file system with room for 64 KiB at this name in the program's directory. Needs
    /// root.
    pub(crate) fn with_small_disk(self, name: &str) -> Process {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).expect("a free name");
        self.before_exec(move || {
            unshare_mounts()?;
            Ok(mount("none", &path, "tmpfs", MountFlags::empty(), Some(c"size=64k"))?)
        })
    }

    /// Redirects its standard output, which is then not collected.
    pub(crate) fn stdout_to(mut self, stdout: impl Into<Stdio>) -> Process {
        self.command.stdout(stdout);
        self
    }

    /// Redirects its standard error, which is then not collected.
    pub(crate) fn stderr_to(mut self, stderr: impl Into<Stdio>) -> Process {
        self.command.stderr(stderr);
        self
    }

    pub(crate) fn spawn(mut self) -> Running {
        let mut child = self.command.spawn().expect("the program starts");
        let stdout = child.stdout.take().map(Collected::of).unwrap_or_default();
        let stderr = child.stderr.take().map(Collected::of).unwrap_or_default();
        Running { child, stdout, stderr, directory: self.directory }
    }

    /// Runs it to its end.
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

/// Gives the process a mount namespace of its own, so that its mounts are invisible outside.
#[allow(unsafe_code, reason = "rustix marks all of unshare(2) so for one flag of it")]
fn unshare_mounts() -> std::io::Result<()> {
    // SAFETY: only unsharing the descriptor table would be unsafe, which is not requested.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running process; dropping it kills it.
pub(crate) struct Running {
    pub(super) child: Child,
    stdout: Collected,
    pub(super) stderr: Collected,
    pub(super) directory: TempDir,
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a running process");
    }

    /// Waits until the program exits.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.expect("was awaited")
    }

    /// Waits for the first `count` lines of standard output.
    pub(super) fn first_lines(&mut self, count: usize) -> Vec<String> {
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
        // It may have ended already, which is not an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of a stream, collected on a thread so that the writer never blocks.
#[derive(Default)]
pub(super) struct Collected {
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

    pub(super) fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end of the stream.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the collector does not panic");
        }
    }
}
