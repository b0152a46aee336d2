"""Subword tokens that can encode any text: bytes, and byte-level byte-pair encoding (BPE).

A BPE token is a string of bytes that may end inside a character. Text is therefore decoded from the joined bytes, and
bytes that are not valid UTF-8 are shown as escapes such as \\xe4.

Sennrich et al. (2016), "Neural Machine Translation of Rare Words with Subword Units"; on bytes: Radford et al. (2019),
"Language Models are Unsupervised Multitask Learners".
"""

import functools
import itertools

from lm.errors import UserError

# One name for each byte: its ASCII character, or an escape.
BYTES = tuple(chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in range(256))
_PIECE = 1 << 20  # characters encoded at once


def decode_bytes(content: bytes) -> str:
    """Decodes UTF-8; invalid bytes are shown as escapes."""
    return content.decode("utf-8", "backslashreplace")


def train_bpe(text: str, size: int) -> str:
    """Trains byte-level BPE with `size` tokens on a text. Returns the tokenizer in the JSON format of `tokenizers`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if size <= 256:
        raise UserError(f"config.data.max_vocabulary must be at least 257 for config.data.level=bpe, not {size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(_pieces(text), trainer)
    return tokenizer.to_str()


@functools.lru_cache(4)
def _tokenizer(bpe: str):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(bpe)


def is_bpe(bpe: str) -> bool:
    """Whether a string is a valid tokenizer in the format of `train_bpe`."""
    try:
        return bool(bpe_tokens(bpe))
    except Exception:  # tokenizers raises plain Exception
        return False


def encode_bpe(bpe: str, text: str) -> list[int]:
    """Token ids of a text."""
    tokenizer = _tokenizer(bpe)
    return list(itertools.chain.from_iterable(tokenizer.encode(piece).ids for piece in _pieces(text)))


@functools.lru_cache(4)
def bpe_tokens(bpe: str) -> tuple[bytes, ...]:
    """The bytes of each token, in the order of their ids."""
    tokenizer, byte_of = _tokenizer(bpe), _byte_of_character()
    tokens = (tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size()))
    return tuple(bytes(byte_of[character] for character in token) for token in tokens)


def _byte_of_character() -> dict[str, int]:
    """Maps each character of a byte-level token to its byte.

    Printable Latin-1 characters stand for their own bytes, the characters from U+0100 on for the other bytes, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(rest)}


def _pieces(text: str):
    """Splits a text after newlines into pieces of about a million characters, or more if a line is longer."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE) + 1 or len(text)
        yield text[start:end]
        start = end
