"""Completions and chats, streamed and whole, through the `openai` package. Usage: openai_client.py BASE_URL"""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none")
PUZZLE, ANSWER = "7+5-3*2=", "8"

models = [model.id for model in client.models.list()]
assert models == ["demo"], models
assert client.models.retrieve("demo").id == "demo"

whole = client.completions.create(model="demo", prompt=PUZZLE, temperature=0, max_tokens=4, logprobs=2)
assert whole.choices[0].text == ANSWER, whole
assert whole.choices[0].finish_reason == "stop", whole
assert whole.choices[0].logprobs.tokens[0] == ANSWER, whole
assert whole.usage.prompt_tokens == 9 and whole.usage.completion_tokens == 2, whole.usage

chunks = list(
    client.completions.create(
        model="demo", prompt=PUZZLE, temperature=0, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
)
assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == ANSWER, chunks
assert chunks[-1].usage.completion_tokens == 2, chunks[-1]

messages = [{"role": "user", "content": PUZZLE}]
chat = client.chat.completions.create(
    model="demo",
    messages=messages,
    temperature=0,
    max_completion_tokens=4,
    reasoning_effort="high",
    logprobs=True,
    top_logprobs=1,
    extra_body={"return_depths": True, "kv": {"ring": 2}},
)
assert chat.choices[0].message.content == ANSWER, chat
assert chat.choices[0].logprobs.content[0].top_logprobs[0].token == ANSWER, chat
assert len(chat.choices[0].model_extra["depths"]) == chat.usage.completion_tokens, chat

deltas = client.chat.completions.create(
    model="demo", messages=messages, temperature=0, stream=True, extra_body={"depth": {"fixed": 16}}
)
assert "".join(chunk.choices[0].delta.content or "" for chunk in deltas) == ANSWER

stopped = client.completions.create(
    model="demo", prompt="ab bc cd;a=", temperature=0, max_tokens=4, stop=["d"], extra_body={"depth": {"fixed": 16}}
)
assert stopped.choices[0].text == "" and stopped.choices[0].finish_reason == "stop", stopped

several = client.completions.create(model="demo", prompt=[PUZZLE, "1+1="], temperature=0, n=2, max_tokens=4)
assert [choice.text for choice in several.choices] == [ANSWER, ANSWER, "2", "2"], several

for bad in [
    {"extra_body": {"colour": 1}},
    {"max_tokens": -1},
    {"extra_body": {"depth": {"fixed": 0}}},
]:
    try:
        client.completions.create(model="demo", prompt=PUZZLE, **bad)
    except openai.BadRequestError as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{bad} was accepted")

try:
    client.completions.create(model="other", prompt=PUZZLE)
except openai.NotFoundError as error:
    assert "demo" in error.body["message"], error
else:
    raise AssertionError("an unknown model was accepted")

print("the openai package is served")
