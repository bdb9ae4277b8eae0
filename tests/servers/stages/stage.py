"""Common to all servers: a directory, free ports, processes that are ended, and patience."""

import getpass
import os
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Where `tests/servers/install` puts servers that are not Debian packages.
HOME = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "s3-servers"

PATIENCE_SECONDS = 60
REGION = "us-east-1"


class ServerFailed(Exception):
    """The server does not start or has ended; the message says why and what to do."""


class Stage:
    """A directory and the processes in it. Leaving the `with` block ends and removes both."""

    def __enter__(self):
        HOME.mkdir(parents=True, exist_ok=True)
        # Beside the build, not in /tmp: Swift needs extended attributes, which not every tmpfs has.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="stage-", dir=HOME))
        self.processes = []
        self.user = getpass.getuser()
        return self

    def __exit__(self, *_):
        for _, process in self.processes:
            process.terminate()
        for _, process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def write(self, name, text):
        """Writes a file into the directory and returns its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def spawn(self, name, command, **environment):
        """Starts a process, its output in NAME.log."""
        log = open(self.directory / f"{name}.log", "wb")
        try:
            process = subprocess.Popen(
                [str(part) for part in command], cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=os.environ | environment)
        except OSError as error:
            raise ServerFailed(f"{error}; './tests/servers/install {name}' installs it") from error
        self.processes.append((name, process))

    def run(self, name, command):
        """Runs a command to its end and returns its output."""
        try:
            done = subprocess.run(
                [str(part) for part in command], cwd=self.directory, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerFailed(f"{error}; './tests/servers/install {name}' installs it") from error
        if done.returncode != 0:
            raise ServerFailed(f"{command} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def await_response(self, url, tls=None):
        """Waits until a server sends any HTTP response at this URL."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.check_processes()
            try:
                urllib.request.urlopen(url, timeout=5, context=tls).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ServerFailed(f"no response from {url}: {error}") from error
                time.sleep(0.05)

    def check_processes(self):
        """Fails when one of the processes has ended by itself."""
        for name, process in self.processes:
            if process.poll() is not None:
                log = (self.directory / f"{name}.log").read_text(errors="replace")
                raise ServerFailed(f"{name} ended with {process.returncode}:\n{log[:2000]}")


def free_port():
    """A port that nobody has now, outside the range from which the kernel gives out ports, so
    that nobody gets it before the server does."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def url(port):
    """Where a server without TLS is."""
    return f"http://127.0.0.1:{port}"


def access(endpoint, access_key, secret_key):
    """How to reach the server."""
    return {"endpoint": endpoint, "access_key": access_key, "secret_key": secret_key}
