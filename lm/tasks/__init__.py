"""Tasks: one file per kind of training. `task.py` defines their interface.

To add one, write its file and a row of TASKS. Trainer, resume, lanes, sweeps, ledger and reports work for any task.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

from lm.data.corpora import Corpus
from lm.data.labelled_corpora import tokens_of
from lm.data.pair_corpora import source_tokens
from lm.data.text import Vocabulary
from lm.errors import lookup
from lm.scoring import protocols
from lm.tasks import labelling, language_modelling, rows, translation, word_updates
from lm.tasks.task import Task


class Definition(NamedTuple):
    """purpose: one line for --help
    model: (config, vocabulary) -> model; task: (config, corpus) -> task. Both raise UserError if values do not fit.
    tokens: (config, vocabulary, text) -> tokens of the text, including those that the vocabulary lacks
    label: (config, vocabulary, model, parameters, text) -> (tokens, most probable labels, log-probabilities of all
        labels), for tasks that label a text
    write: (config, sample, vocabulary, model, parameters, lines) -> translated lines, for tasks that translate
    """

    purpose: str
    model: Callable[[ConfigDict, Vocabulary], Any]
    task: Callable[[ConfigDict, Corpus], Task]
    tokens: Callable[[FrozenConfigDict, Vocabulary, str], list[str]] | None = None
    label: Callable | None = None
    write: Callable | None = None

    @property
    def command(self) -> str:
        """The --experiment that applies a run of this task to a text, or ""."""
        return "translate" if self.write else "score" if self.tokens else ""


def _labelled_tokens(config, vocabulary, text) -> list[str]:
    return tokens_of(config.data, text)


TASKS = {
    "language_modelling": Definition(
        "predicts the next symbol of a text",
        language_modelling.make_language_model,
        language_modelling.make_language_modelling,
        lambda config, vocabulary, text: vocabulary.tokens(text),
    ),
    "classification": Definition(
        "labels each text",
        labelling.make_labels_model,
        labelling.make_labelling,
        _labelled_tokens,
        labelling.label_sequence,
    ),
    "tagging": Definition(
        "labels each token of a text",
        labelling.make_labels_model,
        word_updates.make_tagging,
        _labelled_tokens,
        labelling.label_sequence,
    ),
    "windows": Definition(
        "labels each token of a text from the window around it",
        rows.make_windows_model,
        rows.make_row_classification,
        lambda config, vocabulary, text: rows.word_symbols(vocabulary, text),
        rows.label_words,
    ),
    "translation": Definition(
        "translates a source sequence into a target sequence",
        translation.make_translation_model,
        translation.make_translation,
        lambda config, vocabulary, text: source_tokens(config.data, text),
        write=translation.translate_lines,
    ),
    "vectors": Definition("labels vectors of numbers", rows.make_vectors_model, rows.make_row_classification),
}

# Values of config.evaluation.protocols. A task rejects those that it does not support.
PROTOCOLS: dict[str, Any] = translation.PROTOCOLS | protocols.PROTOCOLS


def protocol_settings(protocol: str, evaluation: Mapping) -> dict[str, Any]:
    """{key: value} of the settings on which a score under this protocol depends. evaluation: config.evaluation"""
    reads = PROTOCOLS[protocol].reads if protocol in PROTOCOLS else ()  # a stranger's results may name any protocol
    return {key: evaluation[key] for key in reads if key in evaluation}


def make_model(config: ConfigDict, vocabulary: Vocabulary) -> Any:
    """Makes the model of config.task. Raises UserError for values that do not fit each other or the vocabulary."""
    return lookup(TASKS, config.task, "config.task").model(config, vocabulary)


def make_task(config: ConfigDict, corpus: Corpus) -> Task:
    """Makes the task of config.task. Raises UserError for values that do not fit each other or the corpus."""
    return lookup(TASKS, config.task, "config.task").task(config, corpus)
