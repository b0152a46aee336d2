"""Strategies that draw bad texts and bad configs, and `attempt`, which launches training on them in this process.

Whatever is drawn, training ends in one of two ways: it makes its steps, and every loss is finite; or it says what is
wrong in one line, exits with status 2 and leaves nothing half written.
"""

import contextlib
import io
import json
import math
import signal
import tempfile
import unittest.mock
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

import launch
from configs import loading
from configs.base import base
from lm.cells.table import CELLS
from lm.model.initialisers import INITIALISERS
from lm.model.language_model import CONTEXT, OUTPUTS
from lm.scoring.protocols import PROTOCOLS
from lm.training.optim import CLIPPING, OPTIMISERS, SCHEDULES

LIMIT = 120  # seconds, after which an attempt counts as hanging

CONFIG = """
from configs.base import base


def get_config():
    config = base()
    config.name = "small"
    config.data.corpus, config.data.path = "textfile", "text.txt"
    config.data.batch_size, config.data.unroll = 2, 3
    config.model.hidden = (4,)
    config.train.steps, config.train.report_every, config.train.steps_per_dispatch = 2, 1, 2
    config.evaluation.predictions, config.evaluation.batch_size, config.evaluation.unroll = 3, 1, 2
    config.sample.number, config.sample.length = 1, 3
    return config
"""


# --- Texts ----------------------------------------------------------------------------------------------------------

SOUND = b"the quick brown fox jumps over the lazy dog\n" * 20


def many_symbols(count: int) -> bytes:
    """Distinct characters, surrogates left out."""
    return "".join(chr(code) for code in range(0x21, 0x21 + count + 0x800) if not 0xD800 <= code < 0xE000).encode()


TEXTS = {
    "sound": SOUND,
    "empty": b"",
    "one character": b"a",
    "one symbol": b"a" * 500,
    "shorter than a batch": b"ab",
    "white space only": b" \n\t \r\n" * 50,
    "line ends only": b"\n" * 400,
    "not UTF-8": SOUND[:300] + b"\xff\xfe\x80" + SOUND,
    "Latin-1": "ein schöner Satz für Prüfungen\n".encode("latin-1") * 20,
    "UTF-16": SOUND.decode().encode("utf-16"),
    "UTF-16 without a mark": SOUND.decode().encode("utf-16-be"),
    "cut inside a character": SOUND + "ü".encode()[:1],
    "encoded surrogate": SOUND + b"\xed\xa0\x80" + SOUND,
    "overlong form": SOUND + b"\xc0\xaf" + SOUND,
    "NUL": SOUND[:200] + b"\0" + SOUND,
    "NUL only": b"\0" * 500,
    "a very long line": b"word " * 100_000,
    "a very long word": b"x" * 300_000,
    "Windows line ends": SOUND.replace(b"\n", b"\r\n"),
    "old Mac line ends": SOUND.replace(b"\n", b"\r"),
    "BOM": b"\xef\xbb\xbf" + SOUND,
    "BOM only": b"\xef\xbb\xbf",
    "two BOMs": b"\xef\xbb\xbf" * 2 + SOUND,
    "3,000 symbols": many_symbols(3000),
    "100,000 symbols": many_symbols(100_000) * 2,
    "combining and right to left": "e\u0301 \u05d0\u05d1\u202e \U0001f468\u200d\U0001f469 \u2028\u0085".encode() * 60,
    "control characters": bytes(range(1, 32)) * 20,
    "words of the vocabulary": b"<unk> <eos> N $ <pad> \xef\xbf\xbd " * 40,
    "an archive": b"PK\x03\x04" + bytes(range(256)) * 4,
    "a program": b"__import__('os').system('touch harmed')\n" * 20,
}  # fmt: skip


def texts():
    """One of TEXTS, or random bytes, or random characters."""
    return st.one_of(
        st.just(SOUND),  # so that a bad config is met by a sound text
        st.sampled_from(sorted(TEXTS.values())),
        st.binary(max_size=400),
        st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass")),
    )


# --- Configs --------------------------------------------------------------------------------------------------------

INTEGERS = (-(2**63), -1, 0, 1, 2, 3, 7, 1000, 2**31 - 1, 2**31, 10**12, 10**30)
NUMBERS = (-1.0, -0.0, 0.0, 1e-300, 1e-9, 0.5, 1.0, 1.5, 2.0, 1e9, 1e38, 1e300, math.inf, -math.inf, math.nan)
STRINGS = (
    "",
    " ",
    "none",
    "nope",
    "LSTM",
    "a\nb",
    "'",
    "%s",
    "\u00fc",
    "../x",
    "train",
    "valid",
    "test",
    "\u2603" * 300,
)
TUPLES = {
    int: ((), (0,), (-1,), (1,), (5, 2), (3, 3, 3), (10**6,), (10**12,), (1.5,), ("a",)),
    float: ((), (1.0,), (0.0, 0.0, 0.0), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.2, 0.4, 0.4), (-1.0, 1.0, 1.0),
            (math.nan,) * 3, (math.inf, 0.0, 0.0), (0.98, 0.01, 0.01), (1, 0, 0)),
    str: ((), ("",), ("nope",), ("exact",), ("exact", "batched", "notebook"), ("valid", "test"), ("train",), (1,)),
}  # fmt: skip

