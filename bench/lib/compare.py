"""Compares a quick run with a recorded one, as ratios to a program measured in the same run: they
hold on other machines too, where absolute times do not."""

import json
import statistics
from pathlib import Path

RECORDED = Path(__file__).resolve().parent.parent / "results" / "quick.json"
# Workload, figure, and the programs that ours is divided by.
RATIOS = [
    ("head-c32", "cpu_us_per_request", ["nginx-static", "haproxy"]),
    ("range-4k-c32", "cpu_us_per_request", ["nginx", "haproxy"]),
    ("range-1m-c32", "cpu_us_per_mib", ["nginx", "haproxy"]),
    ("abort-c32", "origin_bytes_per_delivered", ["nginx", "haproxy"]),
    ("signed-4k-c32", "cpu_us_per_request", ["nginx-njs"]),
]
OURS = ["s3proxy", "s3proxy-epoll"]
# A ratio is worse when all rounds are, and the median by more than this share.
NOISE = 0.1


def ratios(measurements):
    """`workload figure: ours / theirs` → the ratio of each round."""
    figures = {(m["workload"], m["contender"], m["round"]): m["figures"] for m in measurements}
    rounds = sorted({round_ for _, _, round_ in figures})
    found = {}
    for workload, figure, others in RATIOS:
        for ours in OURS:
            for theirs in others:
                pairs = [(figures.get((workload, ours, r), {}).get(figure),
                          figures.get((workload, theirs, r), {}).get(figure)) for r in rounds]
                values = [a / b for a, b in pairs if a is not None and b]
                if values:
                    found[f"{workload} {figure}: {ours} / {theirs}"] = values
    return found


def record(measurements, about):
    commits = sorted({f"{m['commit']}{'-dirty' if m['dirty'] else ''}" for m in measurements})
    names = ("date", "processor", "kernel", "hosts", "rounds", "seconds of each")
    rounded = {name: [round(v, 3) for v in values] for name, values in ratios(measurements).items()}
    RECORDED.write_text(json.dumps(
        {"commit": ", ".join(commits), "about": {name: about[name] for name in names},
         "ratios": rounded}, indent=1, ensure_ascii=False) + "\n")


def report(measurements):
    """The text that says which ratios are worse or better than the recorded ones."""
    if not RECORDED.exists():
        return "no recorded quick run to compare with"
    recorded = json.loads(RECORDED.read_text())
    now = ratios(measurements)
    worse, better, compared = [], [], 0
    for name, before in recorded["ratios"].items():
        if name not in now:
            continue
        compared += 1
        old, new = statistics.median(before), statistics.median(now[name])
        line = f"  {name}: {new:.2f}, was {old:.2f} ({new / old - 1:+.0%})"
        if min(now[name]) > max(before) and new > old * (1 + NOISE):
            worse.append(line)
        elif max(now[name]) < min(before) and new < old * (1 - NOISE):
            better.append(line)
    return "\n".join([
        f"{compared} ratios compared with those recorded for commit {recorded['commit']}:",
        *(["worse by more than noise (a report, not a failure):", *worse] if worse
          else ["none is worse by more than noise"]),
        *(["better by more than noise:", *better] if better else []),
    ])
