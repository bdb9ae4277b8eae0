"""The speed table of README.md, between two marks."""

from pathlib import Path

MIB = 1024 * 1024
README = Path(__file__).resolve().parent.parent.parent / "README.md"
BEGIN, END = "<!-- speed table: written by bench/run -->\n", "<!-- end of speed table -->\n"
COLUMNS = [("s3proxy", "s3proxy, io_uring"), ("s3proxy-epoll", "s3proxy, epoll"),
           ("nginx", "nginx"), ("haproxy", "HAProxy"), ("nginx-njs", "nginx signing with njs")]
# Label, workload, figure, divisor, whether less is better, and the contenders that replace those of
# a column in this row (None: not comparable).
REQUEST, PER_MIB = "cpu_us_per_request", "cpu_us_per_mib"
ROWS = [
    ("HEAD of a cached object; nginx: of a file on its own disk, µs", "head-c32", REQUEST, 1, True,
     {"nginx": "nginx-static", "haproxy": None, "nginx-njs": None}),
    ("HEAD forwarded to the origin, µs", "head-c32", REQUEST, 1, True,
     {"s3proxy": None, "s3proxy-epoll": None}),
    ("4 KiB range, µs", "range-4k-c32", REQUEST, 1, True, {}),
    ("4 KiB range, 1,000 connections, µs", "range-4k-c1000", REQUEST, 1, True, {}),
    ("64 KiB range, µs", "range-64k-c32", REQUEST, 1, True, {}),
    ("1 MiB range, µs", "range-1m-c32", REQUEST, 1, True, {}),
    ("16 MiB range, µs per MiB", "range-16m-c32", PER_MIB, 1, True, {}),
    ("BAM sessions, µs per MiB", "bam-c32", PER_MIB, 1, True, {}),
    ("4 KiB range over HTTPS, µs", "tls-4k-c32", REQUEST, 1, True, {}),
    ("1 MiB range over HTTPS, µs", "tls-1m-c32", REQUEST, 1, True, {}),
    ("`bytes=N-` aborted after 256 KiB: bytes read from the origin per byte delivered", "abort-c32",
     "origin_bytes_per_delivered", 1, True, {}),
    ("`bytes=N-` of 16 MiB read to the end, MB/s", "open-16m-c32", "mb_per_s", 1, False, {}),
    ("1,000 slow readers, peak MiB of memory", "slow-c1000", "rss_peak_bytes", MIB, True, {}),
]


def table(summary, commits):
    """`summary` as of `report.medians`; `commits` says which one each workload was measured at."""
    lines = ["| | " + " | ".join(title for _, title in COLUMNS) + " | commit |",
             "|---|" + "---:|" * len(COLUMNS) + "---|"]
    for label, workload, figure, divisor, less_is_better, instead in ROWS:
        figures = summary.get(workload, {})
        names = [instead.get(name, name) for name, _ in COLUMNS]
        values = [figures.get(name, {}).get(figure, (None,))[0] for name in names]
        values = [value and value / divisor for value in values]
        present = [value for value in values if value is not None]
        best = (min if less_is_better else max)(present, default=None)
        cells = [_cell(value, value == best) for value in values]
        lines.append(f"| {label} | " + " | ".join(cells) + f" | {commits.get(workload, '–')} |")
    return "\n".join(lines) + "\n"


def _cell(value, is_best):
    if value is None:
        return "–"
    text = f"{value:,.0f}" if value >= 20 else f"{value:.1f}"
    return f"**{text}**" if is_best else text


def write(summary, commits):
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + table(summary, commits) + END + after)
