"""The programs that are compared: how each is configured and started.

Each has one worker or process on the proxy's core, no access log, and keeps its connections to the
origin open. The bucket is called `files`, so that `/files/KEY` is the same path on both sides and
needs no rewriting. Configurations are the files in `bench/contenders/`.
"""

import os
import subprocess
from pathlib import Path

from lib import hosts
from lib.hosts import CLIENT, ORIGIN, PROXY, Unavailable

HERE = Path(__file__).resolve().parent.parent / "contenders"
PORT = 5000
ORIGIN_PORT = 9000
SIGNED_ORIGIN_PORT = 9001
TLS_ORIGIN_PORT = 9443
NJS_MODULE = "/usr/lib/nginx/modules/ngx_http_js_module.so"
LIST = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>files</Name><Prefix></Prefix>
<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}
</ListBucketResult>"""
CONTENTS = ("<Contents><Key>{key}</Key><LastModified>2024-02-29T12:30:45.000Z</LastModified>"
            "<ETag>&quot;0&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>")


class Setting:
    """The surroundings of contenders: the hosts, the data, the tools and a scratch directory."""

    def __init__(self, network, data, directory, tools):
        self.network, self.data, self.directory, self.tools = network, data, directory, tools
        # Replaced by those that the signature-checking server prints when it starts.
        self.access_key, self.secret_key = "AKIDEXAMPLE", "secret"
        self.origins = {}

    def render(self, template, origin=ORIGIN_PORT, address="", port=PORT, more=""):
        """Fills in a configuration file; returns the path of the result."""
        secure = origin == TLS_ORIGIN_PORT
        values = {
            "SCHEME": "https" if secure else "http", "TLS_PORT": TLS_ORIGIN_PORT,
            "TLS": f"ssl verify required verifyhost origin ca-file {self.directory}/ca.crt"
            if secure else "",
            "DIR": self.directory, "DATA": self.data, "HERE": HERE, "NJS_MODULE": NJS_MODULE,
            "USER": f"user root;" if os.geteuid() == 0 else "", "ADDRESS": address, "PORT": port,
            "ORIGIN": self.endpoint(origin), "MORE": more, "ACCESS_KEY": self.access_key,
            "SECRET_KEY": self.secret_key,
        }
        text = (HERE / template).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        path = Path(self.directory) / template
        path.write_text(text)
        return path

    def endpoint(self, port):
        return f"{self.network.address(PROXY, ORIGIN)}:{port}"

    def log(self, name):
        return Path(self.directory) / f"{name}.log"

    def credentials(self, port):
        return {"S3_ENDPOINT": f"http://{self.endpoint(port)}", "S3_HOST": self.endpoint(port),
                "S3_ACCESS_KEY": self.access_key, "S3_SECRET_KEY": self.secret_key}


def start_origins(setting):
    """nginx over a tmpfs, and the signature-checking server over the same files."""
    network = setting.network
    address = "0.0.0.0" if network.isolated else "127.0.0.1"
    objects = sorted((setting.data / "files").iterdir())
    contents = "".join(CONTENTS.format(key=o.name, size=o.stat().st_size) for o in objects)
    (Path(setting.directory) / "list.xml").write_text(
        LIST.format(count=len(objects), contents=contents))
    setting.render("nginx-common.conf")
    _write_certificates(setting)
    config = setting.render("origin.conf", address=address, port=ORIGIN_PORT)
    plain = network.spawn(ORIGIN, ["nginx", "-c", config, "-e", setting.log("origin")],
                          setting.log("origin"))
    hosts.wait_until_it_listens(plain.pid, ORIGIN_PORT, plain)
    setting.origins[ORIGIN_PORT] = setting.origins[TLS_ORIGIN_PORT] = plain
    if setting.tools.get("s3-origin"):
        signed = network.spawn(
            ORIGIN, [setting.tools["s3-origin"], f"{address}:{SIGNED_ORIGIN_PORT}", setting.data],
            setting.log("s3-origin"), stdout=subprocess.PIPE)
        setting.access_key, setting.secret_key = signed.stdout.readline().decode().split()
        hosts.wait_until_it_listens(signed.pid, SIGNED_ORIGIN_PORT, signed)
        setting.origins[SIGNED_ORIGIN_PORT] = signed


def _write_certificates(setting):
    """An authority, and the origin's certificate from it."""
    names = f"subjectAltName=DNS:origin,IP:{setting.network.address(PROXY, ORIGIN)}"
    new = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt",
           "ec_paramgen_curve:P-256"]
    for more in (["-subj", "/CN=bench", "-keyout", "ca.key", "-out", "ca.crt"],
                 ["-subj", "/CN=origin", "-keyout", "origin.key", "-out", "origin.crt",
                  "-CA", "ca.crt", "-CAkey", "ca.key", "-addext", names,
                  "-addext", "basicConstraints=critical,CA:FALSE"]):
        subprocess.run(new + more, cwd=setting.directory, check=True, capture_output=True)


