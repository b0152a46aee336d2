"""summary.json: the scores of a finished run under every protocol of its config, and their provenance.

A run reads the test split only here, after its last step, so that the test split cannot affect training.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lm.errors import UserError
from lm.model.language_model import count_parameters
from lm.runs.provenance import provenance
from lm.scoring.score import Score
from lm.tasks.task import Split
from lm.training.setup import Setup

NO_TEST = (
    "the corpus has no test split; for your own text, set config.data.test_path, or the last of config.data.fractions"
)


def texts_to_score(setup: Setup, read_test: Callable[[], Split | None] | None) -> tuple[dict, dict]:
    """Reads the test split if the config scores it.

    Returns ({name: split} to score, {"test": reason} if the test split cannot be scored). Leaves out other splits that
    the corpus lacks.
    """
    texts, not_scored = dict(setup.corpus.splits), {}
    wanted = setup.config.evaluation.splits
    if "test" in wanted and "test" not in texts and read_test:
        try:
            if (test := read_test()) is None:
                raise UserError(NO_TEST)
            texts["test"] = test
        except UserError as error:
            not_scored["test"] = str(error)
    return {split: texts[split] for split in wanted if split in texts}, not_scored


def result_row(split: str, protocol: str, score: Score, step: int, which: str) -> dict:
    """One row of summary.json's `results`. which: "final" or "best"."""
    return {
        "split": split,
        "protocol": protocol,
        "nats": score.nats,
        "targets": score.targets,
        "perplexity": score.perplexity,
        "bits_per_symbol": score.bits_per_symbol,
        "step": step,
        "which": which,
        **score.measures,
    }


def confusion(labels: Sequence[str], tables: Mapping[tuple[str, str], np.ndarray]) -> dict:
    """The entry of summary.json for confusion matrices; empty without any. tables: {(which, split): counts}"""
    scores = [{"which": which, "split": split, "counts": counts.tolist()} for (which, split), counts in tables.items()]
    return {"confusion": {"labels": list(labels), "scores": scores}} if scores else {}


def summary(
    setup: Setup, results: list[dict], not_scored: dict, training: dict, samples: list[str], git: dict | None
) -> dict:
    """The content of summary.json. git: the revision when the run began"""
    return {
        "name": setup.config.name,
        "corpus": setup.corpus.name,
        "seed": setup.config.seed,
        "results": results,
        "not_scored": not_scored,
        "train": training,
        "parameters": count_parameters(setup.state_shapes.parameters),
        "samples": samples,
        "provenance": provenance(setup.config, setup.corpus, git),
    }
