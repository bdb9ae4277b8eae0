"""Garage (crates.io), a cluster of one node."""

from stages.stage import HOME, REGION, access, free_port, url

# Garage wants keys of this shape.
ACCESS_KEY, SECRET_KEY = "GK53" + "0f" * 11, "5ec2e7" * 10 + "5ec2"

CONF = """
metadata_dir = "{directory}/meta"
data_dir = "{directory}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc_port}"
rpc_public_addr = "127.0.0.1:{rpc_port}"
rpc_secret = "{rpc_secret}"
[s3_api]
s3_region = "{region}"
api_bind_addr = "127.0.0.1:{port}"
"""


def start(stage):
    port = free_port()
    conf = stage.write("garage.toml", CONF.format(
        directory=stage.directory, rpc_port=free_port(), rpc_secret="0" * 64, region=REGION,
        port=port))
    stage.spawn(
        "garage",
        [HOME / "garage" / "bin" / "garage", "-c", conf, "server", "--single-node",
         "--default-access-key"],
        GARAGE_DEFAULT_ACCESS_KEY=ACCESS_KEY, GARAGE_DEFAULT_SECRET_KEY=SECRET_KEY)
    stage.await_response(url(port))
    return access(url(port), ACCESS_KEY, SECRET_KEY)
