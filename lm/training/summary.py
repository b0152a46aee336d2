"""summary.json: the scores of a run that has ended, under every protocol of its config, and where they are from.

This is where the test split is read: after the last step, when no choice is left to be made.
"""

import numpy as np

from lm.errors import UserError
from lm.model.language_model import count_parameters
from lm.runs.provenance import provenance
from lm.runs.workdir import log_test_score
from lm.scoring.protocols import Score, perplexity
from lm.training.step import TrainState


def summarise(trainer) -> dict:
    """The results of a `lm.training.loop.Trainer`'s state and, where it is kept, of the best checkpoint."""
    texts, not_scored = texts_to_score(trainer)
    results = scores(trainer, trainer.state, "final", texts)
    if trainer.config.checkpoint.best == "keep":
        try:
            best = trainer.checkpoints.restore(trainer.state, which="best")
        except UserError as error:  # the last one is sound, and what it gives must not be lost
            not_scored["best"] = str(error)
        else:
            results += scores(trainer, best[0], "best", texts) if best else []
    progress = trainer.progress
    return {
        "name": trainer.config.name,
        "corpus": trainer.corpus.name,
        "seed": trainer.config.seed,
        "results": results,
        "not_scored": not_scored,
        "train": {
            "final_mean_loss": progress.last_loss,
            "lowest_running_perplexity": perplexity(progress.lowest_running_nats),
            "tokens_per_s": trainer.tokens_per_second(),
            "steps": trainer.done,
            "wall_time_s": progress.train_seconds,
            "rollbacks": progress.rollbacks,
        },
        "parameters": count_parameters(trainer.state.parameters),
        "samples": trainer.texts(),
        "provenance": provenance(trainer.config, trainer.corpus),
    }


def texts_to_score(trainer) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """({split: ids [N]} of config.evaluation.splits that the corpus has, {split: why it cannot be scored})."""
    texts, not_scored = dict(trainer.corpus.splits), {}
    wanted = trainer.config.evaluation.splits
    if "test" in wanted and "test" not in texts and trainer.read_test:
        try:
            test = trainer.read_test()
        except UserError as error:
            not_scored["test"] = str(error)
        else:
            texts |= {} if test is None else {"test": test}
    return {split: texts[split] for split in wanted if split in texts}, not_scored


def scores(trainer, state: TrainState, which: str, texts: dict[str, np.ndarray]) -> list[dict]:
    """Scores of a state on every text under every protocol of the config; those of the test split are logged."""
    step, rows = int(state.step) - 1, []
    for split, tokens in texts.items():
        for protocol in trainer.config.evaluation.protocols:
            rows.append(result_row(split, protocol, trainer.score(state, tokens, protocol), step, which))
            if split == "test" and trainer.writes:
                log_test_score(trainer.workdir, rows[-1])
    return rows


def result_row(split: str, protocol: str, score: Score, step: int, which: str) -> dict:
    """One row of summary.json's `results`."""
    return {
        "split": split,
        "protocol": protocol,
        "nats": score.nats,
        "targets": score.targets,
        "perplexity": score.perplexity,
        "bits_per_symbol": score.bits_per_symbol,
        "step": step,
        "which": which,
    }
