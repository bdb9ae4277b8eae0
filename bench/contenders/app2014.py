"""The design of 2014: Flask and boto (boto3 here), the body streamed through Python, sizes of
objects remembered for five minutes. Its limits are kept: only `bytes=a-b` is understood."""

import os
import re
import time

import boto3
import botocore.config
import botocore.exceptions
from flask import Flask, Response, abort, request

BUCKET = "files"
REMEMBERED_SECONDS = 300
CHUNK_BYTES = 64 * 1024

app = Flask(__name__)
known = {}
s3 = boto3.client(
    "s3", endpoint_url=os.environ["S3_ENDPOINT"], region_name="us-east-1",
    aws_access_key_id=os.environ["S3_ACCESS_KEY"],
    aws_secret_access_key=os.environ["S3_SECRET_KEY"],
    config=botocore.config.Config(max_pool_connections=64, s3={"addressing_style": "path"}))


def size_of(key):
    size, asked = known.get(key, (0, -REMEMBERED_SECONDS))
    if time.monotonic() - asked >= REMEMBERED_SECONDS:
        try:
            size = s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"]
        except botocore.exceptions.ClientError:
            abort(404)
        known[key] = size, time.monotonic()
    return size


@app.route("/files/<path:key>", methods=["GET", "HEAD"])
def files(key):
    size = size_of(key)
    if request.method == "HEAD":
        return Response(headers={"Content-Length": size})
    value = request.headers.get("Range")
    if value is None:
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"]
        return Response(body.iter_chunks(CHUNK_BYTES), headers={"Content-Length": size})
    first, last = map(int, re.match(r"bytes=(\d+)-(\d+)$", value).groups())
    body = s3.get_object(Bucket=BUCKET, Key=key, Range=value)["Body"]
    return Response(body.iter_chunks(CHUNK_BYTES), 206, headers={
        "Content-Length": last - first + 1, "Content-Range": f"bytes {first}-{last}/{size}"})
