"""Windlass itself, serving a model folder to the evaluation over its HTTP interface."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

PROMPTS_AT_ONCE = 16
DEEPEST = 128


@dataclass
class Answer:
    text: str
    depths: list  # of each generated token
    prompt_tokens: int


class Engine:
    """`windlass serve` on a free port, for a `with` statement."""

    def __init__(self, program, model):
        anywhere = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
        self.command = [program, "serve", "--model", str(model), *anywhere, "--max-depth", str(DEEPEST)]

    def __enter__(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
        environment |= {"WINDLASS_LOG": "error", "WINDLASS_PREFIX_CACHE": "false"}
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            line = self.process.stdout.readline()
            if "http://" not in line:
                raise RuntimeError(f"{' '.join(self.command)} did not start: it wrote {line!r}")
            self.address = line.split("http://")[1].split()[0]
            while not self._is_ready():
                time.sleep(0.05)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def _is_ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.address}/ready", timeout=5).status == 200
        except urllib.error.HTTPError:
            return False

    def answers(self, prompts, max_tokens, depth, **fields):
        """The greedy answer to each prompt; `depth` and further fields are those of `/v1/completions`."""
        answers = []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            asked = prompts[start : start + PROMPTS_AT_ONCE]
            body = {"prompt": asked, "max_tokens": max_tokens, "temperature": 0, "depth": depth, "return_depths": True}
            for prompt, choice in zip(asked, self._post(body | fields)["choices"], strict=True):
                answers.append(Answer(choice["text"], choice["depths"], 1 + len(prompt)))
        return answers

    def _post(self, body):
        request = urllib.request.Request(f"http://{self.address}/v1/completions", json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request) as response:
            return json.load(response)
