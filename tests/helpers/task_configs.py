"""A small config for each task of lm/tasks/__init__.py: TASKS, on files of its own."""

from configs.addition import lstm as addition
from configs.cs224d import ner, softmax
from lm.data import corpora
from tests.helpers import labelled, tiny


def _text(directory):
    path = directory / "text.txt"
    path.write_text("".join(tiny.SYMBOLS[i] for i in tiny.text(600)))
    return tiny.config(
        data__corpus="textfile",
        data__path=str(path),
        data__fractions=(0.7, 0.15, 0.15),
        data__batching="rows",
        keep_prob__output=0.7,
    )


def _labelled(task, write, buckets):
    def make(directory):
        path = write(directory / "train.txt")
        config = labelled.config(path, task, keep_prob__input=0.9, data__buckets=buckets)
        config.data.test_path = str(write(directory / "test.txt", count=10, seed=1))
        return config

    return make


def _vectors(directory):
    return softmax.get_config()  # its corpus has neither a validation nor a test split


# A small corpus in the form of CS224d's, which stands for its files: `small_corpora`.
NER_WORDS = ("UUUNKKK", "the", "<s>", "</s>", "DGDG", "DG.DG", "of", "paris", "-docstart-")
NER_TEXT = "-DOCSTART-\tO\n\nParis\tLOC\nof\tO\n42\tO\n\n\nThe\tO\nLouvre\tORG\n"
NER_FILES = {"vocabulary": "\n".join(NER_WORDS), "train": 12 * NER_TEXT, "valid": NER_TEXT + "\nParis\tLOC\n"}


def small_corpora(patch):
    """Replaces the files of cs224d_ner. patch: a pytest.MonkeyPatch"""
    definition = corpora.CORPORA["cs224d_ner"]

    def build(data, text, splits, given):
        return definition.build(data, NER_FILES.__getitem__, splits, given)

    patch.setitem(corpora.CORPORA, "cs224d_ner", definition._replace(build=build))


def _translation(directory):
    config = addition.get_config()
    config.data.size, config.data.batch_size, config.data.buckets = 200, 16, 2
    config.model.hidden, config.keep_prob.output, config.loss.teacher_forcing = (6,), 0.9, 0.7
    config.parameters = 0
    return config


def _windows(directory):
    config = ner.get_config("random")
    config.model.hidden, config.model.embedding_size, config.data.batch_size = (4,), 3, 5
    config.evaluation.batch_size, config.parameters, config.train.patience = 4, 0, 0
    config.checkpoint.best = "none"
    return config


CONFIGS = {
    "language_modelling": _text,
    "classification": _labelled("classification", labelled.write_tsv, buckets=2),
    "tagging": _labelled("tagging", labelled.write_columns, buckets=1),
    "translation": _translation,
    "vectors": _vectors,
    "windows": _windows,
}


def config_of(task: str, directory):
    """The config of a task. It validates every few steps, and scores every split that its corpus has."""
    assert task in CONFIGS, f"config.task={task} has no small config: add a row to tests/helpers/task_configs.py"
    config = CONFIGS[task](directory)
    config.optim.name, config.optim.learning_rate = "adam", 0.02
    config.train.steps, config.train.epochs = 20, 0
    config.train.report_every, config.train.evaluate_every, config.checkpoint.every_steps = 4, 6, 3
    config.train.steps_per_dispatch = 4
    config.evaluation.splits = ("train", "valid", "test")
    return config
