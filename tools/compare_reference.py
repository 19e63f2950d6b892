"""Tokens per second of the model's reference implementation beside Windlass.

The reference is the authors' module `raven_modeling_minimal.py`; none of it is in this repository, so say where your
copy is. Its neighbour `raven_config_minimal.py` is used where it lies beside it; a stand-in reads config.json otherwise.

    python tools/compare_reference.py --reference raven_modeling_minimal.py --windlass target/release/windlass

needs torch, transformers 4.51 and safetensors. What is measured and how: tools/compare_reference.md.

    python tools/compare_reference.py --write FOLDER --shape d=1024,heads=16,ff=2816,layers=2+4+2,vocabulary=8192

only writes a folder with random weights in the published format.
"""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import types

SHAPE = "d=1024,heads=16,ff=2816,layers=2+4+2,vocabulary=8192"
DEMO = pathlib.Path(__file__).resolve().parent.parent / "models" / "demo"
# Logits of two implementations differ by rounding; a choice closer than this may fall either way.
TIE = 1e-3


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=pathlib.Path, help="your copy of raven_modeling_minimal.py")
    parser.add_argument("--windlass", type=pathlib.Path, help="the program; without it only the reference is measured")
    parser.add_argument("--models", default="random,demo", help="random, demo, or folders, separated by commas")
    parser.add_argument("--shape", default=SHAPE, help="of the random model")
    parser.add_argument("--write", type=pathlib.Path, help="write the random model into this folder and stop")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--types", default="f32,bf16")
    parser.add_argument("--ways", default="generate,dynamic,static,compiled")
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=16, help="positions of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each sequence")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="file that one object a line is appended to")
    parser.add_argument("--table", type=pathlib.Path, help="print the table of such a file and stop")
    arguments = parser.parse_args()
    if not arguments.write and not arguments.reference and not arguments.table:
        parser.error("--reference FILE, --write FOLDER or --table FILE is needed")
    return arguments


ARGUMENTS = parse_arguments()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(ARGUMENTS.threads)

import torch  # noqa: E402  (reads the variables above)
from safetensors.torch import load_file, save_file  # noqa: E402

KINDS = {"f32": torch.float32, "bf16": torch.bfloat16}


# ---------------------------------------------------------------------------------------------------------- random model


def write_random_model(folder, shape):
    """A folder with config.json and model.safetensors, as the published model has."""
    values = dict(item.split("=") for item in shape.split(","))
    d, heads, ff, vocabulary = (int(values[key]) for key in ("d", "heads", "ff", "vocabulary"))
    layers = dict(zip(("prelude", "core_block", "coda"), map(int, values["layers"].split("+"))))
    deviation = math.sqrt(2 / (5 * d))
    config = {
        "architectures": ["RavenForCausalLM"],
        "model_type": "huginn_raven",
        "n_embd": d,
        "n_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": ff,
        "vocab_size": vocabulary,
        "padded_vocab_size": vocabulary,
        "padding_multiple": 64,
        "block_size": 1024,
        "n_layers": sum(layers.values()),
        "n_layers_in_prelude": layers["prelude"],
        "n_layers_in_recurrent_block": layers["core_block"],
        "n_layers_in_coda": layers["coda"],
        "mean_recurrence": 32,
        "mean_backprop_depth": 8,
        "qk_bias": True,
        "tie_embeddings": True,
        "bias": False,
        "norm_eps": 1e-6,
        "rope_base": 50000,
        "block_class_name": "SandwichBlock",
        "norm_class_name": "RMSNorm_llama",
        "mlp_class_name": "GatedMLP",
        "nonlin_name": "SiLU",
        "injection_type": "linear",
        "state_init": "like-init",
        "test_time_noise": 0,
        "test_time_noise_type": "fixed",
        "torch_dtype": "float32",
        "init_values": {
            "std": deviation,
            "embedding": deviation,
            "embed_scale": math.sqrt(d),
            "out_proj": deviation / math.sqrt(2 * (4 + 4 * 32)),
        },
    }
    generator = torch.Generator().manual_seed(1)

    def weight(*size):
        return torch.randn(*size, generator=generator) * deviation

    def norm():
        return 1 + torch.randn(d, generator=generator) * 0.1

    tensors = {
        "transformer.wte.weight": weight(vocabulary, d),
        "transformer.adapter.weight": weight(d, 2 * d),
        "transformer.ln_f.weight": norm(),
    }
    for part, count in layers.items():
        for i in range(count):
            prefix = f"transformer.{part}.{i}"
            tensors |= {f"{prefix}.norm_{n}.weight": norm() for n in range(1, 5)}
            tensors[f"{prefix}.attn.Wqkv.weight"] = weight(3 * d, d)
            tensors[f"{prefix}.attn.proj.weight"] = weight(d, d)
            tensors[f"{prefix}.attn.qk_bias"] = weight(2, 1, heads, d // heads)
            tensors[f"{prefix}.mlp.fc.weight"] = weight(2 * ff, d)
            tensors[f"{prefix}.mlp.proj.weight"] = weight(d, ff)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors, folder / "model.safetensors")


