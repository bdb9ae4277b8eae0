"""Medians, targets, tables and files."""

import json
import statistics
import sys

from lib import plot, readme

MIB = 1024 * 1024
FIGURES = [
    # field, heading, format
    ("requests_per_s", "requests/s", lambda v: f"{v:,.0f}"),
    ("mb_per_s", "MB/s", lambda v: f"{v:,.1f}"),
    ("cpu_us_per_request", "CPU µs/request", lambda v: f"{v:,.1f}"),
    ("cpu_us_per_mib", "CPU µs/MiB", lambda v: f"{v:,.0f}"),
    ("cores", "cores used", lambda v: f"{v:.2f}"),
    ("p50_us", "p50 µs", lambda v: f"{v:,.0f}"),
    ("p99_us", "p99 µs", lambda v: f"{v:,.0f}"),
    ("p99.9_us", "p99.9 µs", lambda v: f"{v:,.0f}"),
    ("rss_peak_bytes", "peak RSS MiB", lambda v: f"{v / MIB:,.1f}"),
    ("origin_bytes_per_delivered", "origin bytes per byte", lambda v: f"{v:.2f}"),
    ("rss_bytes_per_connection", "bytes per connection", lambda v: f"{v:,.0f}"),
    ("rss_growth", "RSS at the end / middle", lambda v: f"{v:.2f}"),
    ("foreign_share", "noise", lambda v: f"{v:.0%}"),
]
# Above this share of the proxy's core for others, a run says that it was disturbed.
QUIET = 0.05
# The targets of the project: workload, figure, what, limit, and against whom (None: an absolute
# limit in the figure's own unit).
TARGETS = [
    ("range-4k-c32", "cpu_us_per_request", "4 KiB, CPU per request", 0.85, "nginx"),
    ("range-4k-c32", "cpu_us_per_request", "4 KiB, CPU per request", 0.7, "haproxy"),
    ("range-64k-c32", "cpu_us_per_request", "64 KiB, CPU per request", 0.8, "nginx"),
    ("range-64k-c32", "cpu_us_per_request", "64 KiB, CPU per request", 0.6, "haproxy"),
    ("range-1m-c32", "cpu_us_per_mib", "1 MiB, CPU per MiB", 0.6, "nginx"),
    ("range-1m-c32", "cpu_us_per_mib", "1 MiB, CPU per MiB", 0.95, "haproxy"),
    ("range-16m-c32", "cpu_us_per_mib", "16 MiB, CPU per MiB", 0.5, "nginx"),
    ("range-16m-c32", "cpu_us_per_mib", "16 MiB, CPU per MiB", 0.75, "haproxy"),
    ("head-c32", "cpu_us_per_request", "HEAD hit, CPU per request", 0.7, "nginx-static"),
    ("range-4k-c1", "added_p50_us", "4 KiB, one connection, p50 over the origin's", 1.0, "nginx"),
    ("slow-c1000", "rss_peak_bytes", "1,000 slow readers, peak RSS", 32 * MIB, None),
    ("slow-c1000", "rss_growth", "1,000 slow readers, RSS at the end / middle", 1.05, None),
    ("idle-c2000", "rss_bytes_per_connection", "idle connection, our memory", 4096, None),
    ("abort-c32", "origin_bytes_per_delivered", "aborted, origin bytes per byte", 4.0, None),
    ("abort-c32", "origin_bytes_per_delivered", "aborted, origin bytes per byte", 1.0, "haproxy"),
]
FORMATS = {name: form for name, _, form in FIGURES} | {"added_p50_us": lambda v: f"{v:,.0f}"}


def medians(measurements):
    """workload → contender → figure → (median, least, greatest)."""
    found = {}
    for each in measurements:
        place = found.setdefault(each["workload"], {}).setdefault(each["contender"], {})
        for name, value in each["figures"].items():
            if isinstance(value, (int, float)):
                place.setdefault(name, []).append(value)
    summary = {workload: {contender: {
        name: (statistics.median(values), min(values), max(values))
        for name, values in figures.items()} for contender, figures in contenders.items()}
        for workload, contenders in found.items()}
    for contenders in summary.values():
        direct = contenders.get("origin", {}).get("p50_us")
        for figures in contenders.values():
            if direct and "p50_us" in figures:
                figures["added_p50_us"] = tuple(v - direct[0] for v in figures["p50_us"])
    return summary


def commits(measurements):
    """workload → the commit that it was measured at, `-dirty` if the tree had other changes."""
    found = {}
    for each in measurements:
        name = f"{each['commit']}{'-dirty' if each['dirty'] else ''}"
        found.setdefault(each["workload"], set()).add(name)
    return {workload: ", ".join(sorted(names)) for workload, names in found.items()}


def targets(summary, commits):
    """Each target with what was measured: met, MISSED or not measured."""
    rows = []
    for workload, figure, what, limit, other in TARGETS:
        contenders = summary.get(workload, {})
        ours = contenders.get("s3proxy", {}).get(figure, (None,))[0]
        theirs = contenders.get(other, {}).get(figure, (None,))[0] if other else 1
        row = {"what": what, "workload": workload, "figure": figure, "limit": limit,
               "against": other, "ours": ours, "theirs": theirs if other else None,
               "ratio": None, "verdict": "not measured", "commit": commits.get(workload, "–")}
        if ours is not None and theirs is not None and theirs > 0:
            row["ratio"] = ours / theirs if other else ours / limit
            row["verdict"] = "met" if ours <= limit * theirs else "MISSED"
        rows.append(row)
    return rows


