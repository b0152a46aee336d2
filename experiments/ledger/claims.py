"""The claims: every config with targets, and how each is launched."""

import fnmatch
import importlib
from typing import NamedTuple

import ml_collections

from lm.data.corpora import CORPORA
from lm.errors import UserError, check_name, suggestions

# Modules whose configs have targets -> their variants; "" for a module without variants.
CLAIMS = {
    "configs.text8.lstm": ("",),
    "configs.text8.lstm_fused": ("",),
    "configs.text8.embedding": ("",),
    "configs.text8.bigram": ("",),
    "configs.text8.bigram_dropout": ("printed", "real"),
    "configs.ptb.lstm2": ("",),
    "configs.ptb.zaremba": ("small", "small_held_5", "medium", "large"),
    "configs.cs224d.rnnlm": ("",),
    "configs.shakespeare.rnn": ("",),
    "configs.shakespeare.lstm": ("book", "correct"),
    "configs.tiny_shakespeare.char": ("lstm", "gru"),
}


class Claim(NamedTuple):
    """A config with targets. path: the value of --config, such as configs/ptb/zaremba.py:small."""

    path: str
    config: ml_collections.ConfigDict


def default_config() -> ml_collections.ConfigDict:
    """Every key of a config with its default."""
    return importlib.import_module("configs.base").base()


def all_claims() -> list[Claim]:
    """All claims, in the order of the table."""
    claims = []
    for module, variants in CLAIMS.items():
        get_config = importlib.import_module(module).get_config
        path = module.replace(".", "/") + ".py"
        for variant in variants:
            arguments, suffix = ((variant,), f":{variant}") if variant else ((), "")
            claims.append(Claim(path + suffix, get_config(*arguments)))
    return claims


def matching(patterns: str) -> list[Claim]:
    """Claims whose name (text8/lstm), or name and target (ptb/lstm2/test), matches one of PATTERN,PATTERN,...

    Patterns are as in a shell. A config is run for all its targets. Raises UserError for a pattern without a match.
    """
    claims, chosen = all_claims(), set()
    for pattern in patterns.split(","):
        found = {c.config.name for c in claims if any(fnmatch.fnmatchcase(n, pattern) for n in _names(c.config))}
        if not found:
            known = suggestions(pattern, [claim.config.name for claim in claims])
            raise UserError(f"--targets={pattern} matches no config with targets{known}")
        chosen |= found
    return [claim for claim in claims if claim.config.name in chosen]


def _names(config: ml_collections.ConfigDict) -> list[str]:
    return [config.name, *[f"{config.name}/{target}" for target in config.targets]]


def suits(claim: Claim, corpus: str) -> bool:
    """True for a known corpus that is built like the claim's own: text8_prefix for text8."""
    return corpus in CORPORA and CORPORA[corpus].build is CORPORA[claim.config.data.corpus].build


def on_corpus(claims: list[Claim], corpus: str) -> list[Claim]:
    """Moves the claims that `corpus` suits to it, such as those of text8 to text8_prefix; the others stay as they are.

    Raises UserError for an unknown corpus, and for one that suits no claim.
    """
    check_name(corpus, CORPORA, "--corpus")
    changed = []
    for claim in claims:
        config = claim.config.copy_and_resolve_references()
        if suits(claim, corpus):
            config.data.corpus = corpus
        changed.append(Claim(claim.path, config))
    if all(claim.config.data.corpus != corpus for claim in changed):
        raise UserError(f"--corpus={corpus} is built differently from the corpora of these targets")
    return changed
