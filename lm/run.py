"""A run as a model that can be picked up: what everything after training starts from.

    run = lm.open_run("runs/mine")
    run.config, run.vocabulary, run.step
    run.nats("some text"), run.log_probs("some text"), run.sample("The ")
    run.states("some text"), run.gates("some text")
    run.label_probabilities("some text")                  # of a classifier or a tagger

`open_run` reads the directory of a run, or an export, and nothing else: no config file and no training text.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from configs.rules import check_values
from lm.data.subwords import BYTES, is_bpe
from lm.data.text import LEVELS, Vocabulary
from lm.errors import UserError, check_name, in_short
from lm.model.weights import load_weights
from lm.runs import origin, schema
from lm.runs.checkpoint import Checkpoints
from lm.runs.files import sha256_of
from lm.runs.saved_config import get_config, restore
from lm.runs.schema import read_json
from lm.runs.workdir import FREE, VOCABULARY, check_no_links, differences, shown
from lm.scoring import inspection
from lm.scoring.sampling import generate
from lm.tasks import TASKS, make_model
from lm.training.optim import hyper_of
from lm.training.state import evaluated_parameters, state_shapes

CHECKPOINTS = ("last", "best")
WEIGHTS = "model.safetensors"
VOCABULARY_FORM = {"level": str, "symbols": [str], "unknown": (str, None), "bpe?": str, "labels?": [str]}
EXPORT = {
    **{"config": {}, "vocabulary": VOCABULARY_FORM, "step?": int, "checkpoint?": str, "data?": str, "results?": [{}]},
    **{"run?": str, "weights_sha256?": str},  # what the export is of: those of earlier versions do not say
}

# Keys that do not change what a trained model computes: a command that uses it may choose them.
USES = (*FREE, "evaluation.")


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with its config and vocabulary.

    workdir: its directory; checkpoint: last or best; step: steps made
    parameters: those that evaluation reads
    data: the checksum of its corpus; "" if it is not recorded
    """

    workdir: Path
    config: FrozenConfigDict
    vocabulary: Vocabulary
    model: Any
    parameters: dict
    step: int
    checkpoint: str
    data: str

    @property
    def is_export(self) -> bool:
        """Whether it is an export, which has no checkpoints, rather than a run."""
        return (self.workdir / WEIGHTS).exists()

    def check_task(self, use: str, *tasks: str):
        """Raises UserError unless the run is of one of these tasks. use: what needs it"""
        if self.config.task not in tasks:
            command, needed = TASKS[self.config.task].command, " or ".join(tasks)
            raise UserError(
                f"{self.workdir} is a run of config.task={self.config.task}, and {use} needs one of {needed}"
                f"{f'; --experiment={command} uses it' if command else ''}"
            )

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text, or of a line to label or translate, also those that the vocabulary lacks."""
        reading = {name: task.tokens for name, task in TASKS.items() if task.tokens}
        self.check_task("a text", *reading)
        return reading[self.config.task](self.config, self.vocabulary, text)

    def label_probabilities(self, text: str) -> tuple[list[str], np.ndarray]:
        """(tokens [N], probabilities of the labels): [1, C] of the text, or [N, C] of its tokens.

        C: run.vocabulary.labels. Raises UserError for an empty text, and for a language model.
        """
        tokens, _, probabilities = self.predicted_labels(text)
        return tokens, probabilities

    def predicted_labels(self, text: str) -> tuple[list[str], list[str], np.ndarray]:
        """(tokens [N], the most probable label, probabilities) of the text, or of each of its tokens.

        Of a CRF the labels are the most probable sequence, and the probabilities those of each token by itself.
        """
        labelling = {name: task.label for name, task in TASKS.items() if task.label}
        self.check_task("a text to label", *labelling)
        label = labelling[self.config.task]
        tokens, labels, log_probs = label(self.config, self.vocabulary, self.model, self.parameters, text)
        return tokens, [self.vocabulary.labels[number] for number in labels], np.exp(log_probs)

    def translate(self, lines: list[str], sample=None) -> list[str]:
        """What the model writes for each line. sample: config.sample, None for that of the run: `beams`, `length` and
        `length_penalty`. Raises UserError for symbols that the vocabulary lacks, and for another task."""
        writing = {name: task.write for name, task in TASKS.items() if task.write}
        self.check_task("translate", *writing)
        write = writing[self.config.task]
        return write(self.config, sample or self.config.sample, self.vocabulary, self.model, self.parameters, lines)

    def encode(self, text: str) -> np.ndarray:
        """Encodes a text as ids [N]. Raises UserError for a text shorter than the model's context, and for unknown
        symbols if the vocabulary has no symbol for them."""
        self.check_task("this", "language_modelling")
        ids = self.vocabulary.encode(text)
        if len(ids) < self.model.context:
            raise UserError(f"the text has {len(ids)} tokens; this model reads at least {self.model.context}")
        return ids

    def log_probs(self, text: str) -> np.ndarray:
        """Log-probabilities [N - context + 1, V], in nats, of the symbol after each prefix; the last row is of the
        symbol after the whole text."""
        return self.trace(text).log_probs

    def trace(self, text: str) -> inspection.Trace:
        """States, gates and log-probabilities at every step."""
        return inspection.trace(self.model, self.parameters, self.encode(text))

    def nats(self, text: str) -> np.ndarray:
        """-ln p [N - context] of every token of the text, except the first `context`, which lack one."""
        return self.token_scores(text).nats

    def token_scores(self, text: str) -> inspection.TokenScores:
        """Nats, rank and entropy of every target."""
        return inspection.score_tokens(self.model, self.parameters, self.encode(text))

    def states(self, text: str) -> tuple:
        """The state after every step: for each layer its carry, with fields [N - context + 1, H], such as c and h."""
        return self.trace(text).states

    def gates(self, text: str) -> tuple[dict[str, np.ndarray], ...]:
        """The gates at every step: for each layer {name: [N - context + 1, H]}, by the names of the equations.

        Raises UserError for a cell without gates.
        """
        gates = self.trace(text).gates
        if not any(gates):
            raise UserError(f"config.model.cell={self.config.model.cell} has no gates")
        return gates

    def sample(self, prompt: str = "", **settings) -> list[str]:
        """Generates texts. settings: keys of config.sample, such as temperature=0.7, length=200, number=1, seed=3.

        Raises UserError for settings that do not fit.
        """
        self.check_task("sampling", "language_modelling")
        config = restore(self.config.to_dict(), self.workdir)
        try:
            config.sample.update({"prompt": prompt or config.sample.prompt, **settings})
        except (KeyError, TypeError) as error:
            raise UserError(f"run.sample: {error.args[0]}; known: {', '.join(config.sample)}") from error
        check_values(config)
        return generate(self.model, self.parameters, self.vocabulary, config.sample)

    def check_config(self, config: ConfigDict):
        """Raises UserError, naming the keys, if a config that is to use the run decides other numbers than its own, or
        has a value that breaks its key's rule."""
        check_values(config)
        if changed := differences(self.config, config, USES):
            raise UserError(
                f"{self.workdir} was trained with another config ({shown(changed)}): leave out --config and these "
                "keys; the run's own config is used. config.evaluation and config.sample may differ"
            )


