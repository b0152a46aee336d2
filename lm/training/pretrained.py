"""Initial parameters that are not drawn at random: those of another run, or pretrained word vectors."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lm.data.corpora import Corpus
from lm.data.examples import ids_of
from lm.data.vectors import read_vectors
from lm.errors import UserError
from lm.runs.plain import flat, plain


class Start(NamedTuple):
    """Given initial parameters, with NaN for values to draw at random. description: one line to print"""

    parameters: dict
    description: str

    @property
    def checksum(self) -> str:
        """16 hexadecimal digits of a hash of the names and values; part of the data checksum in a run's checkpoints."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.parameters):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]


def start_from_run(config, path: str, theirs, parameters: dict) -> Start:
    """Starts from the parameters of the run at `path`, which was trained with the config `theirs`. Raises UserError,
    naming the keys, if the two configs differ in config.model."""
    ours, theirs = flat(plain(config.model)), flat(plain(theirs["model"]))
    keys = [key for key in ours if ours[key] != theirs.get(key) and key not in ("embedding_from", "embedding_case")]
    if keys:
        changes = ", ".join(f"config.model.{key} is {theirs.get(key)!r} there, {ours[key]!r} here" for key in keys)
        raise UserError(f"config.init_from={path}: {changes}: set the values of that run")
    return Start(parameters, f"starting from the parameters of {path}")


def start_from_vectors(config, corpus: Corpus, data_dir: str | None = None) -> Start:
    """Starts from the word vectors of config.model.embedding_from; draws all other parameters at random.

    A word without a vector gets a random one, or zeros if config.data.words adds it and the training text lacks it.
    data_dir: directory of the registered vectors
    """
    vocabulary, path, model = corpus.vocabulary, config.model.embedding_from, config.model
    if model.input != "embedding":
        raise UserError(f"config.model.embedding_from needs config.model.input=embedding, not {model.input}")
    table, found = read_vectors(path, vocabulary, model.embedding_size, data_dir, model.embedding_case)
    if config.data.words != "train":
        unread = np.setdiff1d(np.arange(vocabulary.size), ids_of(corpus.splits["train"]))
        table[unread] = np.nan_to_num(table[unread])
    share = f"{found} of {vocabulary.size} symbols ({found / vocabulary.size:.1%})"
    rest = "drawn at random" + (", or zero if the training text lacks them" if config.data.words != "train" else "")
    return Start({"embedding": table}, f"{share} have a vector in {path}; the others are {rest}")


def overlay(drawn: dict, start: dict) -> dict:
    """Replaces values of `drawn` by those of `start` that are not NaN. Raises UserError if shapes differ."""
    result = dict(drawn)
    for name, value in start.items():
        if isinstance(value, Mapping):
            result[name] = overlay(drawn[name], value)
        elif value.shape != drawn[name].shape:
            raise UserError(f"config.init_from: {name} is {value.shape} there and {drawn[name].shape} here")
        else:
            result[name] = jnp.where(jnp.isnan(value), drawn[name], value)
    return result
