"""Every config loads, is locked, states its number of parameters, and has targets that its runs can meet."""

import ast
import functools
import re
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest

from configs import catalogue
from configs.base import base
from configs.catalogue import all_configs
from launch import COMMANDS
from lm.data.corpora import CORPORA, OWN, Corpus
from lm.data.corpora import load as load_corpus
from lm.data.examples import Examples
from lm.data.pairs import Pairs
from lm.data.rows import Rows
from lm.data.state_tracking import STATE_TASKS
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.language_model import count_parameters
from lm.scoring.measures import MEASURES
from lm.tasks import PROTOCOLS, make_model
from lm.training.setup import make_setup
from tests.helpers.few import few

ROOT = Path(__file__).resolve().parent.parent
# Symbols and training tokens of each corpus, except the user's own text.
VOCABULARY = {
    "text8": 27,
    "text8_prefix": 27,
    "synthetic": 27,
    "ptb": 10_000,
    "ptb_characters": 50,
    "tiny_shakespeare": 65,
    "shakespeare_book": 62,
    "imdb": 20_000,
    "imdb_test_as_valid": 20_000,
    "dbpedia_subset": 65_419,
    "conll2003_ner": 30_290,
    "conll2003_pos": 30_290,
    "atis": 823,
    "cs224d_ner": 100_232,
    "atis, words seen twice": 566,
    "multi30k, words seen twice": 7_857,
}
LABELS = {
    "imdb": 2,
    "imdb_test_as_valid": 2,
    "dbpedia_subset": 14,
    "conll2003_ner": 9,
    "conll2003_pos": 45,
    "atis": 129,
    "labelled": 3,
    "cs224d_ner": 5,
    "multi30k": 5_919,  # symbols of the targets
    "pairs": 40,
}
TOKENS = {
    "text8": 99_999_000,
    "text8_prefix": 6_876_825,
    "synthetic": 1_000_000,
    "ptb": 929_589,
    "ptb_characters": 5_017_482,
    "tiny_shakespeare": 1_003_854,
    "shakespeare_book": 99_993,
}
SPLITS = {"text8": ("valid",), "text8_prefix": ("valid",), "shakespeare_book": ()}  # beside train; others: valid, test
# Metrics of the training log (protocol "train"), and of scores.
TRAIN_METRICS = {
    "loss",
    "epoch_loss",
    "perplexity",
    "minibatch_perplexity",
    "epoch_perplexity",
    "lowest_running_perplexity",
}
SCORE_METRICS = {"perplexity", "loss", "bits_per_symbol", *MEASURES}


FILES = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.name != "__init__.py")
ENTRIES = {entry.path.removeprefix("configs/").replace(".py", ""): entry for entry in all_configs()}
CONFIGS = {name: entry for name, entry in ENTRIES.items() if entry.config.get("kind", "run") == "run"}
QUICK_FIRST = few(CONFIGS, *(name for name in CONFIGS if not name.startswith("state_tracking")))  # drawing takes long


@functools.cache
def load(name):
    return CONFIGS[name].config.copy_and_resolve_references()


def leaves(config, path=""):
    """{dotted key: value}"""
    found = {}
    for key, value in config.items():
        inside = isinstance(value, ml_collections.ConfigDict)
        found |= leaves(value, f"{path}{key}.") if inside else {path + key: value}
    return found


def test_all_configs_are_found():
    assert {"synthetic/lstm", "text8/lstm", "text8/lstm_fused", "ptb/lstm2", "ptb/zaremba:large"} <= CONFIGS.keys()
    assert len(CONFIGS) >= 15


def test_configs_of_other_commands_name_their_command():
    """The command reads every key of its config."""
    for entry in ENTRIES.values():
        kind = entry.config.get("kind", "run")
        if kind != "run":
            [name] = [name for name, command in COMMANDS.items() if command.config == kind]
            assert entry.config.is_locked, entry.path
            files = [ROOT / "experiments" / f"{name}.py", *(ROOT / "experiments" / f"{name}s").glob("*.py")]
            words = set().union(*map(words_of, files))
            assert set(entry.config) - {"kind"} <= words, entry.path
            assert f"--experiment={name}" in entry.module.__doc__, entry.path


