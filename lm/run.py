"""Opens a trained run or an export, to score, sample, label, translate and inspect texts.

    run = lm.open_run("runs/mine")
    run.config, run.vocabulary, run.step
    run.nats("some text"), run.log_probs("some text"), run.sample("The ")
    run.states("some text"), run.gates("some text")
    run.label_probabilities("some text")                  # classifiers and taggers only

`open_run` reads only the directory of the run or export: it needs neither the config file nor the training text.
"""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from configs.rules import check_values
from lm.data.subwords import BYTES, is_bpe
from lm.data.text import LEVELS, Vocabulary, one_line_end
from lm.errors import UserError, check_name, first_line, in_short
from lm.machine import numerics
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
    **{"run?": str, "weights_sha256?": str},  # checksums of config and weights; older exports lack them
}

# Config keys that do not change what a trained model computes: a command may set them for a trained run.
USES = (*FREE, "evaluation.")


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with its config and vocabulary.

    workdir: its directory; checkpoint: "last" or "best"; step: number of training steps made
    parameters: those used for evaluation (for asgd the averages)
    data: checksum of the training corpus; "" if it was not recorded
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
        """Whether `workdir` is an export, which has no checkpoints, rather than a run."""
        return (self.workdir / WEIGHTS).exists()

    def check_task(self, use: str, *tasks: str):
        """Raises UserError unless config.task is in `tasks`. use: what needs one of them, for the message"""
        if self.config.task not in tasks:
            command, needed = TASKS[self.config.task].command, " or ".join(tasks)
            raise UserError(
                f"{self.workdir} was trained with config.task={self.config.task}, and {use} needs config.task={needed}"
                f"{f'; use --experiment={command} for this run' if command else ''}"
            )

    def _function(self, name: str, use: str) -> Callable:
        """The function `name` of the run's task. Raises UserError if only other tasks have it. use: see check_task"""
        functions = {task: getattr(entry, name) for task, entry in TASKS.items()}
        self.check_task(use, *(task for task, function in functions.items() if function))
        return functions[self.config.task]

    def tokens(self, text: str) -> list[str]:
        """Tokens of a text, including tokens that the vocabulary lacks."""
        return self._function("tokens", "run.tokens")(self.config, self.vocabulary, self._read(text, "run.tokens"))

    def _read(self, text: str, use: str) -> str:
        """A text as a file is read in training: except at level byte, drops a byte-order mark and turns line ends into
        \\n. Raises UserError unless it is a string. use: what reads it, for the message"""
        check_text(text, use)
        return text if self.vocabulary.level == "byte" else one_line_end(text)

    def label_probabilities(self, text: str) -> tuple[list[str], np.ndarray]:
        """Returns (tokens [N], label probabilities): [1, C] for a classifier, [N, C] for a tagger.

        C: length of run.vocabulary.labels. Raises UserError for an empty text, and if the task labels no text.
        """
        tokens, _, probabilities = self.predicted_labels(text)
        return tokens, probabilities

    def predicted_labels(self, text: str) -> tuple[list[str], list[str], np.ndarray]:
        """Returns (tokens [N], most probable labels, label probabilities), of the text or of each token.

        For a CRF the labels are the most probable sequence, and the probabilities are the marginals of each token.
        """
        label, read = self._function("label", "labelling a text"), self._read(text, "labelling a text")
        tokens, labels, log_probs = label(self.config, self.vocabulary, self.model, self.parameters, read)
        return tokens, [self.vocabulary.labels[number] for number in labels], np.exp(log_probs)

    def translate(self, lines: list[str], sample=None) -> list[str]:
        """Translates each line. sample: config.sample with `beams`, `length` and `length_penalty`; None: the run's own.
        Raises UserError for symbols that the vocabulary lacks, and for another task."""
        write = self._function("write", "run.translate")
        if isinstance(lines, str):
            raise UserError("run.translate needs a list of lines, not a single text")
        lines = [self._read(line, "run.translate") for line in lines]
        return write(self.config, sample or self.config.sample, self.vocabulary, self.model, self.parameters, lines)

    def encode(self, text: str) -> np.ndarray:
        """Encodes a text as ids [N]; `tokens` are their symbols. Raises UserError for a text shorter than the model's
        context, and for symbols that the vocabulary lacks if it has no unknown symbol."""
        self.check_task("encoding a text", "language_modelling")
        ids = self.vocabulary.encode(self._read(text, "run.encode"))
        if len(ids) < self.model.context:
            raise UserError(f"the text has {len(ids)} tokens; this model reads at least {self.model.context}")
        return ids

    def log_probs(self, text: str) -> np.ndarray:
        """Log-probabilities [N - context + 1, V], in nats, of the next symbol after each prefix. The last row predicts
        the symbol after the full text."""
        return self.trace(text).log_probs

    def trace(self, text: str) -> inspection.Trace:
        """States, gates and log-probabilities at every step."""
        return inspection.trace(self.model, self.parameters, self.encode(text))

    def nats(self, text: str) -> np.ndarray:
        """-ln p [N - context] of every token of the text, except the first `context`, which are not predicted."""
        return self.token_scores(text).nats

    def token_scores(self, text: str) -> inspection.TokenScores:
        """Nats, rank and entropy of every predicted token."""
        return inspection.score_tokens(self.model, self.parameters, self.encode(text))

    def states(self, text: str) -> tuple:
        """Carries after every time step: one per layer, with fields [N - context + 1, H], such as c and h."""
        return self.trace(text).states

    def gates(self, text: str) -> tuple[dict[str, np.ndarray], ...]:
        """Gates at every time step: for each layer {name in the cell's equations: [N - context + 1, H]}. Raises
        UserError for a cell without gates."""
        gates = self.trace(text).gates
        if not any(gates):
            raise UserError(f"config.model.cell={self.config.model.cell} has no gates")
        return gates

    def sample(self, prompt: str = "", **settings) -> list[str]:
        """Generates texts. settings: keys of config.sample, such as temperature=0.7, length=200, number=1, seed=3.

        Raises UserError for unknown or invalid settings.
        """
        self.check_task("sampling", "language_modelling")
        config = restore(self.config.to_dict(), self.workdir)
        try:
            plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in settings.items()}
            config.sample.update({"prompt": prompt or config.sample.prompt, **plain})
        except KeyError as error:
            raise UserError(f"run.sample: {error.args[0]}; known: {', '.join(config.sample)}") from error
        except TypeError as error:
            raise UserError(f"run.sample: {first_line(error)}") from error
        check_values(config)
        return generate(self.model, self.parameters, self.vocabulary, config.sample)

    def check_config(self, config: ConfigDict):
        """Raises UserError, naming the keys, if a value of `config` is invalid, or if it would change what the trained
        model computes."""
        check_values(config)
        if changed := differences(self.config, config, USES):
            raise UserError(
                f"{self.workdir} was trained with another config ({shown(changed)}): leave out --config and these "
                "keys to use the run's own config; config.evaluation and config.sample may differ"
            )