class Contender:
    """One program. `signs` tells whether it can read from a private bucket."""

    def __init__(self, name, title, signs, needs, command, environment=None):
        self.name, self.title, self.signs, self.needs = name, title, signs, needs
        self._command, self._environment = command, environment

    def missing(self, tools):
        """The reason why it cannot take part here, or None."""
        for need in self.needs:
            if not tools.get(need):
                return tools.get(f"why not {need}", f"{need} is not installed")
        return None

    def start(self, setting, origin):
        """Starts it; returns the process once it listens."""
        address = setting.network.address(CLIENT, PROXY)
        command = self._command(setting, address, origin)
        environment = self._environment(setting, origin) if self._environment else None
        log = setting.log(self.name)
        process = setting.network.spawn(PROXY, command, log, environment)
        try:
            hosts.wait_until_it_listens(process.pid, PORT, process)
        except Unavailable as problem:
            setting.network.stop(process)
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Unavailable(f"{problem}: {' '.join(last)}"[:300]) from None
        return process

    def address(self, network):
        return f"{network.address(CLIENT, PROXY)}:{PORT}"


class Direct(Contender):
    """No proxy: the client connects to the origin."""

    def start(self, setting, origin):
        return setting.origins[origin]

    def address(self, network):
        return f"{network.address(CLIENT, ORIGIN)}:{ORIGIN_PORT}"


def _s3proxy(driver, more=""):
    def command(setting, address, origin):
        config = setting.render("s3proxy.yaml", origin, address, more=f"driver: {driver}\n{more}")
        check = subprocess.run([setting.tools["s3proxy"], "--check", "-c", config],
                               capture_output=True, text=True, timeout=60)
        if check.returncode == 78:
            complaint = (check.stderr + check.stdout).strip().replace(str(config), "config")
            raise Unavailable(f"this s3proxy refuses its configuration: {complaint}"[:300])
        return [setting.tools["s3proxy"], "-c", config]
    return command


def _nginx(template):
    def command(setting, address, origin):
        config = setting.render(template, origin, address)
        return ["nginx", "-c", config, "-e", setting.log("nginx")]
    return command


def _haproxy(setting, address, origin):
    return ["haproxy", "-db", "-f", setting.render("haproxy.cfg", origin, address)]


def _rclone(setting, address, origin):
    return ["rclone", "serve", "http", ":s3:files", "--config", "", "--read-only", "--no-modtime",
            "--addr", f"{address}:{PORT}", "--baseurl", "/files", "--dir-cache-time", "1h",
            "--s3-provider", "Minio", "--s3-endpoint", f"http://{setting.endpoint(origin)}",
            "--s3-access-key-id", setting.access_key, "--s3-secret-access-key", setting.secret_key,
            "--s3-region", "us-east-1"]


def _flask(setting, address, origin):
    # Threads, because a plain worker of gunicorn closes each connection after one response.
    return [setting.tools["venv"] / "bin" / "gunicorn", "--chdir", HERE, "--bind",
            f"{address}:{PORT}", "--workers", "1", "--worker-class", "gthread", "--threads", "32",
            "--keep-alive", "600", "--backlog", "4096", "--log-level", "warning", "app2014:app"]


def all_contenders():
    signing = Setting.credentials
    return [
        Contender("s3proxy", "s3proxy", True, ["s3proxy"], _s3proxy("io_uring")),
        Contender("s3proxy-epoll", "s3proxy, epoll", True, ["s3proxy"], _s3proxy("epoll")),
        Contender("s3proxy-copy", "s3proxy, splice off", True, ["s3proxy"],
                  _s3proxy("io_uring", "splice: off\n")),
        Contender("nginx", "nginx, unsigned", False, ["nginx"], _nginx("nginx.conf")),
        Contender("haproxy", "HAProxy splicing, unsigned", False, ["haproxy"], _haproxy),
        Contender("nginx-njs", "nginx signing with njs", True, ["nginx", "njs"],
                  _nginx("nginx-njs.conf"), signing),
        Contender("rclone", "rclone serve http", True, ["rclone"], _rclone),
        Contender("flask", "2014 design (Flask, boto3)", True, ["venv"], _flask, signing),
        Contender("nginx-static", "nginx, a file of its own", False, ["nginx"],
                  _nginx("nginx-static.conf")),
        Direct("origin", "no proxy", False, ["nginx"], None),
    ]
