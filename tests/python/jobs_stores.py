"""Jobs whose input, items, results and output lie at servers of object stores: jobs_stores.py WINDLASS WORKER FOLDER.

Google's XML API is S3's but for its names and its sign of who asks, so one server answers for both."""

import json
import os
import subprocess
import sys
import time

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

ITEMS = 100
S3 = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
ANYONE = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}


class WithoutBearer(DomainDispatcherApplication):
    """Takes requests with Google's sign as unsigned ones."""

    def __call__(self, environ, start_response):
        if environ.get("HTTP_AUTHORIZATION", "").startswith("Bearer"):
            del environ["HTTP_AUTHORIZATION"]
        return super().__call__(environ, start_response)


def main(windlass, worker, folder):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    server._server.app.__class__ = WithoutBearer
    google = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    in_order(windlass, worker, folder, endpoint, "s3", {**S3, "AWS_ENDPOINT": endpoint})
    in_order(windlass, worker, folder, endpoint, "gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(google)})


def in_order(windlass, worker, folder, endpoint, scheme, environment):
    """A job at the store of this scheme ends with all results, in order."""
    store = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="id", aws_secret_access_key="secret"
    )
    name = f"{scheme}bucket"
    store.create_bucket(Bucket=name)
    store.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [ANYONE]}))
    lines = [json.dumps({"id": f"item {index}", "prompt": f"{index % 10}+1="}) for index in range(ITEMS)]
    store.put_object(Bucket=name, Key="data/in/a.jsonl", Body="\n".join(lines).encode())
    bucket = f"{scheme}://{name}"
    arguments = [windlass, "coordinator", "--workers", worker, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    arguments += ["--jobs-dir", f"{folder}/{scheme}", "--jobs-url", f"{bucket}/windlass", "--jobs-uris", f"{bucket}/data"]
    environment = {**os.environ, **environment}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as coordinator:
        try:
            address = coordinator.stdout.readline().split("grpc://")[1].strip()
            submit(windlass, address, bucket)
        finally:
            coordinator.kill()
    output = store.get_object(Bucket=name, Key="data/out.jsonl")["Body"].read().decode().splitlines()
    results = [json.loads(line) for line in output]
    assert [result["id"] for result in results] == [f"item {index}" for index in range(ITEMS)], results
    assert all(result["depths"] == [2] for result in results), results
    kept = store.list_objects_v2(Bucket=name, Prefix="windlass/")["Contents"]
    # Two shards of items, and the results of both.
    assert len(kept) == 4, [entry["Key"] for entry in kept]


def submit(windlass, address, bucket):
    """Submits the folder's items and waits; as soon as the coordinator knows its worker."""
    jobs = [windlass, "jobs", "--address", address, "submit", "--input-uri", f"{bucket}/data/in/"]
    jobs += ["--output", f"{bucket}/data/out.jsonl", "--depth", "fixed:2", "--max-tokens", "1", "--wait"]
    deadline = time.monotonic() + 60
    while True:
        submitted = subprocess.run(jobs, capture_output=True, text=True)
        if "no worker" not in submitted.stderr or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert submitted.returncode == 0, submitted.stderr


main(*sys.argv[1:])
