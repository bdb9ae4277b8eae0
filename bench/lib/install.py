"""Finds and installs the programs that a run needs, and reports missing ones."""

import os
import shutil
import subprocess
from pathlib import Path

from lib.contenders import NJS_MODULE

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = {"nginx": "nginx", "njs": "libnginx-mod-http-js", "haproxy": "haproxy",
            "rclone": "rclone", "wrk": "wrk", "curl": "curl", "ip": "iproute2",
            "taskset": "util-linux", "openssl": "openssl"}
PYTHON_PACKAGES = ["flask", "boto3", "gunicorn"]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "s3proxy-bench"


def tools(install, profile):
    """The tools: name → path, or `why not NAME` → the reason."""
    found = {}
    missing = [name for name in PACKAGES if not _find(name)]
    if missing and install:
        _apt([PACKAGES[name] for name in missing])
    for name in PACKAGES:
        found[name] = _find(name)
    found["oha"] = _oha(install)
    found["venv"] = _venv(install)
    found.update(_build(profile))
    for name in list(found):
        if not found[name]:
            found[f"why not {name}"] = f"{name} could not be installed here" if install else \
                f"{name} is missing, and --quick installs nothing"
            print(f"missing: {found[f'why not {name}']}")
    return found


def _find(name):
    if name == "njs":
        return NJS_MODULE if os.path.exists(NJS_MODULE) else None
    return shutil.which(name)


def _apt(packages):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"to measure everything: apt-get install {' '.join(packages)}")
        return
    print(f"installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment)
    # One by one: a missing package must not keep out the others.
    for package in packages:
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
                       env=environment, stdout=subprocess.DEVNULL)


def _oha(install):
    path = shutil.which("oha") or CACHE / "cargo" / "bin" / "oha"
    if not os.path.exists(path) and install:
        print("installing oha (cargo install, some minutes)")
        subprocess.run(["cargo", "install", "--quiet", "--locked", "--root", CACHE / "cargo", "oha"])
    return path if os.path.exists(path) else None


def _venv(install):
    path = CACHE / "venv"
    if not (path / "bin" / "gunicorn").exists() and install:
        print(f"installing {', '.join(PYTHON_PACKAGES)}")
        subprocess.run(["python3", "-m", "venv", path])
        subprocess.run([path / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
                        *PYTHON_PACKAGES])
    return path if (path / "bin" / "gunicorn").exists() else None


def _build(profile):
    """Builds the proxy, the load generator and the signature-checking origin."""
    print(f"building s3proxy ({profile})")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    output = target / ("debug" if profile == "dev" else profile)
    subprocess.run(["cargo", "build", "--quiet", "--profile", profile, "--bin", "s3proxy",
                    "--example", "bench-load", "--example", "bench-s3-origin"], cwd=ROOT, check=True)
    return {"s3proxy": output / "s3proxy", "load": output / "examples" / "bench-load",
            "s3-origin": output / "examples" / "bench-s3-origin"}


def versions(found):
    """Versions as the programs print them."""
    said = {}
    for name, command in {
        "s3proxy": [found["s3proxy"], "--version"], "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"], "rclone": ["rclone", "version"], "wrk": ["wrk", "-v"],
        "oha": [found["oha"], "--version"], "rustc": ["rustc", "--version"],
    }.items():
        if name in found and not found[name]:
            continue
        run = subprocess.run(command, capture_output=True, text=True)
        said[name] = (run.stdout + run.stderr).strip().splitlines()[0].strip()
    if found["njs"]:
        run = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", PACKAGES["njs"]],
                             capture_output=True, text=True)
        said["njs"] = run.stdout or "unknown"
    if found["venv"]:
        freeze = subprocess.run([found["venv"] / "bin" / "pip", "freeze"], capture_output=True, text=True)
        wanted = [line for line in freeze.stdout.splitlines()
                  if line.lower().split("==")[0] in PYTHON_PACKAGES]
        said["2014 design"] = ", ".join(wanted)
    return said


def commit():
    """The commit that is measured, and whether anything but recorded results differs from it."""
    def git(*arguments):
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return run.stdout.strip()
    changes = git("status", "--porcelain", "--", ".", ":!bench/results")
    return {"commit": git("rev-parse", "--short=7", "HEAD") or "unknown", "dirty": bool(changes)}
