"""Three hosts on one machine: network namespaces, pinned processes, and the kernel's counters
of them.

As root: the client, the proxy and the origin each in a network namespace of their own, every two
joined by a veth pair, so that packets cross a device and not the loopback shortcut. Otherwise:
everything on 127.0.0.1, which the results note. Only processes that were started here are ended.
"""

import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

CLIENT, PROXY, ORIGIN = "client", "proxy", "origin"
# Each pair of hosts, and the first three bytes of its network; the first host is .1, the other .2.
LINKS = [(CLIENT, PROXY, "10.91.1"), (PROXY, ORIGIN, "10.91.2"), (CLIENT, ORIGIN, "10.91.3")]
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """Something cannot be measured here, with the reason."""


class Network:
    """The hosts. `address(a, b)` is the one at which host `a` reaches host `b`."""

    def __init__(self):
        self.isolated = os.geteuid() == 0 and _succeeds(["ip", "netns", "list"])
        self.prefix = f"s3pb{os.getpid()}"
        self.processes = []
        self.congestion_control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        cores = sorted(os.sched_getaffinity(0))
        # The proxy has a core to itself; with only two, load and origin share the other.
        self.cores = {PROXY: cores[0], ORIGIN: cores[-1], CLIENT: cores[1 % len(cores)]}
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if self.isolated:
            self._remove_leftovers()
            try:
                self._create()
            except subprocess.CalledProcessError as error:
                self.remove_namespaces()
                self.isolated = False
                print(f"no network namespaces ({error.stderr.strip()}), using loopback")

    def address(self, source, destination):
        if not self.isolated:
            return "127.0.0.1"
        for a, b, network in LINKS:
            if {a, b} == {source, destination}:
                return f"{network}.{1 if destination == a else 2}"
        raise KeyError((source, destination))

    def device(self, host, other):
        """The name, inside `host`, of the device that leads to `other`."""
        return f"to-{other}"

    def spawn(self, host, command, log, environment=None, stdout=None):
        """Starts a process on a host's core, in a process group of its own."""
        return self._start(self.command(host, command), log, environment, stdout)

    def command(self, host, command):
        command = ["taskset", "-c", str(self.cores[host])] + [str(part) for part in command]
        if self.isolated:
            command = ["ip", "netns", "exec", f"{self.prefix}-{host}"] + command
        return command

    def _start(self, command, log, environment, stdout):
        with open(log, "ab") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout or stderr, stderr=stderr,
                env={**_plain_environment(), **(environment or {})}, start_new_session=True)
        self.processes.append(process)
        return process

    def run(self, host, command, timeout):
        """Runs a process to its end and returns its standard output."""
        process = subprocess.Popen(
            self.command(host, command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=_plain_environment(), start_new_session=True)
        self.processes.append(process)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[0]} did not end within {timeout:.0f} s") from None
        finally:
            self.stop(process)
        if process.returncode != 0:
            raise Unavailable(f"{os.path.basename(str(command[0]))} failed: {(err or out).strip()[-300:]}")
        return out

    def stop(self, process):
        """Ends a process and the group it leads."""
        for number, patience in [(signal.SIGTERM, 2), (signal.SIGKILL, 5)]:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass
            try:
                process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        # Children that outlived their leader are still in its group.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if process in self.processes:
            self.processes.remove(process)

    def close(self):
        for process in list(self.processes):
            self.stop(process)
        self.remove_namespaces()

    def _create(self):
        for host in (CLIENT, PROXY, ORIGIN):
            _ip("netns", "add", f"{self.prefix}-{host}")
            _ip("-n", f"{self.prefix}-{host}", "link", "set", "lo", "up")
            self._end_pacing(host)
            # One contender's closed connections must not leave the next one without ports.
            _succeeds(["ip", "netns", "exec", f"{self.prefix}-{host}", "sysctl", "-qw",
                       "net.ipv4.tcp_tw_reuse=1"])
        for a, b, network in LINKS:
            _ip("link", "add", "name", f"to-{b}", "netns", f"{self.prefix}-{a}", "type", "veth",
                "peer", "name", f"to-{a}", "netns", f"{self.prefix}-{b}")
            for host, other, number in [(a, b, 1), (b, a, 2)]:
                namespace = f"{self.prefix}-{host}"
                _ip("-n", namespace, "addr", "add", f"{network}.{number}/24", "dev", f"to-{other}")
                _ip("-n", namespace, "link", "set", f"to-{other}", "up")

    def _end_pacing(self, host):
        """The kernel's default congestion control, or Reno where that is not allowed: BBR, which
        some machines have instead, sets a timer per packet, and that would be measured."""
        for name in ("cubic", "reno"):
            if _succeeds(["ip", "netns", "exec", f"{self.prefix}-{host}", "sysctl", "-qw",
                          f"net.ipv4.tcp_congestion_control={name}"]):
                self.congestion_control = name
                return

    def remove_namespaces(self):
        if self.isolated:
            for host in (CLIENT, PROXY, ORIGIN):
                _succeeds(["ip", "netns", "del", f"{self.prefix}-{host}"])

    def _remove_leftovers(self):
        """Namespaces of a run that was killed before it could clean up."""
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
        for name, pid in re.findall(r"^(s3pb(\d+)-\w+)", names, re.MULTILINE):
            if not os.path.exists(f"/proc/{pid}"):
                _succeeds(["ip", "netns", "del", name])


def _plain_environment():
    """Our environment without the variables that would configure a contender."""
    foreign = ("AWS_", "S3PROXY_", "RCLONE_", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _succeeds(command):
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def wait_until_it_listens(pid, port, process, patience_seconds=15):
    """Waits for a listening socket on `port` in the network namespace of `pid`."""
    deadline = time.monotonic() + patience_seconds
    listening = re.compile(rf":{port:04X} [0-9A-F]+:0000 0A ")
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"it ended at once with code {process.returncode}")
        try:
            with open(f"/proc/{pid}/net/tcp") as table, open(f"/proc/{pid}/net/tcp6") as table6:
                if listening.search(table.read() + table6.read()):
                    return
        except (FileNotFoundError, ProcessLookupError):
            pass
        time.sleep(0.02)
    raise Unavailable(f"it did not listen within {patience_seconds} s")


def tree(root):
    """The process ids of `root` and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(entry)
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def _stat(pid):
    """The fields of /proc/PID/stat from the state on; None for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_us(pids):
    """User and system time of processes with all their threads, kernel workers on their behalf
    (io_uring's) and reaped children included."""
    fields = [fields for fields in map(_stat, pids) if fields]
    return sum(sum(map(int, field[11:15])) for field in fields) * TICK_US


def core_busy_us(core):
    """Time that a core was not idle, whoever used it; interrupts included, stolen time too."""
    with open("/proc/stat") as file:
        for line in file:
            if line.startswith(f"cpu{core} "):
                times = list(map(int, line.split()[1:9]))
                return (sum(times) - times[3] - times[4]) * TICK_US
    return 0


def rss_bytes(pids, field="VmRSS"):
    """Sum of a memory field of /proc/PID/status; `VmHWM` is the peak of VmRSS."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as file:
                found = re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.MULTILINE)
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(found.group(1)) * 1024 if found else 0
    return total


def sent_bytes(pid, device):
    """Bytes that a device of the network namespace of `pid` has sent, with packet headers."""
    with open(f"/proc/{pid}/net/dev") as file:
        for line in file:
            name, _, counters = line.partition(":")
            if name.strip() == device:
                return int(counters.split()[8])
    raise Unavailable(f"no device {device}")
