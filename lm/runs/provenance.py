"""Records how a result was computed, and identifies runs that give the same results.

`provenance` records versions, machine, git revision, data and config in a summary. `identity` hashes the part that
affects results: two runs with the same identity give the same numbers, up to rounding.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from lm.runs.plain import flat, plain

# The version of the numerics. Add 1 whenever a change alters results beyond rounding (for example other random numbers
# in an initialiser, another order of the text, another loss weighting). All finished runs then have outdated
# identities, and `reproduce` trains them again. tests/test_numerics.py fails if results changed: add 1 and run
# `python -m tests.numerics`, which updates tests/numerics.json.
NUMERICS = 1

# Config keys that do not affect results: descriptions, devices and threads. Paths are among them because
# the identity includes a checksum of the files.
DECIDES_NOTHING = (
    *("name", "source", "parameters", "train.devices", "train.threads"),
    *("data.path", "data.valid_path", "data.test_path", "init_from", "model.embedding_from"),
)
# Values of config.model.embedding_from that count by name, because these word vectors have a registered checksum.
REGISTERED_VECTORS = ("glove.6B.50d",)
# Keys added after the first records, with their defaults. The identity leaves out a key at its default, so that
# older records keep their identity.
ADDED_LATER = {
    "task": "language_modelling",
    **{"data.format": "tsv", "data.columns": [0, 1], "data.header": "none", "data.tokenizer": "spaces"},
    **{"data.valid_share": 0.1, "data.max_tokens": 0, "data.keep": "first", "data.padding": "end", "data.buckets": 1},
    **{"model.direction": "forward", "model.pooling": "last", "model.convolution": []},
    **{"data.words": "train", "model.embedding_case": "exact", "model.shape_size": 0},
    **{"data.digits": "kept", "data.min_count": 1, "data.examples": "sequences", "data.window": 1},
    **{"penalty.l2": 0.0, "data.reset": "", "optim.frozen": [], "optim.unit_rows": []},
    **{"model.context": "start", "loss.teacher_forcing": 1.0},
    **{"loss.forcing_schedule": "constant", "loss.forcing_steps": 0},
    **{"evaluation.target_length": 50, "evaluation.beams": 5, "evaluation.length_penalty": 1.0},
    **{"evaluation.cache_window": 500, "evaluation.cache_theta": 0.3, "evaluation.cache_lambda": 0.1},
    **{"evaluation.dynamic_segment": 20, "evaluation.dynamic_rate": 0.01, "evaluation.dynamic_decay": 0.001},
    **{"evaluation.best_by": "loss", "evaluation.temperature": 1.0, "init.gain": ["constant", 1.0]},
}

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "ml_collections", "numpy")


def identity(config: Mapping, data_checksum: str, numerics: int = NUMERICS) -> str:
    """Hashes everything that affects a run's results to 16 hexadecimal digits.

    config: the resolved config of a run, with its seed; data_checksum: `lm.data.corpora.checksum` of its data
    """
    text = json.dumps([numerics, data_checksum, decisive(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decisive(config: Mapping | ConfigDict) -> dict:
    """The config keys that affect results, as {dotted key: value}. Sampling does not: it has its own random keys."""
    groups = {key: value for key, value in plain(config).items() if key not in ("claim", "targets", "sample")}
    return {
        key: value
        for key, value in flat(groups).items()
        if (key not in DECIDES_NOTHING or value in REGISTERED_VECTORS)
        and (key not in ADDED_LATER or value != ADDED_LATER[key])
    }


def provenance(config, corpus, git: dict | None) -> dict:
    """Collects all information needed to trust a result later. git: `revision` when the run began"""
    import jax

    device = jax.devices()[0]
    return {
        "identity": identity(config, corpus.provenance.get("checksum", "")),
        "numerics": NUMERICS,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "cpu": cpu_model(),
        },
        "git": git,
        "data": plain(corpus.provenance),
        "config": plain(config),
    }


def cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def revision(root: Path = _ROOT) -> dict | None:
    """{'revision', 'dirty'} of the git checkout at `root`; None if `root` is not the top of a checkout."""

    def ask(*arguments):
        command = ["git", "-C", str(root), *arguments]
        # Variables such as GIT_DIR could select another repository.
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=own).stdout.strip()

    try:
        # A release unpacked inside another repository must not report that repository's revision.
        top, revision = ask("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root:
            return None
        return {"revision": revision, "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