def test_unknown_variants_are_refused_and_known_ones_are_listed(tmp_path, monkeypatch):
    for entry in ENTRIES.values():
        if ":" in entry.path:
            known = ", ".join(entry.module.VARIANTS)
            with pytest.raises(UserError, match=f"variant: unknown 'no such'; known: {known}"):
                entry.module.get_config("no such")
    monkeypatch.setattr(catalogue, "CONFIGS", tmp_path / "unlisted")
    (tmp_path / "unlisted").mkdir()
    (tmp_path / "unlisted" / "one.py").write_text("def get_config(variant): pass")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^unlisted/one\.py: get_config\(\) takes a variant, so the file must list"):
        all_configs()


def test_every_file_is_a_config_or_a_helper_that_configs_import():
    """A helper's name begins with an underscore; four files of the top level are not configs either."""
    files_of_configs = {ROOT / entry.path.partition(":")[0] for entry in ENTRIES.values()}
    texts = {path: path.read_text() for path in FILES}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if name in ("configs.base", "configs.catalogue", "configs.loading", "configs.rules"):
            continue
        assert path.name.startswith("_") != (path in files_of_configs), path
        if path.name.startswith("_"):
            assert any(f"from {name} import" in text for text in texts.values()), path


@pytest.mark.parametrize("name", CONFIGS)
def test_names_types_and_locks(name):
    config = load(name)
    path = name.split(":")[0]
    assert config.name in (name, path)
    assert config.source
    docstring = CONFIGS[name].module.__doc__
    assert f"--config=configs/{path}.py" in docstring or "make run" in docstring
    expected = leaves(base())
    found = {key: value for key, value in leaves(config).items() if not key.startswith("targets.")}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert type(found[key]) is type(value), key
    assert config.is_locked
    assert all(part.is_locked for part in config.values() if isinstance(part, ml_collections.ConfigDict))


@pytest.mark.parametrize("name", CONFIGS)
def test_mistyped_keys_and_wrong_types_fail(name):
    config = load(name)
    with pytest.raises(AttributeError, match="learning_rte"):
        config.optim.learning_rte = 1.0
    with pytest.raises(AttributeError, match="optm"):
        config.optm = 1.0
    with pytest.raises(TypeError):
        config.optim.learning_rate = "fast"
    with pytest.raises(TypeError):
        config.train.steps = 1.5


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_the_number_of_parameters_is_as_stated(name):
    config = load(name)
    if config.data.corpus in OWN:
        assert config.parameters == 0, "depends on the file"
        return
    model = make_model(config, stand_in(config).vocabulary)
    assert count_parameters(jax.eval_shape(model.draw, jax.random.key(0))) == config.parameters


def stand_in(config) -> Corpus:
    """A corpus of the right size without a real text."""
    corpus = config.data.corpus
    if corpus in ("cs224d_vectors", "addition", *STATE_TASKS):  # they need no file
        return load_corpus(config.data, None)
    words = f"{corpus}, words seen twice" if config.data.min_count == 2 else corpus
    size, tokens = VOCABULARY.get(words, 50), TOKENS.get(corpus, 100_000)
    size = min(size, config.data.max_vocabulary or size)
    symbols = ("<eos>", *config.sample.prompt.split(), *(chr(0x4E00 + i) for i in range(size)))[:size]
    vocabulary = Vocabulary(
        "word", symbols, labels=("O", *(f"B-{i}" for i in range(1, LABELS[corpus]))) if corpus in LABELS else ()
    )
    texts = {"train": np.broadcast_to(np.uint8(0), tokens)}
    texts |= {split: np.zeros(10_000, np.uint8) for split in SPLITS.get(corpus, ("valid", "test"))}
    if vocabulary.labels:
        per_token = config.task == "tagging"
        texts = {name: examples_of(len(ids), per_token) for name, ids in texts.items()}
    if config.task == "translation":
        texts = {name: Pairs(some, some, len(some) * ("",)) for name, some in texts.items()}
    if config.task == "windows":
        x, ids = np.zeros((10_000, config.data.window), np.uint32), np.zeros(10_000, np.uint8)
        texts = dict.fromkeys(("train", "valid"), Rows(x, ids, ids[:1]))
    return Corpus(corpus, vocabulary, texts, {})