def check_text(text, use: str):
    """Raises UserError unless `text` is a string. use: what reads it, for the message"""
    if not isinstance(text, str):
        raise UserError(f"{use} needs a text, not a {type(text).__name__}")


def open_run(path: str | Path, checkpoint: str = "last") -> Run:
    """Opens the run in directory `path` at its last or its best checkpoint, or opens an export.

    Prints a warning if JAX's settings are not those that runs are made with. Raises UserError if the directory holds
    neither a run nor an export, or is damaged.
    """
    if changed := numerics.other_settings():
        print(f"warning: {changed}: with other settings than in training, numbers may differ", file=sys.stderr)
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"open_run needs the directory of a run, not {path!r}")
    check_name(checkpoint, CHECKPOINTS, "--checkpoint")
    path = Path(path)
    file = path / "config.json"
    if not os.path.exists(file):  # also False for a path that is too long
        raise UserError(f"{in_short(str(path))[1:-1]} holds no run: it has no config.json")
    check_no_links(path)
    read = get_config(str(file))
    check_values(read)  # before freezing, which fails for some invalid values
    config = FrozenConfigDict(read)
    if (path / WEIGHTS).exists():
        return _open_export(path, config, read_json(file, EXPORT))
    if not (path / VOCABULARY).exists():
        raise UserError(
            f"{path} has no {VOCABULARY}: an earlier version trained it; run the train command again to write it"
        )
    vocabulary = vocabulary_of(read_json(path / VOCABULARY, VOCABULARY_FORM), path / VOCABULARY)
    model = make_model(config, vocabulary)
    checkpoints = Checkpoints(path, keep=config.checkpoint.keep)
    template = state_shapes(config, model, hyper_of(config))
    restored = checkpoints.restore(template, which=checkpoint)
    if restored is None:
        hint = "train with config.checkpoint.best=keep" if checkpoint == "best" else "train a run there first"
        raise UserError(f"{path} holds no {checkpoint} checkpoint: {hint}")
    state, extra, step = restored
    where = f"{path}: the checkpoint of step {step}"
    schema.check(extra, {"data?": str, **origin.FORM}, where)
    origin.check_origin(extra, config, vocabulary.digests, where)
    data = extra.get("data", "")
    last = checkpoints.restore(template) if checkpoint == "best" else None
    if last and last[1].get("data", data) != data:
        raise UserError(f"{where} in best/ was trained on other data than the last checkpoint: it is from another run")
    return Run(path, config, vocabulary, model, evaluated_parameters(state), step, checkpoint, data)


def _open_export(path: Path, config: FrozenConfigDict, description: dict) -> Run:
    vocabulary = vocabulary_of(description["vocabulary"], path / "config.json")
    if description.get("run") not in (None, origin.run_of(config)):
        raise UserError(f"{path}/config.json was changed: its config is not the one that the weights were trained with")
    if description.get("weights_sha256") not in (None, sha256_of(path / WEIGHTS)):
        raise UserError(f"{path}/{WEIGHTS} is not the file that was exported with config.json: one was replaced")
    model = make_model(config, vocabulary)
    parameters, _ = load_weights(str(path / WEIGHTS), model, vocabulary)
    saved: dict[str, Any] = {"step": 0, "checkpoint": "last", "data": ""} | description
    return Run(path, config, vocabulary, model, parameters, saved["step"], saved["checkpoint"], saved["data"])


def vocabulary_of(values: dict, where: Path) -> Vocabulary:
    """Builds a vocabulary from the JSON values of a file. Raises UserError, naming the file `where`, if invalid."""
    level, symbols, unknown = values["level"], tuple(values["symbols"]), values["unknown"]
    check_name(level, LEVELS, f"{where}: level")
    if not symbols or len(set(symbols)) < len(symbols) or (unknown is not None and unknown not in symbols):
        raise UserError(
            f"{where}: symbols must be distinct, at least one, and include the unknown symbol {in_short(unknown)}"
        )
    if level == "char" and any(len(symbol) != 1 for symbol in symbols):
        raise UserError(f"{where}: a symbol of level char must be one character")
    if level == "byte" and symbols != BYTES:
        raise UserError(f"{where}: the symbols of level byte must be the 256 bytes")
    if level == "bpe" and not is_bpe(values.get("bpe", "")):
        raise UserError(f"{where}: level bpe needs a tokenizer under the key bpe")
    return Vocabulary(level, symbols, unknown, values.get("bpe", ""), tuple(values.get("labels", ())))
