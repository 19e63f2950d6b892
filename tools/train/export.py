"""Writes a run's averaged weights as a model folder in the published Huginn format."""

import argparse
import json
import math
import os
import platform
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from curriculum import AHEAD, LARGEST
from network import EPSILON, Huginn, Shape
from vocabulary import BEGIN, END, IDS, PAD, SPECIAL

MEAN_RECURRENCE, MAX_DEPTH = 16, 64
THRESHOLD = 0.03
EFFORTS = {"low": 8, "medium": 16, "high": 32}
CHAT_TEMPLATE = (
    "{%- set users = messages | selectattr('role', 'equalto', 'user') | list -%}"
    "{%- if not users -%}"
    "{{ raise_exception('the demo model answers the last user message, and there is none: add one') }}"
    "{%- endif -%}"
    "{{ bos_token }}{{ users[-1]['content'] }}"
)


def config(shape):
    """`config.json`, with all that the reference implementation reads."""
    deviation = math.sqrt(2 / (5 * shape.n_embd))
    layers = {"prelude": shape.prelude, "recurrent_block": shape.core, "coda": shape.coda}
    effective = shape.prelude + MEAN_RECURRENCE * shape.core + shape.coda
    return {
        "activation_checkpoint_impl": "per-iteration",
        "architecture_class_name": "RecurrentGPT",
        "architectures": ["RavenForCausalLM"],
        "bias": False,
        "block_class_name": "SandwichBlock",
        "block_size": shape.block_size,
        "bos_token_id": BEGIN,
        "effective_expected_depth": effective,
        "eos_token_id": END,
        "head_dim": shape.head_dim,
        "init_orthogonal": False,
        "init_strategy": "takase",
        "init_values": {
            "embed_scale": math.sqrt(shape.n_embd),
            "embedding": deviation,
            "out_proj": deviation / math.sqrt(2 * effective),
            "std": deviation,
        },
        "injection_type": "linear",
        "intermediate_size": shape.intermediate_size,
        "mean_backprop_depth": MEAN_RECURRENCE,
        "mean_recurrence": MEAN_RECURRENCE,
        "mlp_class_name": "GatedMLP",
        "model_type": "huginn_raven",
        "n_embd": shape.n_embd,
        "n_heads": shape.n_heads,
        "n_layers": sum(layers.values()),
        **{f"n_layers_in_{part}": count for part, count in layers.items()},
        "nonlin_name": "SiLU",
        "norm_class_name": "RMSNorm_llama",
        "norm_eps": EPSILON,
        "num_key_value_heads": shape.n_heads,
        "pad_token_id": PAD,
        "padded_vocab_size": shape.vocab_size,
        "padding_multiple": shape.vocab_size,
        "qk_bias": True,
        "rope_base": shape.rope_base,
        "sampling_scheme": "poisson-lognormal-filling",
        "state_init": "like-init",
        "test_time_noise": 0,
        "test_time_noise_type": "fixed",
        "tie_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": shape.vocab_size,
    }


def generation_config(shape, efforts):
    adaptive = lambda depth: {"adaptive": {"criterion": "latent-diff", "threshold": THRESHOLD, "max": depth}}
    return {
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "max_length": shape.block_size,
        "pad_token_id": PAD,
        "windlass": {
            "default_effort": "medium",
            "max_depth": MAX_DEPTH,
            "efforts": {name: adaptive(depth) for name, depth in efforts.items()},
        },
    }


def added_token(text):
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {"content": text, **flags, "special": True}


def tokenizer():
    """One token for each character; the begin-of-text token goes before every text."""
    begin = {"SpecialToken": {"id": SPECIAL[BEGIN], "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, **added_token(text)} for index, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, second],
            "special_tokens": {SPECIAL[BEGIN]: {"id": SPECIAL[BEGIN], "ids": [BEGIN], "tokens": [SPECIAL[BEGIN]]}},
        },
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": IDS,
            "merges": [],
        },
    }


def tokenizer_config(shape):
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BEGIN],
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PAD],
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": shape.block_size,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(index): added_token(text) for index, text in enumerate(SPECIAL)},
    }


def tensors(model, averages):
    """Weights in bf16, and the rotary table that the reference implementation expects to find, in f32."""
    weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in averages.items()}
    angles = model.angles(model.shape.block_size, "cpu")
    table = torch.stack([angles.cos(), angles.sin()], -1)[None, :, None].contiguous()
    return weights | {"freqs_cis": table}


def write_folder(folder, shape, averages, efforts=EFFORTS):
    """Everything a model folder has."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(Huginn(shape), averages), folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    files = {
        "config.json": config(shape),
        "generation_config.json": generation_config(shape, efforts),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": tokenizer_config(shape),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def write_record(folder, run, saved):
    """The log of the run, and what it ran on, beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "log.jsonl", folder / "log.jsonl")
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    facts = {
        "steps": saved["step"],
        "seconds": round(saved["spent_s"]),
        "sizes": {task: min(LARGEST[task], level + AHEAD) for task, level in saved["state"]["level"].items()},
        "seed": saved["seed"],
        "processes": saved["processes"],
        "cores": os.cpu_count(),
        "processor": processor and processor[1],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("folder", type=Path, help="the model folder to write")
    parser.add_argument("--plain", action="store_true", help="the baseline: every effort is one iteration")
    options = parser.parse_args()
    saved = torch.load(options.run / "checkpoint.pt", map_location="cpu")
    efforts = dict.fromkeys(EFFORTS, 1) if options.plain else EFFORTS
    write_folder(options.folder, Shape(), saved["average"], efforts)
    write_record(options.folder / "training", options.run, saved)


if __name__ == "__main__":
    main()