def examples_of(tokens: int, per_token: bool) -> Examples:
    """Sequences of 10 tokens."""
    starts = np.arange(0, tokens + 1, 10)
    return Examples(np.zeros(tokens, np.uint8), starts, np.zeros(tokens if per_token else len(starts) - 1, np.uint8))


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_it_would_run(name):
    """Passes every check before the first training step, on a corpus of the right size without a real text."""
    config = load(name)
    assert config.data.corpus in CORPORA
    corpus = stand_in(config)
    setup = make_setup(config, corpus)
    assert setup.total_steps > 0
    assert config.evaluation.during in PROTOCOLS
    assert set(config.evaluation.protocols) <= set(PROTOCOLS)
    assert set(config.evaluation.splits) <= set(corpus.splits), "a split to score that the corpus lacks"


@pytest.mark.parametrize("name", CONFIGS)
def test_targets_can_be_met(name):
    """Each target names a split, protocol and metric that runs of this config record, and its place in the source."""
    config = load(name)
    protocols = set(config.evaluation.protocols)
    for key, target in config.targets.items():
        assert set(target) == {"split", "protocol", "metric", "value", "where", "tolerance", "at", "kind"}, key
        assert target.kind in ("reported", "aim"), key
        assert target.where, key
        assert target.value > 0, key
        assert 0 <= target.tolerance < 0.2 * target.value, key
        assert re.fullmatch(r"final|best|(epoch|step) \d+", target.at), key
        if target.protocol == "train":
            assert target.split == "train", key
            assert target.metric in TRAIN_METRICS, key
        else:
            assert target.metric in SCORE_METRICS, key
            known = protocols if target.at in ("final", "best") else {config.evaluation.during}
            assert target.at != "best" or config.checkpoint.best == "keep", key
            assert target.protocol in known, key
            assert target.split in config.evaluation.splits, key


def test_steps_of_the_sources():
    """The lengths that the sources state, computed from the configs."""

    def windows(name):
        config = load(name)
        row = TOKENS[config.data.corpus] // config.data.batch_size
        return (row - 1) // config.data.unroll

    assert load("text8/lstm_fused").train.steps == 7001
    assert load("text8/bigram_dropout:printed").train.steps == 21_001
    assert windows("ptb/lstm2") == 774
    assert windows("shakespeare/rnn") == 195
    assert windows("shakespeare/lstm:book") == 249


# --- No dead keys -----------------------------------------------------------------------------------------------


def words_of(path):
    """Attribute names, and strings that are not docstrings, of a file."""
    words = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    return words


def reads_of(path):
    """(group, key) of every GROUP.KEY in a file, GROUP being the last name before the dot; strings as ("", string)."""
    reads = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            reads.add((getattr(node.value, "attr", getattr(node.value, "id", "")), node.attr))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            reads.add(("", node.value))
    return reads


@functools.cache
def all_reads():
    files = [*(ROOT / "lm").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    # Scoring gets the group `evaluation` alone and calls it settings.
    scoring = [ROOT / "lm/scoring/protocols.py", ROOT / "lm/tasks/translation.py"]
    settings = {("evaluation", key) for path in scoring for group, key in reads_of(path) if group == "settings"}
    # Models get the group `model` alone and call it config.
    models = {("model", key) for group, key in reads_of(ROOT / "lm/model/sequence_model.py") if group == "config"}
    return set().union(settings, models, *map(reads_of, files))


# Groups that are read in a loop over names: their keys occur in strings, or as attributes of `keep`.
BY_NAME = {"init": (), "keep_prob": ("keep",), "zoneout": (), "penalty": ()}
# Keys for people, who read them in config.json and summary.json, and for these tests.
FOR_PEOPLE = {"source", "parameters"}


def is_read(dotted):
    group, _, key = f"config.{dotted}".rpartition(".")
    group = group.split(".")[-1]
    owners = {group, *(("", *BY_NAME[group]) if group in BY_NAME else ())}
    return any((owner, key) in all_reads() for owner in owners)


@pytest.mark.parametrize("key", leaves(base()))
def test_every_key_is_read_somewhere(key):
    assert is_read(key) or key in FOR_PEOPLE, f"config.{key} is read nowhere in lm/ or experiments/"


def test_the_search_for_dead_keys_would_find_one():
    assert is_read("optim.learning_rate")
    assert not is_read("optim.learning_rte")
    assert not is_read("data.momentum")  # config.optim has that
    assert not is_read("sample.every_steps")  # config.checkpoint has that
    assert not is_read("keep_prob.everything")
