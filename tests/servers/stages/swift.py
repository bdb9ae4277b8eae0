"""OpenStack Swift (Debian) with its S3 API: the four servers of a cluster, each with one replica
of everything in the stage's directory."""

from stages.stage import REGION, access, free_port, url

# Swift is installed for the system's own Python, whatever else is called python3.
PYTHON = "/usr/bin/python3"

ACCOUNT, USER, PASSWORD = "lab", "s3proxy", "fixture+secret/of=swift"

STORAGE_CONF = """
[DEFAULT]
swift_dir = {directory}
devices = {directory}/devices
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
workers = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY_CONF = """
[DEFAULT]
swift_dir = {directory}
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
workers = 0
[pipeline:main]
pipeline = catch_errors gatekeeper cache s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
# Required, but nobody listens there: a cache that never has anything.
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{name} = {password} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""

# The programs of the packages swift-proxy and so on, without their system services.
RUN_SERVER = """
import sys
from swift.common import utils
conf, directory, section = sys.argv[1:]
utils.set_swift_dir(directory)
from swift.common.wsgi import run_wsgi
more = {}
if section == 'object-server':
    from swift.obj.server import global_conf_callback
    more['global_conf_callback'] = global_conf_callback
sys.exit(run_wsgi(conf, section, **more))
"""

BUILD_RING = """
import sys
from swift.common.ring import RingBuilder
directory, kind, port = sys.argv[1:]
builder = RingBuilder(4, 1, 0)
builder.add_dev({'id': 0, 'region': 1, 'zone': 1, 'weight': 1.0, 'device': 'd1',
    'ip': '127.0.0.1', 'port': int(port), 'replication_ip': '127.0.0.1',
    'replication_port': int(port)})
builder.rebalance()
builder.get_ring().save(f'{directory}/{kind}.ring.gz')
"""


def start(stage):
    directory = stage.directory
    stage.write("swift.conf", "[swift-hash]\nswift_hash_path_suffix = s3proxy\n"
                "[storage-policy:0]\nname = one\ndefault = yes\n")
    (directory / "devices" / "d1").mkdir(parents=True)
    for kind in ("account", "container", "object"):
        port = free_port()
        stage.run("swift", [PYTHON, "-c", BUILD_RING, directory, kind, port])
        conf = stage.write(f"{kind}.conf", STORAGE_CONF.format(
            directory=directory, kind=kind, port=port, user=stage.user))
        serve(stage, conf, f"{kind}-server")
        stage.await_response(url(port))
    port = free_port()
    conf = stage.write("proxy.conf", PROXY_CONF.format(
        directory=directory, port=port, user=stage.user, region=REGION, account=ACCOUNT,
        name=USER, password=PASSWORD))
    serve(stage, conf, "proxy-server")
    stage.await_response(url(port))
    return access(url(port), f"{ACCOUNT}:{USER}", PASSWORD)


def serve(stage, conf, section):
    stage.spawn(section, [PYTHON, "-c", RUN_SERVER, conf, stage.directory, section])