# Of keys whose values are names.
NAMES = {
    "data.corpus": ("textfile", "synthetic"),  # no others: they would ask the network
    "data.level": ("char", "word"),
    "data.batching": ("heads", "rows"),
    "model.cell": tuple(CELLS),
    "model.input": tuple(CONTEXT),
    "model.output": tuple(OUTPUTS),
    "model.initial_carry": ("zeros", "first_unit_one", "learned"),
    "dropout.mask": ("elementwise", "variational"),
    "loss.weighting": ("mean", "last"),
    "optim.name": tuple(OPTIMISERS),
    "optim.schedule": tuple(SCHEDULES),
    "optim.clipping": tuple(CLIPPING),
    "evaluation.during": tuple(PROTOCOLS),
    "sample.strategy": ("temperature", "greedy", "first_exceeding"),
    "sample.start": ("line", "random"),
    "sample.prompt": ("the ", "THE \u2603"),
    "sample.stop": ("e", "<eos>"),
    "checkpoint.best": ("keep",),
    "on_nan": ("stop", "rollback"),
}
# Of keys that decide how long a sound run takes: what would be sound but long is left out.
SHORT = {
    "train.steps": (-1, 0, 1, 3),
    "train.epochs": (-1, 0),
    "sample.length": (-1, 0, 1, 5),
    "data.size": (-1, 0, 1, 100, 2000, 10**15),
}
INITIALISATIONS = (
    *((name, *numbers) for name in INITIALISERS for numbers in ((), (0.1,), (-0.1, 0.1), (0.1, 0.2, 0.3))),
    ("uniform", math.nan, 1.0), ("uniform", -math.inf, math.inf), ("uniform", "a", "b"), ("normal", 0.0, 1e300),
)  # fmt: skip
# Threads are set once in a process, before JAX starts; the rest decides nothing.
LEFT_OUT = ("train.threads", "data.path", "name", "source", "parameters", "claim.minutes", "claim.seeds")


def pool(key: str, default) -> tuple:
    """Values for a key, sound and unsound, of its type and of another."""
    if key.startswith("init."):
        return (*TUPLES[str], *INITIALISATIONS)
    if isinstance(default, tuple):
        return TUPLES[type(default[0]) if default else str]
    if isinstance(default, str):
        return (*NAMES.get(key, ()), *STRINGS)
    if key in SHORT:
        return (*SHORT[key], "many")
    return (*INTEGERS, 2.5, "many") if isinstance(default, int) else (*NUMBERS, "nope")


def pools() -> dict[str, tuple]:
    """{dotted key of the base config: values}"""
    values = loading.flatten(base())
    return {key: pool(key, default) for key, default in values.items() if key not in LEFT_OUT}


def changes(least: int = 0, most: int = 3):
    """{dotted key: value} of a few keys."""
    pairs = [st.tuples(st.just(key), st.sampled_from(values)) for key, values in pools().items()]
    return st.lists(st.one_of(pairs), min_size=least, max_size=most).map(dict)


# --- Trying ---------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """status: of the process; said: its standard error; losses: of metrics.jsonl; left: files in the workdir."""

    status: int
    said: str
    losses: tuple[float, ...]
    left: tuple[str, ...]


def attempt(text: bytes, changed: dict) -> Outcome:
    """Launches training on a text with a changed config, in a directory that goes away."""
    with tempfile.TemporaryDirectory() as directory, within(LIMIT):
        here, workdir = Path(directory), Path(directory) / "run"
        (here / "text.txt").write_bytes(text)
        (here / "small.py").write_text(CONFIG)
        argv = ["launch.py", f"--config={here}/small.py", f"--workdir={workdir}", f"--config.data.path={here}/text.txt"]
        argv += [f"--config.{key}={value}" for key, value in changed.items()]
        said = io.StringIO()
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said)
        # The cache of compiled programs is a setting of the whole process, which other tests share.
        with quiet[0], quiet[1], unittest.mock.patch.object(launch, "use_compilation_cache"):
            status = launch.main(argv)
        rows = workdir / "metrics.jsonl"
        losses = [json.loads(line)["loss"] for line in rows.read_text().splitlines()] if rows.exists() else []
        left = sorted(str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file())
        return Outcome(status, said.getvalue(), tuple(losses), tuple(left))


@contextlib.contextmanager
def within(seconds: int):
    """Raises TimeoutError inside what takes longer."""

    def ring(number, frame):
        raise TimeoutError(f"nothing after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_sound(outcome: Outcome):
    """Fails unless the attempt ended in one of the two ways."""
    assert not [name for name in outcome.left if name.endswith(".tmp")]
    if outcome.status == 0:
        assert outcome.losses
        assert all(loss is not None and math.isfinite(loss) for loss in outcome.losses)
        assert "summary.json" in outcome.left
        return
    lines = outcome.said.splitlines()
    assert outcome.status == 2
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert lines[-1].startswith("error: ")
    assert len(lines[-1]) < 1000
    # A loss is known only once it is computed; all else is refused before there is a directory.
    assert "summary.json" not in outcome.left if "is not finite at step" in lines[-1] else not outcome.left
