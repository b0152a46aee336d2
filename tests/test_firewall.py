"""Nothing looks at the test split before training is over, and every look is on record.

tests/tasks/test_every_task.py says so of every task, and of lanes.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from configs.textfile import get_config
from experiments import evaluate, train
from experiments.pages.printed import print_results
from lm.data import own_files
from lm.data.corpora import CORPORA, checksum, load
from lm.data.files import RegisteredFile
from lm.errors import UserError
from lm.scoring.protocols import evaluate as score
from lm.training.loop import Trainer
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from lm.training.summary import NO_TEST
from tests.helpers import tiny


def config(**changes):
    return tiny.config(
        evaluation__splits=("valid", "test"),
        evaluation__protocols=("exact", "batched"),
        evaluation__batch_size=2,
        evaluation__unroll=3,
        checkpoint__best="keep",
        checkpoint__every_steps=6,
        **changes,
    )


def test_the_test_text_is_read_once_and_after_the_last_step(tmp_path):
    test, reads = tiny.text(50, seed=2), []

    def read_test():
        reads.append(trainer.recorder.done)
        return test

    trainer = Trainer(Recorder(make_setup(config(), tiny.corpus()), tmp_path, read_test=read_test))
    summary = trainer.run()
    assert reads == [12]
    rows = [row for row in summary["results"] if row["split"] == "test"]
    assert [(row["which"], row["protocol"]) for row in rows] == [
        ("final", "exact"),
        ("final", "batched"),
        ("best", "exact"),
        ("best", "batched"),
    ]
    expected = score(
        "exact", trainer.setup.task.model, trainer.recorder.parameters(trainer.state), test, config().evaluation
    )
    assert rows[0]["nats"] == expected.nats
    assert summary["not_scored"] == {}


def test_every_score_of_it_is_logged(tmp_path):
    summaries = [
        Trainer(Recorder(make_setup(config(), tiny.corpus()), tmp_path, read_test=lambda: tiny.text(50, seed=2))).run()
        for _ in range(2)
    ]
    log = [json.loads(line) for line in (tmp_path / "test_log.jsonl").read_text().splitlines()]
    rows = [row for summary in summaries for row in summary["results"] if row["split"] == "test"]
    assert [{key: row[key] for key in row if key not in ("time", "settings")} for row in log] == rows
    for row in log:  # so that scores with other settings can be told apart
        assert row.get("settings", {}) == ({"batch_size": 2, "unroll": 3} if row["protocol"] == "batched" else {})
    assert all(row["time"].endswith("+00:00") for row in log)


def test_scores_of_valid_are_not(tmp_path):
    Trainer(Recorder(make_setup(config(), tiny.corpus()), tmp_path)).run()
    assert not (tmp_path / "test_log.jsonl").exists()


def test_a_run_without_its_test_file_trains_and_says_what_is_missing(tmp_path):
    def read_test():
        raise UserError("ptb.test.txt is not here")

    summary = Trainer(Recorder(make_setup(config(), tiny.corpus()), tmp_path, read_test=read_test)).run()
    assert summary["not_scored"] == {"test": "ptb.test.txt is not here"}
    assert {row["split"] for row in summary["results"]} == {"valid"}


def test_a_corpus_without_a_test_split_says_that_test_is_not_scored(tmp_path, capsys):
    summary = Trainer(Recorder(make_setup(config(), tiny.corpus()), tmp_path, read_test=lambda: None)).run()
    assert summary["not_scored"] == {"test": NO_TEST}
    print_results(summary)
    assert f"\ntest is not scored: {NO_TEST}\n" in capsys.readouterr().out
    assert "config.data.test_path" in NO_TEST


@pytest.fixture
def own_text(tmp_path):
    """(a config of a text file, the file)"""
    path = tmp_path / "text"
    path.write_text("".join("abcd "[i] for i in np.concatenate([tiny.text(3000), tiny.text(900, seed=1)])))
    c = get_config()
    c.update_from_flattened_dict(
        {
            "data.path": str(path),
            "model.hidden": (3,),
            "train.epochs": 0,
            "train.steps": 3,
            "data.batch_size": 3,
            "data.unroll": 4,
            "train.report_every": 3,
            "evaluation.splits": ("valid", "test"),
            "model.input": "one_hot",
        }
    )
    return c


@pytest.mark.slow
def test_a_text_that_is_rewritten_during_training_is_not_scored(tmp_path, own_text, monkeypatch):
    """Under the checksum of the old one, the test perplexity of another text would stand in the summary."""
    undisturbed = train.run(own_text, str(tmp_path / "undisturbed"))
    path = Path(own_text.data.path)
    content = path.read_text()
    checkpoint = Recorder.save

    def save(self, *arguments, **keywords):
        path.write_text(content[::-1])
        return checkpoint(self, *arguments, **keywords)

    monkeypatch.setattr(Recorder, "save", save)
    summary = train.run(own_text, str(tmp_path / "run"))
    assert summary["not_scored"] == {"test": "the text has changed since training began"}
    assert [row for row in summary["results"] if row["split"] == "test"] == []
    valid = [[row for row in each["results"] if row["split"] == "valid"] for each in (summary, undisturbed)]
    assert valid[0] == valid[1]
    assert summary["provenance"]["data"]["checksum"] == undisturbed["provenance"]["data"]["checksum"]


def test_a_text_is_read_once_for_its_checksum_too(tmp_path, own_text, monkeypatch):
    """A file that changes between two reads would be trained on under the other's checksum."""
    reads, read = [], own_files._read
    monkeypatch.setattr(own_files, "_read", lambda *arguments: reads.append(arguments) or read(*arguments))
    corpus = load(own_text.data, None)
    assert len(reads) == 1
    assert corpus.provenance["checksum"] == checksum(own_text.data)


