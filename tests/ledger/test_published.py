"""What `reproduce --check` finds in docs/results beyond what it finds in any ledger."""

import json
import shutil

import pytest

from experiments.ledger import published
from experiments.ledger.claims import Claim, all_claims, check_docstring
from experiments.ledger.records import RESULTS
from experiments.reproduce import run
from lm.errors import UserError
from tests.ledger.test_ledger_check import edit


def test_what_is_published_is_whole_and_current():
    assert run(None, RESULTS, check=True)["rows"]


def test_a_claim_without_a_record_or_a_reason_is_found():
    claims = all_claims()
    ledger = json.loads((RESULTS / "ledger.json").read_text())
    ledger["rows"] = [row for row in ledger["rows"] if row["config"] != "ptb/zaremba:large"]
    assert published.unexplained(ledger, claims) == [
        "configs/ptb/zaremba.py:large has no record, and ledger.json gives no reason"
    ]


def test_an_outdated_table_is_found(monkeypatch):
    sections = published.results_page.sections()
    changed = {key: text.replace("reproduced", "better", 1) for key, text in sections.items()}
    monkeypatch.setattr(published.results_page, "sections", lambda: changed)
    assert published.outdated_tables()[0] == "README.md: the table `results` is outdated: run `make results`"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda c: c["trials"][3]["parameters"].update({"keep_prob.input": 0.5}),
            "its trials differ from the plan of the config",
        ),
        (lambda c: c["trials"].pop(), "its trials differ from the plan of the config"),
        (lambda c: c.update(name="sweeps/none"), "no config is named sweeps/none"),
    ],
)
def test_a_changed_sweep_is_found(tmp_path, change, found):
    shutil.copytree(RESULTS / "sweeps" / "cs224d_rnnlm", tmp_path / "one")
    assert published.wrong_sweeps(tmp_path) == []
    edit(tmp_path / "one" / "sweep.json", change)
    [wrong] = published.wrong_sweeps(tmp_path)
    assert wrong.startswith("one/sweep.json: ")
    assert found in wrong


@pytest.mark.parametrize("words", ["Source: ", "--config=configs/ptb/lstm2.py", " minutes"])
def test_a_claim_says_source_command_and_time(words):
    [claim] = [each for each in all_claims() if each.config.name == "ptb/lstm2"]
    check_docstring(claim)
    with pytest.raises(UserError, match=r"^configs/ptb/lstm2\.py: its docstring must contain '.*" + words.strip()):
        check_docstring(claim._replace(docstring=claim.docstring.replace(words, "")))


def test_a_claim_has_the_name_of_its_path():
    [claim] = [each for each in all_claims() if each.config.name == "ptb/lstm2"]
    with pytest.raises(UserError, match=r"config\.name must be its path, 'ptb/lstm3', not 'ptb/lstm2'"):
        check_docstring(Claim("configs/ptb/lstm3.py", claim.config, claim.docstring))
