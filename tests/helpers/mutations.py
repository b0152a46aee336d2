"""Other bytes from those of a file: bits changed, cut, repeated, or, where they are JSON, other values in it."""

import contextlib
import json
import random

TOKENS = (
    b"\0", b"\xff", b"\n", b"{", b"}", b"[" * 50, b"]", b'"', b"\\", b"../../../etc/passwd", b"<script>", b"null",
    b"true", b"0", b"-1", b"1e999", b"NaN", b"9" * 30, b"4294967296", b"$\\frac{", b"\xef\xbb\xbf", b"\r\n",
    "\u2603\ud7ff".encode(),
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 1, 1.5, 1e308, 10**30, "", "../x", "nan", "a" * 3000, [], {}, [[]], {"": None}, [0] * 9,
)  # fmt: skip


def mutated(content: bytes, rng: random.Random, is_json: bool = False) -> bytes:
    """One to four changes; of JSON half of the time changes of its values, which leave it JSON."""
    if is_json and rng.random() < 0.5:
        with contextlib.suppress(ValueError):
            return _changed_json(content, rng)
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(MUTATIONS)(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Half of the time near the beginning, where headers are."""
    return rng.randint(0, min(len(content), 64) if rng.random() < 0.5 else len(content))


def _flip(content, rng):
    if not content:
        return content
    place = min(_place(content, rng), len(content) - 1)
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def _insert(content, rng):
    place = _place(content, rng)
    return content[:place] + (rng.choice(TOKENS) if rng.random() < 0.7 else rng.randbytes(8)) + content[place:]


def _delete(content, rng):
    place = _place(content, rng)
    return content[:place] + content[place + rng.choice((1, 2, 8, 100)) :]


def _truncate(content, rng):
    return content[: _place(content, rng)]


def _repeat(content, rng):
    place = _place(content, rng)
    piece = content[place : place + rng.choice((1, 4, 64, 1000))]
    return content[:place] + piece * rng.randint(2, 20) + content[place:]


def _overwrite(content, rng):
    place, token = _place(content, rng), rng.choice(TOKENS)
    return content[:place] + token + content[place + len(token) :]


def _number(content, rng):
    """Puts another digit for one that is there."""
    digits = [i for i, byte in enumerate(content[:100_000]) if 48 <= byte < 58]
    if not digits:
        return content
    place = rng.choice(digits)
    return content[:place] + rng.choice((b"0", b"9", b"99999999", b"-", b".")) + content[place + 1 :]


MUTATIONS = (_flip, _flip, _insert, _delete, _truncate, _repeat, _overwrite, _number)


def _changed_json(content: bytes, rng: random.Random) -> bytes:
    """Of JSON, or of one line of a file with JSON in each: a value replaced, a key taken away, added, or nested."""
    lines = content.split(b"\n") if b"\n{" in content[:-1] and not content.startswith(b"{\n") else [content]
    index = rng.randrange(len(lines))
    value = json.loads(lines[index])
    holders = [value]
    for holder in holders:  # grows as it is walked
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [item for item in inner if isinstance(item, dict | list) and item]
    holder = rng.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key, kind = rng.choice(keys), rng.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "other", "__class__", "step"))] = rng.choice(VALUES)
    elif kind == 2:
        holder[key] = [holder[key]]
    elif kind == 3:
        nested = holder[key]
        for _ in range(rng.choice((30, 60, 300))):
            nested = {"a": nested}
        holder[key] = nested
    elif kind == 4 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice((-1, 0, 1e9, 1e300, 2))
    else:
        holder[key] = rng.choice(VALUES)
    lines[index] = json.dumps(value).encode()
    return b"\n".join(lines)
