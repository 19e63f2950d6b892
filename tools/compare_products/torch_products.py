"""PyTorch's matrix products, at the sizes and in the form of `compare-products`.

Prints one JSON object a line. Two contestants:
- torch: `torch.nn.functional.linear` in eager mode, which is MKL for f32 and oneDNN for bf16;
- torch-packed: the same with the weight packed once into oneDNN's layout for this number of rows, which is what
  PyTorch's compiler does when it freezes a model (for information: no program that calls `linear` gets it).

Run it under the number of threads it is told; `tools/compare.sh` does.
"""

import argparse
import json
import os
import time

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--sizes", default="1024x1024,3072x1024,5632x1024,1024x2816,8192x1024,17920x5280")
parser.add_argument("--rows", default="1,2,4,8,16,64,256")
parser.add_argument("--types", default="f32,bf16")
parser.add_argument("--weights", choices=["many", "one"], default="many")
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--json", help="file the lines are appended to; standard output without it")
arguments = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(arguments.threads)

import torch  # noqa: E402  (reads the variables above)

MANY_BYTES = 64 << 20
ROUND_SECONDS = 0.006
BUDGET_SECONDS = 0.6
FEWEST_ROUNDS = 3
KINDS = {"f32": torch.float32, "bf16": torch.bfloat16}


def eager(x, weights):
    return lambda copy: torch.nn.functional.linear(x, weights[copy])


def packed(x, weights):
    pack = torch.ops.mkldnn._reorder_linear_weight
    weights = [pack(weight, x.shape[0]) for weight in weights]
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda copy: linear(x, weights[copy], None, "none", [], "")


def measure(run, copies, rounds):
    """Median and least seconds of one product."""
    probe = min(timed(run, range(i, i + 1), copies) for i in range(6))
    products = max(1, int(ROUND_SECONDS / probe))
    rounds = max(FEWEST_ROUNDS, min(rounds, int(BUDGET_SECONDS / max(probe, ROUND_SECONDS))))
    seconds = []
    for i in range(rounds):
        first = i * products
        warm_up = max(copies, -(-products // 4))
        timed(run, range(first, first + warm_up), copies)
        first += warm_up
        seconds.append(timed(run, range(first, first + products), copies) / products)
    seconds.sort()
    return seconds[len(seconds) // 2], seconds[0], rounds


def timed(run, calls, copies):
    start = time.perf_counter()
    for call in calls:
        run(call % copies)
    return time.perf_counter() - start


def main():
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    lines = []
    rows_of = [int(rows) for rows in arguments.rows.split(",")]
    for kind in arguments.types.split(","):
        for size in arguments.sizes.split(","):
            outputs, inputs = map(int, size.split("x"))
            bytes_ = outputs * inputs * KINDS[kind].itemsize
            copies = -(-MANY_BYTES // bytes_) if arguments.weights == "many" else 1
            weight = (torch.rand(outputs, inputs) * 2 - 1).to(KINDS[kind])
            weights = [weight.clone() for _ in range(copies)]
            x = (torch.rand(max(rows_of), inputs) * 2 - 1).to(KINDS[kind])
            for rows in rows_of:
                for name, prepare in [("torch", eager), ("torch-packed", packed)]:
                    key = {"threads": arguments.threads, "kind": kind, "outputs": outputs, "inputs": inputs}
                    line = key | {"copies": copies, "rows": rows, "contestant": name}
                    try:
                        run = prepare(x[:rows].contiguous(), weights)
                        expected = x[:rows].double() @ weight.double().T
                        error = (run(0).double() - expected).norm() / expected.norm()
                        assert error < 1e-2, f"relative error {error}"
                        seconds, best, rounds = measure(run, copies, arguments.rounds)
                        operations = 2 * rows * outputs * inputs
                        line |= {
                            "detail": f"PyTorch {torch.__version__}, oneDNN and MKL inside",
                            "rounds": rounds,
                            "seconds": seconds,
                            "seconds_best": best,
                            "gops": operations / seconds / 1e9,
                            "weight_gb_per_second": bytes_ / seconds / 1e9,
                        }
                    except (RuntimeError, AttributeError) as error:
                        line["error"] = str(error).splitlines()[0][:200]
                    lines.append(json.dumps(line))
    text = "\n".join(lines) + "\n"
    if arguments.json:
        with open(arguments.json, "a", encoding="utf-8") as file:
            file.write(text)
    else:
        print(text, end="")


with torch.inference_mode():
    main()
