"""One measurement: a fresh process, a warm-up, then the load, between two readings of the kernel's
counters."""

import statistics
import subprocess
import threading
import time

from lib import hosts, workloads
from lib.hosts import CLIENT, ORIGIN, PROXY, Unavailable

WARM_UP_SECONDS = 0.4
SAMPLE_SECONDS = 0.1
MIB = 1024 * 1024


class MemorySampler(threading.Thread):
    """Samples the resident memory of a process tree."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.samples, self._over = pids, [], threading.Event()

    def run(self):
        while True:
            self.samples.append(hosts.rss_bytes(self.pids))
            if self._over.wait(SAMPLE_SECONDS):
                return

    def finish(self):
        self._over.set()
        self.join()
        return self.samples


def measure(setting, contender, workload, seconds):
    """The figures of one contender under one workload; raises Unavailable with the reason."""
    network = setting.network
    process = contender.start(setting, workload.origin)
    is_direct = process in setting.origins.values()
    try:
        address = contender.address(network)
        if workload.warm:
            workloads.send(setting, workload, address, WARM_UP_SECONDS)
        pids = [] if is_direct else hosts.tree(process.pid)
        origin = setting.origins[workload.origin].pid
        before, started = _counters(network, pids, origin), time.monotonic()
        rss_before, sampler = hosts.rss_bytes(pids), MemorySampler(pids)
        sampler.start()
        counted = workloads.send(setting, workload, address, seconds)
        samples = sampler.finish()
        wall_us = (time.monotonic() - started) * 1e6
        after = _counters(network, pids, origin)
        peak = hosts.rss_bytes(pids, "VmHWM")
    finally:
        if not is_direct:
            network.stop(process)
    spent = {name: after[name] - before[name] for name in before}
    return _figures(workload, counted, spent, wall_us, is_direct, rss_before, samples, peak)


def _counters(network, pids, origin):
    device = network.device(ORIGIN, PROXY)
    counters = {"cpu": hosts.cpu_us(pids), "busy": hosts.core_busy_us(network.cores[PROXY])}
    if network.isolated:
        counters["sent"] = hosts.sent_bytes(origin, device)
    return counters


def _figures(workload, counted, spent, wall_us, is_direct, rss_before, samples, peak):
    requests, size, seconds = counted["requests"], counted["bytes"], counted["seconds"]
    is_head = workload.name.startswith(("head", "oha-head", "idle"))
    if not requests and not workload.name.startswith("slow"):
        raise Unavailable("no response came in time")
    figures = {
        "requests_per_s": requests / seconds,
        "mb_per_s": size / seconds / 1e6,
        "p50_us": counted["p50_us"], "p99_us": counted["p99_us"], "p99.9_us": counted["p99.9_us"],
        "requests": requests, "bytes": size, "wrong": counted["wrong"],
    }
    if is_direct:
        return figures
    figures |= {
        "cpu_us_per_request": spent["cpu"] / requests if requests else None,
        "cpu_us_per_mib": spent["cpu"] / (size / MIB) if size and not is_head else None,
        "cores": spent["cpu"] / wall_us,
        # The share of the proxy's core that other processes used: the noise of the measurement.
        "foreign_share": max(0, spent["busy"] - spent["cpu"]) / wall_us,
        "rss_peak_bytes": max(samples), "rss_peak_of_each_bytes": peak,
    }
    if "sent" in spent and size and not is_head:
        figures["origin_bytes_per_delivered"] = spent["sent"] / size
    if workload.name.startswith("slow"):
        # The last third over the middle one: 1 is flat.
        third = len(samples) // 3 or 1
        figures["rss_growth"] = (statistics.median(samples[-third:])
                                 / max(1, statistics.median(samples[third:2 * third] or samples)))
    if workload.name.startswith("idle"):
        # One request each; not every connection may have been accepted.
        figures["rss_bytes_per_connection"] = (max(samples) - rss_before) / max(1, requests)
    return figures


def preflight(setting, contender, origin):
    """Checks a contender before it is measured: a HEAD, and a range compared with the file."""
    network, first, last = setting.network, 1_500_000, 1_504_095
    process = contender.start(setting, origin)
    try:
        url = f"http://{contender.address(network)}/files/sample1.bam"
        head = network.run(CLIENT, ["curl", "-sSI", "-m", "20", url], 30)
        body = setting.directory / "preflight"
        status = network.run(CLIENT, ["curl", "-sS", "-m", "20", "-r", f"{first}-{last}", "-o", body,
                                      "-w", "%{http_code}", url], 30)
        with open(setting.data / "files" / "sample1.bam", "rb") as file:
            file.seek(first)
            expected = file.read(last - first + 1)
        if f"content-length: {workloads.OBJECT_BYTES}" not in head.lower():
            raise Unavailable(f"its response to HEAD is {head.splitlines()[:1]} and not the size")
        if status != "206" or body.read_bytes() != expected:
            raise Unavailable(f"its response to a range is {status} with bytes that are not the file's")
    finally:
        if process not in setting.origins.values():
            network.stop(process)


def machine():
    """The machine, on which the figures depend besides the programs."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / MIB
    kernel = subprocess.run(["uname", "-srm"], capture_output=True, text=True).stdout.strip()
    return {"processor": names[0] if names else "unknown", "cores": len(names),
            "memory_gib": round(memory, 1), "kernel": kernel}
