"""A job whose input, items, results and output lie at an S3 server: jobs_s3.py WINDLASS WORKER FOLDER."""

import json
import os
import subprocess
import sys
import time

import boto3
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
ITEMS = 100


def main(windlass, worker, folder):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
    )
    s3.create_bucket(Bucket="bucket")
    lines = [json.dumps({"id": f"item {index}", "prompt": f"{index % 10}+1="}) for index in range(ITEMS)]
    s3.put_object(Bucket="bucket", Key="data/in/a.jsonl", Body="\n".join(lines).encode())
    arguments = [windlass, "coordinator", "--workers", worker, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    arguments += ["--jobs-dir", folder, "--jobs-url", "s3://bucket/windlass", "--jobs-uris", "s3://bucket/data"]
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true"}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as coordinator:
        try:
            address = coordinator.stdout.readline().split("grpc://")[1].strip()
            submit(windlass, address)
        finally:
            coordinator.kill()
    output = s3.get_object(Bucket="bucket", Key="data/out.jsonl")["Body"].read().decode().splitlines()
    results = [json.loads(line) for line in output]
    assert [result["id"] for result in results] == [f"item {index}" for index in range(ITEMS)], results
    assert all(result["depths"] == [2] for result in results), results
    kept = s3.list_objects_v2(Bucket="bucket", Prefix="windlass/")["Contents"]
    # Two shards of items, and the results of both.
    assert len(kept) == 4, [entry["Key"] for entry in kept]


def submit(windlass, address):
    """Submits the folder's items and waits; as soon as the coordinator knows its worker."""
    jobs = [windlass, "jobs", "--address", address, "submit", "--input-uri", "s3://bucket/data/in/"]
    jobs += ["--output", "s3://bucket/data/out.jsonl", "--depth", "fixed:2", "--max-tokens", "1", "--wait"]
    deadline = time.monotonic() + 60
    while True:
        submitted = subprocess.run(jobs, capture_output=True, text=True)
        if "no worker" not in submitted.stderr or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert submitted.returncode == 0, submitted.stderr


main(*sys.argv[1:])