def noise(summary):
    """The greatest median share of the proxy's core that others took, over all workloads."""
    return max((figures["foreign_share"][0] for contenders in summary.values()
                for figures in contenders.values() if "foreign_share" in figures), default=0)


def targets_table(rows):
    lines = ["| target | ours | limit | ratio | verdict | commit |",
             "|---|---:|---:|---:|---|---|"]
    for row in rows:
        form = FORMATS[row["figure"]]
        ours = "–" if row["ours"] is None else form(row["ours"])
        if row["against"]:
            theirs = "–" if row["theirs"] is None else form(row["theirs"])
            limit = f"{row['limit']:g} × {row['against']} ({theirs})"
        else:
            limit = form(row["limit"])
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        verdict = f"**{row['verdict']}**" if row["verdict"] == "MISSED" else row["verdict"]
        lines.append(f"| {row['what']} | {ours} | {limit} | {ratio} | {verdict} | "
                     f"{row['commit']} |")
    return "\n".join(lines)


def workload_table(workload, contenders, figures_of, skipped):
    present = [(name, heading, form) for name, heading, form in FIGURES
               if any(name in figures for figures in figures_of.values())]
    lines = ["| | " + " | ".join(heading for _, heading, _ in present) + " |",
             "|---|" + "---:|" * len(present)]
    for contender in contenders:
        figures = figures_of.get(contender.name)
        if figures:
            cells = [_cell(figures.get(name), form) for name, _, form in present]
            lines.append(f"| {contender.title} | " + " | ".join(cells) + " |")
    for contender in contenders:
        reason = skipped.get((workload.name, contender.name)) or skipped.get((None, contender.name))
        if reason and contender.name in workload.who:
            lines += ["", f"{contender.title}: not measured, {reason}."]
    return "\n".join(lines)


def _cell(figure, form):
    if figure is None:
        return "–"
    median, least, greatest = figure
    # A spread of less than a tenth is left out.
    wide = median > 0 and (greatest - least) / median > 0.1
    return f"{form(median)} ({form(least)}–{form(greatest)})" if wide else form(median)


def write(directory, about, workloads, contenders, measurements, skipped):
    """Writes all files of a run; returns the table of targets."""
    directory.mkdir(parents=True, exist_ok=True)
    summary, measured_at = medians(measurements), commits(measurements)
    rows = targets(summary, measured_at)
    reasons = [{"workload": w, "contender": c, "reason": r} for (w, c), r in skipped.items()]
    (directory / "results.json").write_text(json.dumps(
        {"about": about, "targets": rows, "skipped": reasons, "measurements": measurements},
        indent=1, ensure_ascii=False) + "\n")
    table = targets_table(rows)
    if noise(summary) > QUIET:
        table += (f"\n\nThe machine was not quiet: others took up to {noise(summary):.0%} of the "
                  "proxy's core, so these verdicts are provisional.")
    parts = ["# Results", "", _about(about), "", "## Targets", "",
             "A ratio against a program is ours divided by theirs; against a bound, ours divided "
             "by the bound.", "", table]
    for workload in workloads:
        figures_of = summary.get(workload.name, {})
        parts += ["", f"## {workload.title}, {workload.connections:,} connections "
                  f"(`{workload.name}`)", "", f"Commit {measured_at.get(workload.name, '–')}.", "",
                  workload_table(workload, contenders, figures_of, skipped)]
    (directory / "results.md").write_text("\n".join(parts) + "\n")
    for old in directory.glob("*.svg"):
        old.unlink()
    plot.write_all(directory, summary, contenders, about)
    return table


def write_readme(measurements):
    readme.write(medians(measurements), commits(measurements))


def rewrite(directory, workloads, contenders):
    """Writes tables, plots and README's table of the recorded measurements again."""
    about, skipped, measurements = read(directory)
    table = write(directory, about, workloads, contenders, measurements, skipped)
    write_readme(measurements)
    return table


def replace(directory, about, workloads, contenders, measurements, skipped):
    """Puts the workloads that were measured again in place of the recorded ones."""
    recorded_about, recorded_skipped, recorded = read(directory)
    for name in ("processor", "kernel", "hosts"):
        if about[name] != recorded_about[name]:
            sys.exit(f"not written: {name} is {about[name]}, the recorded results are of "
                     f"{recorded_about[name]}")
    again = {each["workload"] for each in measurements}
    measurements = [m for m in recorded if m["workload"] not in again] + measurements
    skipped = {k: v for k, v in recorded_skipped.items() if k[0] not in again} | skipped
    table = write(directory, recorded_about, workloads, contenders, measurements, skipped)
    write_readme(measurements)
    return table


def read(directory):
    """The description of a run, its skipped pairs and its measurements, as recorded."""
    recorded = json.loads((directory / "results.json").read_text())
    skipped = {(each["workload"], each["contender"]): each["reason"]
               for each in recorded["skipped"]}
    return recorded["about"], skipped, recorded["measurements"]


def _about(about):
    lines = []
    for name, value in about.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        elif isinstance(value, list):
            value = " ".join(value)
        lines.append(f"- {name}: {value}")
    return "\n".join(lines)
