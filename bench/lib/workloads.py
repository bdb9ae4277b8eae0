"""What clients do: lists of requests, and the load generators that send them.

A list is a file with a request per line, `METHOD PATH RANGE LENGTH`. It is made from a fixed seed,
so it is the same for all contenders and rounds.
"""

import json
import random
from dataclasses import dataclass, field

from lib import contenders
from lib.hosts import CLIENT, Unavailable

KIB, MIB = 1024, 1024 * 1024
OBJECTS, OBJECT_BYTES, INDEX_BYTES, SMALL_BYTES = 4, 96 * MIB, 2 * MIB, 64 * KIB
# A block whose length is prime, repeated, so that a wrong offset shows.
BLOCK_BYTES = 1_048_573
LIST_REQUESTS = 1024
# With more wrong responses than this share there is no figure.
WRONG_SHARE = 0.001
PROXIES = ["s3proxy", "s3proxy-epoll", "s3proxy-copy", "nginx", "haproxy"]
SIGNING = ["s3proxy", "s3proxy-epoll", "s3proxy-copy", "nginx-njs", "rclone", "flask"]
SECURE = ["s3proxy", "s3proxy-epoll", "nginx", "haproxy"]
ALL = PROXIES + ["nginx-njs", "rclone", "flask", "origin"]


@dataclass
class Workload:
    name: str
    title: str
    connections: int
    requests: callable
    # The contenders' names.
    who: list
    generator: str = "wrk"
    arguments: list = field(default_factory=list)
    origin: int = contenders.ORIGIN_PORT
    # Times the length of a measurement.
    longer: float = 1
    # None: as many as all; else no more rounds than this.
    rounds: int = None
    warm: bool = True


