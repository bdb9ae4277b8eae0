"""moto's server (PyPI), with its IAM switched on: without it, moto takes any signature."""

import re
import ssl
import urllib.parse
import urllib.request

from stages.stage import HOME, access, free_port, url

POLICY = """{"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}"""

# Until IAM is on, moto reads nothing but the service out of this.
UNCHECKED = ("AWS4-HMAC-SHA256 Credential=anyone/20240229/us-east-1/iam/aws4_request, "
             "SignedHeaders=host, Signature=none")


def start(stage, authority=None, certificate=None, key_file=None):
    port = free_port()
    command = [HOME / "moto" / "bin" / "moto_server", "-p", port]
    endpoint, tls = url(port), None
    if authority:
        command += ["-c", certificate, "-k", key_file]
        endpoint, tls = f"https://localhost:{port}", ssl.create_default_context(cafile=authority)
    stage.spawn("moto", command)
    stage.await_response(endpoint, tls)

    def post(path, body, headers):
        request = urllib.request.Request(f"{endpoint}{path}", body.encode(), headers)
        with urllib.request.urlopen(request, timeout=30, context=tls) as response:
            return response.read().decode()

    def iam(**form):
        form |= {"Version": "2010-05-08", "UserName": "s3proxy"}
        return post("/", urllib.parse.urlencode(form), {"Authorization": UNCHECKED})

    iam(Action="CreateUser")
    iam(Action="PutUserPolicy", PolicyName="s3", PolicyDocument=POLICY)
    key = iam(Action="CreateAccessKey")
    # "0 more requests without a signature" (moto's documentation, "IAM-like access control").
    post("/moto-api/reset-auth", "0", {"Content-Type": "text/plain"})

    def element(name):
        return re.search(f"<{name}>(.*?)</{name}>", key).group(1)

    return access(endpoint, element("AccessKeyId"), element("SecretAccessKey"))
