"""The numbers that today's code computes, for a few tiny runs that between them use most of what decides numbers.

    python -m tests.numerics        # renews tests/numerics.json, once NUMERICS of lm/runs/provenance.py has been raised

tests/test_numerics.py compares. Losses are kept with six digits and compared with less, for rounding differs from one
processor to the next; a change that alters more than that must raise NUMERICS.
"""

import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from lm.model.language_model import CONTEXT
from lm.runs.provenance import NUMERICS
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny

PATH = Path(__file__).resolve().parent / "numerics.json"
STEPS = 20
TOLERANCE = 1e-4  # relative

CASES = {
    "lstm with dropout": {"keep_prob__output": 0.7, "keep_prob__between": 0.8, "model__hidden": (4, 3)},
    "gru of other weights": {
        "model__cell": "gru",
        "init__recurrent": ("he_normal",),
        "init__input": ("glorot_uniform",),
        "init__output": ("truncated_normal", 0.0, 0.5),
        "init__embedding": ("normal", 0.0, 0.5),
        "model__input": "embedding",
        "model__embedding_size": 4,
    },
    "rows, adam, cosine": {
        "data__batching": "rows",
        "optim__name": "adam",
        "optim__learning_rate": 0.05,
        "optim__schedule": "cosine",
        "model__input": "bigram",
        "model__embedding_size": 4,
    },
    "nt_asgd": {
        "optim__name": "nt_asgd",
        "optim__learning_rate": 5.0,
        "optim__nonmonotone_checks": 1,
        "keep_prob__weight_drop": 0.7,
        "optim__weight_decay": 1e-3,
        "train__evaluate_every": 2,
    },
    "variational": {
        "dropout__mask": "variational",
        "keep_prob__input": 0.7,
        "keep_prob__embedding": 0.8,
        "keep_prob__output": 0.7,
        "model__input": "embedding",
        "model__embedding_size": 3,
        "model__output": "tied",
        "zoneout__output": 0.1,
        "evaluation__during": "batched",
        "evaluation__batch_size": 2,
        "evaluation__unroll": 5,
    },
}


def measure(case: str) -> dict:
    """What a run of the case gives: the loss of every step, those of validation, and sampled texts."""
    config = tiny.config(**{"train__steps": STEPS, "train__report_every": 1, "train__evaluate_every": 5} | CASES[case])
    config.sample.length = 24 - CONTEXT[config.model.input]
    with tempfile.TemporaryDirectory() as workdir:
        summary = train(make_setup(config, tiny.corpus()), workdir)
        rows = [json.loads(line) for line in Path(workdir, "metrics.jsonl").read_text().splitlines()]
    return {
        "loss": [digits(row["loss"]) for row in rows],
        "valid_loss": [digits(row["valid_loss"]) for row in rows if "valid_loss" in row],
        "samples": summary["samples"],
    }


def digits(value: float) -> float:
    return float(f"{value:.6g}")


def differences(found: dict, kept: dict) -> list[str]:
    """What of a case is not as it was, but for rounding."""
    wrong = [] if found["samples"] == kept["samples"] else ["samples"]
    for name in ("loss", "valid_loss"):
        a, b = np.array(found[name]), np.array(kept[name])
        if a.shape != b.shape or not np.allclose(a, b, rtol=TOLERANCE, atol=0):
            wrong.append(name)
    return wrong


def renew() -> int:
    """Writes what is computed today; 1 and a line where numbers have changed and NUMERICS has not."""
    kept = json.loads(PATH.read_text()) if PATH.exists() else {"numerics": None, "cases": {}}
    cases = {case: measure(case) for case in CASES}
    if kept["numerics"] == NUMERICS:
        both = kept["cases"].keys() & cases.keys()
        changed = sorted(case for case in both if differences(cases[case], kept["cases"][case]))
        if changed:
            print(
                f"error: other numbers of {', '.join(changed)}: add 1 to NUMERICS in lm/runs/provenance.py first",
                file=sys.stderr,
            )
            return 1
    PATH.write_text(json.dumps({"numerics": NUMERICS, "cases": cases}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    sys.exit(renew())