def open_run(path: str | Path, checkpoint: str = "last") -> Run:
    """Opens the run in directory `path` at its last checkpoint, or at the best by validation; or opens an export.

    Raises UserError if the directory holds neither, or is damaged.
    """
    check_name(checkpoint, CHECKPOINTS, "--checkpoint")
    path = Path(path)
    file = path / "config.json"
    if not os.path.exists(file):  # False for a path that is too long, too
        raise UserError(f"{in_short(str(path))[1:-1]} holds no run: it has no config.json")
    check_no_links(path)
    read = get_config(str(file))
    check_values(read)  # before it is frozen, which fails for odd values
    config = FrozenConfigDict(read)
    if (path / WEIGHTS).exists():
        return _open_export(path, config, read_json(file, EXPORT))
    vocabulary = read_vocabulary(path)
    model = make_model(config, vocabulary)
    checkpoints = Checkpoints(path, keep=config.checkpoint.keep)
    restored = checkpoints.restore(state_shapes(config, model, hyper_of(config)), which=checkpoint)
    if restored is None:
        hint = "train with config.checkpoint.best=keep" if checkpoint == "best" else "train a run there first"
        raise UserError(f"{path} holds no {checkpoint} checkpoint: {hint}")
    state, extra, step = restored
    where = f"{path}: the checkpoint of step {step}"
    schema.check(extra, {"data?": str, **origin.FORM}, where)
    origin.check_origin(extra, config, vocabulary.digests, where)
    data = extra.get("data", "")
    last = checkpoints.restore(state_shapes(config, model, hyper_of(config))) if checkpoint == "best" else None
    if last and last[1].get("data", data) != data:
        raise UserError(f"{where} in best/ was trained on other data than the last one: it is of another run")
    return Run(path, config, vocabulary, model, evaluated_parameters(state), step, checkpoint, data)


def _open_export(path: Path, config: FrozenConfigDict, description: dict) -> Run:
    vocabulary = vocabulary_of(description["vocabulary"], path / "config.json")
    if description.get("run", run := origin.run_of(config)) != run:
        raise UserError(f"{path}/config.json was changed: its config is not the one that the weights were trained with")
    if description.get("weights_sha256", digest := sha256_of(path / WEIGHTS)) != digest:
        raise UserError(f"{path}/{WEIGHTS} is not the file that was exported with config.json: one was replaced")
    model = make_model(config, vocabulary)
    parameters, _ = load_weights(str(path / WEIGHTS), model, vocabulary)
    step, checkpoint, data = (
        description.get(key, empty) for key, empty in (("step", 0), ("checkpoint", "last"), ("data", ""))
    )
    return Run(path, config, vocabulary, model, parameters, step, checkpoint, data)


def read_vocabulary(workdir: Path) -> Vocabulary:
    """The vocabulary that a run has saved. Raises UserError if it is missing or damaged."""
    path = workdir / VOCABULARY
    if not path.exists():
        raise UserError(
            f"{workdir} has no {VOCABULARY}: an earlier version trained it; its train command, run again, writes it"
        )
    return vocabulary_of(read_json(path, VOCABULARY_FORM), path)


def vocabulary_of(values: dict, where: Path) -> Vocabulary:
    """The vocabulary that a file holds as JSON. Raises UserError, naming the file `where`, for one that cannot be."""
    level, symbols, unknown = values["level"], tuple(values["symbols"]), values["unknown"]
    check_name(level, LEVELS, f"{where}: level")
    if not symbols or len(set(symbols)) < len(symbols) or (unknown is not None and unknown not in symbols):
        raise UserError(
            f"{where}: symbols must be distinct, at least one, with the unknown {in_short(unknown)} among them"
        )
    if level == "char" and any(len(symbol) != 1 for symbol in symbols):
        raise UserError(f"{where}: a symbol of level char must be one character")
    if level == "byte" and symbols != BYTES:
        raise UserError(f"{where}: the symbols of level byte must be the 256 bytes")
    if level == "bpe" and not is_bpe(values.get("bpe", "")):
        raise UserError(f"{where}: level bpe needs a tokenizer under the key bpe")
    return Vocabulary(level, symbols, unknown, values.get("bpe", ""), tuple(values.get("labels", ())))
