"""The demo model's vocabulary: three special tokens and one token for each character."""

SPECIAL = ["<|pad|>", "<|begin_text|>", "<|end_text|>"]
CHARACTERS = "\n 0123456789+-*/=;:,.?>abcdefghijklmnopqrstuvwxyz"
TOKENS = SPECIAL + list(CHARACTERS)
IDS = {token: index for index, token in enumerate(TOKENS)}
PADDED_SIZE = 64
PAD, BEGIN, END = range(3)
ZERO, LETTER_A = IDS["0"], IDS["a"]


def encode(text):
    """Ids of a text, without special tokens."""
    return [IDS[character] for character in text]


def decode(ids):
    """The text of ids; special tokens have none."""
    return "".join(TOKENS[index] for index in ids if index >= len(SPECIAL))