PTB_TEXTS = {"train": " a b c d a b\n" * 120, "valid": " a c b d\n" * 20, "test": " d c b a\n" * 20}


@pytest.fixture
def small_ptb(tmp_path, monkeypatch):
    """A directory of the corpus ptb, of three files of a few words, the test file not among them."""
    directory = tmp_path / "data"
    (directory / "ptb").mkdir(parents=True)
    files = {}
    for split, text in PTB_TEXTS.items():
        path = f"ptb/ptb.{split}.txt"
        files[split] = RegisteredFile(path, len(text), hashlib.sha256(text.encode()).hexdigest(), None)
        if split != "test":
            (directory / path).write_text(text)
    monkeypatch.setitem(CORPORA, "ptb", CORPORA["ptb"]._replace(files=files))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    return directory


def test_ptb_trains_without_its_test_file_and_is_scored_once_it_is_there(tmp_path, small_ptb, capsys):
    """The whole way: the loader, the run, its record, and the evaluation that makes up for what was missing."""
    settings, workdir = config(data__corpus="ptb"), tmp_path / "run"
    summary = train.run(settings, str(workdir), str(small_ptb))
    assert summary["train"]["steps"] == 12
    assert {row["split"] for row in summary["results"]} == {"valid"}
    assert "ptb/ptb.test.txt is not in" in summary["not_scored"]["test"]
    assert "--experiment=evaluate scores it later" in capsys.readouterr().out
    assert not (workdir / "test_log.jsonl").exists()

    (small_ptb / "ptb" / "ptb.test.txt").write_text(PTB_TEXTS["test"])
    again = evaluate.run(settings, str(workdir), str(small_ptb))
    assert again["not_scored"] == {}
    assert [row for row in again["results"] if row["split"] == "valid"] == summary["results"]
    tested = [row for row in again["results"] if row["split"] == "test"]
    assert [(row["which"], row["targets"]) for row in tested if row["protocol"] == "exact"] == [
        ("final", 99),
        ("best", 99),  # 20 lines of four words and their end
    ]
    assert len((workdir / "test_log.jsonl").read_text().splitlines()) == len(tested) == 4