# ------------------------------------------------------------------------------------------------------------- reference


def load_module(path):
    """The user's module inside a package of its own, since it imports its neighbour."""
    package = types.ModuleType("reference")
    package.__path__ = [str(path.parent)]
    sys.modules["reference"] = package
    if not (path.parent / "raven_config_minimal.py").exists():
        from transformers import PretrainedConfig

        class RavenConfig(PretrainedConfig):
            model_type = "huginn_raven"
            attribute_map = {
                "num_attention_heads": "n_heads",
                "hidden_size": "n_embd",
                "num_hidden_layers": "n_layers",
            }

            def __init__(self, tie_embeddings=False, **values):
                super().__init__(tie_word_embeddings=tie_embeddings, tie_embeddings=tie_embeddings, **values)
                if values:
                    self.head_dim = self.n_embd // self.n_heads
                    outside = self.n_layers_in_prelude + self.n_layers_in_coda
                    self.effective_expected_depth = outside + self.mean_recurrence * self.n_layers_in_recurrent_block

        stand_in = types.ModuleType("reference.raven_config_minimal")
        stand_in.RavenConfig = RavenConfig
        sys.modules["reference.raven_config_minimal"] = stand_in
    spec = importlib.util.spec_from_file_location("reference.raven_modeling_minimal", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load_model(module, folder, kind):
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype", "head_dim", "tie_word_embeddings")}
    model = module.RavenForCausalLM(module.RavenConfig(**config)).eval()
    tensors = load_file(folder / "model.safetensors")
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = set(missing) - {"freqs_cis"} - ({"lm_head.weight"} if config["tie_embeddings"] else set())
    assert not missing and set(unexpected) <= {"freqs_cis"}, (missing, unexpected)
    model.tie_weights()
    model = model.to(kind)
    # Angles stay in f32, as its authors say they must.
    model.freqs_cis = model._precompute_freqs_cis()
    return model


def reference_tokens(module, model, way, prompts, tokens, depth):
    """Greedy tokens `[batch, tokens]`, and the smallest distance between the best two logits of each token."""
    if way == "generate":
        from transformers import GenerationConfig

        settings = GenerationConfig(
            max_length=prompts.shape[1] + tokens, do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None
        )
        out = model.generate(prompts, settings, num_steps=depth, init_scale=0.0)
        return out[:, prompts.shape[1] :], None
    config = model.config
    if way == "dynamic":
        cache = module.HuginnDynamicCache()
    else:
        cache = module.HuginnStaticCache(
            max_length=prompts.shape[1] + tokens,
            max_num_steps=config.n_layers_in_prelude
            + config.n_layers_in_coda
            + depth * config.n_layers_in_recurrent_block,
            num_heads=config.n_heads,
            hidden_dim=config.n_embd // config.n_heads,
            batch_size=prompts.shape[0],
            dtype=model.dtype,
        )
    chosen, margins = [], []
    inputs, position = prompts, 0
    for _ in range(tokens):
        positions = torch.arange(position, position + inputs.shape[1])
        logits = model(
            inputs,
            num_steps=depth,
            past_key_values=cache,
            use_cache=True,
            cache_position=positions,
            init_scale=0.0,
        ).logits[:, -1]
        best = logits.topk(2).values
        margins.append((best[:, 0] - best[:, 1]).min().item())
        position += inputs.shape[1]
        inputs = logits.argmax(-1, keepdim=True)
        chosen.append(inputs)
    return torch.cat(chosen, 1), margins


def compile_parts(model):
    """What can be compiled without touching the cache, which changes its shape with every token."""
    parts = model.transformer
    for block in [*parts.prelude, *parts.core_block, *parts.coda]:
        block.mlp.compile(dynamic=False)
        for norm in (block.norm_1, block.norm_2, block.norm_3, block.norm_4):
            norm.compile(dynamic=False)


# -------------------------------------------------------------------------------------------------------------- Windlass


def windlass(*arguments):
    command = [str(ARGUMENTS.windlass), *map(str, arguments), "--threads", str(ARGUMENTS.threads)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(run.stderr.strip().splitlines()[-1])
    return run.stdout


def format_arguments(kind):
    return [] if kind == "f32" else ["--weights", kind]


def windlass_tokens(folder, kind, prompt):
    ids = ",".join(str(token) for token in prompt)
    with tempfile.TemporaryDirectory() as endless:
        # The same model without stop tokens.
        endless = pathlib.Path(endless)
        config = json.loads((folder / "config.json").read_text())
        config.pop("eos_token_id", None)
        (endless / "config.json").write_text(json.dumps(config))
        (endless / "model.safetensors").symlink_to((folder / "model.safetensors").resolve())
        lines = windlass(
            "generate", "--model", endless, "--token-ids", ids, "--depth", f"fixed:{ARGUMENTS.depth}",
            "--init-scale", 0, "--max-tokens", ARGUMENTS.tokens, "--json", *format_arguments(kind),
        )  # fmt: skip
    objects = [json.loads(line) for line in lines.splitlines()]
    return [entry["token"] for entry in objects if isinstance(entry.get("token"), int)]


def windlass_speed(folder, kind, batch):
    report = windlass(
        "bench", "engine", "--model", folder, "--depths", f"fixed:{ARGUMENTS.depth}", "--lanes", batch,
        "--requests", batch, "--prompt", ARGUMENTS.prompt, "--tokens", ARGUMENTS.tokens, "--modes", "depth",
        "--rounds", 1, "--json", *format_arguments(kind),
    )  # fmt: skip
    return json.loads(report)["modes"]["depth"]["tokens_per_second"]


# ------------------------------------------------------------------------------------------------------------ comparison


def agreement(ours, theirs, margins):
    """How far two greedy runs agree; a tie ends the comparison."""
    for i, (a, b, margin) in enumerate(zip(ours, theirs, margins)):
        if a != b:
            why = "tie" if margin < TIE else f"DIFFERENT, margin {margin:.2g}"
            return f"{i} of {len(theirs)} tokens, then {why}"
    if len(ours) != len(theirs):
        return f"{len(ours)} tokens for {len(theirs)}"
    return f"all {len(theirs)} tokens"


def measure(module, name, folder, kind):
    vocabulary = json.loads((folder / "config.json").read_text())["padded_vocab_size"]
    generator = torch.Generator().manual_seed(2)
    model = load_model(module, folder, KINDS[kind])
    ways = ARGUMENTS.ways.split(",")
    results = []
    for batch in map(int, ARGUMENTS.batches.split(",")):
        prompts = torch.randint(5, vocabulary, (batch, ARGUMENTS.prompt), generator=generator)
        speeds = {way: [] for way in ways}
        failures = {}
        same = None
        if ARGUMENTS.windlass and kind == "f32" and batch == 1:
            theirs, margins = reference_tokens(module, model, "static", prompts, ARGUMENTS.tokens, ARGUMENTS.depth)
            same = agreement(windlass_tokens(folder, kind, prompts[0].tolist()), theirs[0].tolist(), margins)
        compiled = None
        if "compiled" in ways:
            compiled = load_model(module, folder, KINDS[kind])
            compile_parts(compiled)
        if ARGUMENTS.windlass:
            speeds = {"windlass": []} | speeds
        # The first round warms up: memory, caches, compiled parts.
        for round_ in range(ARGUMENTS.rounds + 1):
            for way in speeds:
                if way in failures:
                    continue
                try:
                    if way == "windlass":
                        speed = windlass_speed(folder, kind, batch)
                    else:
                        start = time.perf_counter()
                        chosen, _ = reference_tokens(
                            module, compiled if way == "compiled" else model, way, prompts, ARGUMENTS.tokens,
                            ARGUMENTS.depth,
                        )  # fmt: skip
                        speed = chosen.numel() / (time.perf_counter() - start)
                        assert chosen.shape == (batch, ARGUMENTS.tokens)
                    if round_ > 0:
                        speeds[way].append(speed)
                except Exception as error:  # A way that does not work is reported, the others go on.
                    failures[way] = str(error).splitlines()[0][:200]
        medians = {way: statistics.median(values) for way, values in speeds.items() if values}
        line = {
            "model": name,
            "kind": kind,
            "batch": batch,
            "depth": ARGUMENTS.depth,
            "prompt": ARGUMENTS.prompt,
            "tokens": ARGUMENTS.tokens,
            "threads": ARGUMENTS.threads,
            "tokens_per_second": medians,
            "failures": failures,
            "agreement": same,
        }
        print(json.dumps(line), file=sys.stderr)
        results.append(line)
    return results


def table(lines):
    ways = ["windlass", *ARGUMENTS.ways.split(",")]
    print(f"| model | type | batch | {' | '.join(ways)} | over the fastest | over `generate` | same tokens |")
    print(f"|---|---|---|{'---|' * len(ways)}---|---|---|")
    for line in lines:
        speeds = line["tokens_per_second"]
        cells = [f"{speeds[way]:.1f}" if way in speeds else "" for way in ways]
        reference = [speed for way, speed in speeds.items() if way != "windlass"]
        ours = speeds.get("windlass")
        ratios = [
            f"{ours / max(reference):.2f}" if ours and reference else "",
            f"{ours / speeds['generate']:.2f}" if ours and "generate" in speeds else "",
        ]
        cells = [line["model"], line["kind"], str(line["batch"]), *cells, *ratios, line["agreement"] or ""]
        print(f"| {' | '.join(cells)} |")
    for line in lines:
        for way, why in line["failures"].items():
            print(f"- {line['model']}, {line['kind']}, batch {line['batch']}, {way}: {why}")


def main():
    if ARGUMENTS.write:
        write_random_model(ARGUMENTS.write, ARGUMENTS.shape)
        return
    if ARGUMENTS.table:
        table([json.loads(line) for line in ARGUMENTS.table.read_text().splitlines()])
        return
    torch.set_num_threads(ARGUMENTS.threads)
    module = load_module(ARGUMENTS.reference.resolve())
    lines = []
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        for name in ARGUMENTS.models.split(","):
            folder = DEMO if name == "demo" else pathlib.Path(name)
            if name == "random":
                folder = pathlib.Path(scratch)
                write_random_model(folder, ARGUMENTS.shape)
            for kind in ARGUMENTS.types.split(","):
                lines += measure(module, name, folder, kind)
    if ARGUMENTS.json:
        with open(ARGUMENTS.json, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    table(lines)


main()