def write_data(directory):
    """Objects and an index, as the origin serves them."""
    block = random.Random(7).randbytes(BLOCK_BYTES)
    bucket = directory / "files"
    bucket.mkdir()
    for number in range(OBJECTS):
        for key, size in [(_key(number), OBJECT_BYTES), (_key(number) + ".bai", INDEX_BYTES),
                          (_key(number) + ".tbi", SMALL_BYTES)]:
            with open(bucket / key, "wb") as file:
                for _ in range(size // BLOCK_BYTES):
                    file.write(block)
                file.write(block[:size % BLOCK_BYTES])


def _key(number):
    return f"sample{number}.bam"


def _path(number):
    return f"/files/{_key(number)}"


def _heads(chance):
    return [f"HEAD {_path(n % OBJECTS)} - {OBJECT_BYTES}" for n in range(OBJECTS)]


def _range(chance, length):
    first = chance.randrange(OBJECT_BYTES - length)
    return f"GET {_path(chance.randrange(OBJECTS))} {first}-{first + length - 1} {length}"


def _index_ranges(length):
    """Ranges of the small objects: the origin that checks signatures also hashes the whole object
    for each response, which takes it a third of a second for a large one."""
    suffix, size = (".tbi", SMALL_BYTES) if length < SMALL_BYTES else (".bai", INDEX_BYTES)

    def lines(chance):
        firsts = [chance.randrange(size - length) for _ in range(LIST_REQUESTS)]
        return [f"GET {_path(chance.randrange(OBJECTS))}{suffix} {first}-{first + length - 1} {length}"
                for first in firsts]
    return lines


def _ranges(length):
    return lambda chance: [_range(chance, length) for _ in range(LIST_REQUESTS)]


def _bam(chance):
    """Sessions as of a genome viewer: HEAD, the whole index, the header, then ranges anywhere.
    Connections take turns, so sessions mix."""
    lines = []
    for session in range(16):
        path = _path(session % OBJECTS)
        lines.append(f"HEAD {path} - {OBJECT_BYTES}")
        lines.append(f"GET {path}.bai - {INDEX_BYTES}")
        lines.append(f"GET {path} 0-65535 65536")
        # As many small as large ones: evenly by the logarithm.
        lines += [_range(chance, int(16 * KIB * 128 ** chance.random())) for _ in range(40)]
    return lines


def _open_ended(chance):
    lines = []
    for _ in range(LIST_REQUESTS):
        first = chance.randrange(OBJECT_BYTES - 32 * MIB)
        lines.append(f"GET {_path(chance.randrange(OBJECTS))} {first}- {OBJECT_BYTES - first}")
    return lines


def _to_the_end(chance):
    return [f"GET {_path(n)} {OBJECT_BYTES - 16 * MIB}- {16 * MIB}" for n in range(OBJECTS)]


def _long(chance):
    return [f"GET {_path(n)} 0-{64 * MIB - 1} {64 * MIB}" for n in range(OBJECTS)]


def all_workloads():
    head_who = PROXIES + ["nginx-njs", "rclone", "flask", "nginx-static", "origin"]
    found = [
        Workload("head-c32", "HEAD, hot", 32, _heads, head_who, "load"),
        Workload("head-c256", "HEAD, hot", 256, _heads, head_who, "load"),
    ]
    for name, title, length, connections in [
        ("4k", "4 KiB ranges", 4 * KIB, [1, 32, 256, 1000]),
        ("64k", "64 KiB ranges", 64 * KIB, [32]),
        ("1m", "1 MiB ranges", MIB, [1, 32, 256]),
        ("16m", "16 MiB ranges", 16 * MIB, [1, 32]),
    ]:
        for count in connections:
            found.append(Workload(f"range-{name}-c{count}", title, count, _ranges(length), ALL))
    found += [
        Workload("bam-c32", "BAM sessions", 32, _bam, ALL, "load"),
        Workload("abort-c32", "`bytes=N-` aborted after 256 KiB", 32, _open_ended, ALL, "load",
                 ["--abort-after", 256 * KIB]),
        Workload("open-16m-c32", "`bytes=N-` of 16 MiB, read to the end", 32, _to_the_end, PROXIES),
        Workload("idle-c2000", "idle connections after one HEAD", 2000, _heads, PROXIES, "load",
                 ["--idle"], rounds=3, warm=False),
        Workload("signed-4k-c32", "4 KiB ranges, origin checks signatures", 32, _index_ranges(4 * KIB),
                 SIGNING, origin=contenders.SIGNED_ORIGIN_PORT),
        Workload("signed-1m-c32", "1 MiB ranges, origin checks signatures", 32, _index_ranges(MIB),
                 SIGNING, origin=contenders.SIGNED_ORIGIN_PORT),
        Workload("tls-4k-c32", "4 KiB ranges, origin over HTTPS", 32, _ranges(4 * KIB),
                 SECURE, origin=contenders.TLS_ORIGIN_PORT),
        Workload("tls-1m-c32", "1 MiB ranges, origin over HTTPS", 32, _ranges(MIB),
                 SECURE, origin=contenders.TLS_ORIGIN_PORT),
        Workload("oha-head-c32", "HEAD, hot, load from oha", 32, _heads,
                 ["s3proxy", "nginx-static"], "oha"),
        Workload("oha-4k-c32", "4 KiB ranges, load from oha", 32, _ranges(4 * KIB),
                 ["s3proxy", "nginx", "haproxy"], "oha"),
        # Last, because the kernel is slow to free the buffers of unread bytes.
        Workload("slow-c1000", "slow readers of 64 MiB at 128 KiB/s", 1000, _long, ALL, "load",
                 ["--slow", 128 * KIB, "--receive-buffer", 128 * KIB], longer=5, rounds=2,
                 warm=False),
    ]
    return found


def send(setting, workload, address, seconds):
    """Sends a workload's requests for so long; returns what the generator counted."""
    lines = workload.requests(random.Random(workload.name))
    path = setting.directory / f"{workload.name}.requests"
    path.write_text("\n".join(lines) + "\n")
    tools, arguments = setting.tools, [str(a) for a in workload.arguments]
    if not tools.get(workload.generator):
        raise Unavailable(tools[f"why not {workload.generator}"])
    if workload.generator == "wrk":
        command = ["wrk", "-t1", "-c", workload.connections, "-d", f"{max(1, round(seconds))}s",
                   "--timeout", "30s", "-s", contenders.HERE / "wrk.lua", f"http://{address}",
                   "--", path]
    elif workload.generator == "load":
        command = [tools["load"], address, path, "--connections", workload.connections,
                   "--seconds", seconds, *arguments]
    else:
        command = _oha(tools, workload, address, seconds, lines[0])
    out = setting.network.run(CLIENT, command, timeout=seconds + 60)
    if workload.generator == "oha":
        counted = _counted_by_oha(json.loads(out))
    else:
        counted = json.loads(out.strip().splitlines()[-1])
    counted["wrong"] = {what: count for what, count in counted["wrong"].items() if count}
    wrong = sum(counted["wrong"].values())
    if wrong > WRONG_SHARE * (counted["requests"] + wrong):
        raise Unavailable(f"{wrong} of {counted['requests'] + wrong} responses were wrong: "
                          + ", ".join(counted["wrong"]))
    return counted


def _oha(tools, workload, address, seconds, line):
    """oha sends one request over and over: the first of the list."""
    method, path, range_, _ = line.split(" ")
    fields = [] if range_ == "-" else ["-H", f"Range: bytes={range_}"]
    return [tools["oha"], "--no-tui", "--output-format", "json", "-z", f"{max(1, round(seconds))}s",
            "-c", workload.connections, "-m", method, *fields, f"http://{address}{path}"]


def _counted_by_oha(said):
    statuses = said["statusCodeDistribution"]
    good = sum(count for status, count in statuses.items() if status in ("200", "206"))
    wrong = {f"status {status}": n for status, n in statuses.items() if status not in ("200", "206")}
    wrong.update(said.get("errorDistribution", {}))
    # Cut off at the end of the measurement, one for each connection.
    wrong.pop("aborted due to deadline", None)
    latencies = said["latencyPercentiles"]
    counted = {f"{p}_us": (latencies[p] or 0) * 1e6 for p in ("p50", "p99", "p99.9")}
    return {"requests": good, "seconds": said["summary"]["total"],
            "bytes": said["summary"]["totalData"], "wrong": wrong, **counted}
