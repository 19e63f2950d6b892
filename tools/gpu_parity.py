"""The recorded generations with backend cuda: tokens as recorded, logits as backend cpu computes them.

    python tools/gpu_parity.py --windlass target/release/windlass --goldens tests/goldens/huginn-tiny
"""

import argparse
import json
import pathlib
import subprocess
import sys

# Relative to the largest logit of a row.
LOGITS_TOLERANCE = 1e-4
# Below this lead of the most likely token another may be taken.
MARGIN = 1e-3


def policy(kv):
    """The reference's name in Windlass' words: it counts layers, of which the core has four."""
    prefix = "latest-m4-compress-s"
    return f"ring:{int(kv.removeprefix(prefix)) // 4}" if kv.startswith(prefix) else "full"


def generate(windlass, goldens, case, backend):
    command = [windlass, "generate", "--backend", backend, "--model", goldens, "--kv", policy(case["kv"])]
    command += ["--token-ids", ",".join(map(str, case["prompt"])), "--depth", f"fixed:{case['num_steps']}"]
    command += ["--max-tokens", str(len(case["tokens"])), "--init-scale", "0", "--logits"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} ended with {ended.returncode}")
    return [json.loads(line) for line in ended.stdout.splitlines()]


def largest_difference(tokens, others):
    differences = [0.0]
    for token, other in zip(tokens, others):
        scale = max(map(abs, other["logits"]))
        differences += [abs(a - b) / scale for a, b in zip(token["logits"], other["logits"])]
        if token["token"] != other["token"]:
            break
    return max(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windlass", required=True)
    parser.add_argument("--goldens", required=True)
    parser.add_argument("--every", type=int, default=3, help="of the recorded cases run each so many-th")
    arguments = parser.parse_args()
    text = (pathlib.Path(arguments.goldens) / "cases.json").read_text().replace("NaN", "null")
    cases = [case for case in json.loads(text)["cases"] if case["kind"] == "generate"][:: arguments.every]
    wrong = 0
    for case in cases:
        tokens = generate(arguments.windlass, arguments.goldens, case, "cuda")
        difference = largest_difference(tokens, generate(arguments.windlass, arguments.goldens, case, "cpu"))
        same = [token["token"] for token in tokens] == case["tokens"]
        passed = difference <= LOGITS_TOLERANCE and (same or case["min_top1_margin"] < MARGIN)
        wrong += not passed
        result = {"case": case["key"], "same_tokens": same, "largest_difference": difference, "passed": passed}
        print(json.dumps(result))
    if wrong or not cases:
        sys.exit(f"{wrong} of {len(cases)} cases differ")


main()
