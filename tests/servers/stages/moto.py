"""moto's server (PyPI), with its IAM switched on: without it, moto takes any signature."""

import re
import urllib.parse
import urllib.request

from stages.stage import HOME, access, free_port

POLICY = """{"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}"""

# Until IAM is on, moto reads nothing but the service out of this.
UNCHECKED = ("AWS4-HMAC-SHA256 Credential=anyone/20240229/us-east-1/iam/aws4_request, "
             "SignedHeaders=host, Signature=none")


def start(stage):
    port = free_port()
    stage.spawn("moto", [HOME / "moto" / "bin" / "moto_server", "-p", port])
    stage.await_answer(port)
    server = f"http://127.0.0.1:{port}"

    def iam(**form):
        form |= {"Version": "2010-05-08", "UserName": "s3proxy"}
        return post(f"{server}/", urllib.parse.urlencode(form), {"Authorization": UNCHECKED})

    iam(Action="CreateUser")
    iam(Action="PutUserPolicy", PolicyName="s3", PolicyDocument=POLICY)
    key = iam(Action="CreateAccessKey")
    # "0 more requests without a signature" (moto's documentation, "IAM-like access control").
    post(f"{server}/moto-api/reset-auth", "0", {"Content-Type": "text/plain"})

    def element(name):
        return re.search(f"<{name}>(.*?)</{name}>", key).group(1)

    return access(port, element("AccessKeyId"), element("SecretAccessKey"))


def post(url, body, headers):
    request = urllib.request.Request(url, body.encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()
