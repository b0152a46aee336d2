"""`reproduce`: which runs it trains and skips, the ledger it writes, and what --check finds."""

import importlib.util
import json
import shutil
from types import SimpleNamespace

import pytest

from experiments import record, reproduce
from experiments.ledger import report, storage
from experiments.ledger.claims import Claim, all_claims, matching, plan
from experiments.ledger.records import RESULTS
from experiments.reproduce import duration
from lm.errors import UserError
from lm.runs.provenance import identity
from lm.scoring.uncertainty import summarize_seeds
from tests.helpers.markdown_tables import table_rows

# A config of 12 steps with an easy target, one that no run reaches, and one on the training curve.
CONFIG = """
from configs.base import base, set_targets, target
from tests.helpers import tiny

def get_config(variant="good"):
    config = tiny.config(data__size=3000, train__threads=1, train__evaluate_every=5)
    config.evaluation.splits = ("valid", "test")
    config.name = f"tests/tiny:{variant}"
    config.source = "this test"
    config.claim.seeds = 2
    config.claim.minutes = 0.1
    if variant == "bad":
        config.optim.name = "no such optimiser"
    set_targets(
        config,
        easy=target(split="valid", protocol="exact", metric="perplexity", value=28.0, where="line <1>"),
        hard=target(split="test", protocol="exact", metric="perplexity", value=1.5, where="line 2"),
        early=target(split="train", protocol="train", metric="perplexity", value=30.0, where="line 3", at="step 5"),
    )
    return config
"""


@pytest.fixture(scope="module")
def tiny_claims(tmp_path_factory):
    """Claims of CONFIG: good, and bad, whose runs fail."""
    path = tmp_path_factory.mktemp("configs") / "tiny_claim.py"
    path.write_text(CONFIG)
    spec = importlib.util.spec_from_file_location("tiny_claim", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [Claim(f"{path}:{variant}", module.get_config(variant)) for variant in ("good", "bad")]


@pytest.fixture(scope="module")
def done(tiny_claims, tmp_path_factory):
    """(workdir of a ledger over both claims, what it returned)"""
    workdir = tmp_path_factory.mktemp("ledger")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, tiny_claims)
        return workdir, reproduce.run(None, workdir)


def use(patch, tiny_claims):
    patch.setattr(reproduce, "matching", lambda targets: tiny_claims)
    patch.setattr(reproduce, "all_claims", lambda: tiny_claims)
    patch.setattr(record, "all_claims", lambda: tiny_claims)


@pytest.fixture
def ledger(done, tiny_claims, tmp_path, monkeypatch):
    """A copy of the ledger that a test may change."""
    use(monkeypatch, tiny_claims)
    shutil.copytree(done[0], tmp_path / "ledger")
    return tmp_path / "ledger"


def test_every_target_gets_values_of_all_seeds_and_a_verdict(done):
    workdir, content = done
    rows = {(row["config"], row["target"]): row for row in content["rows"]}
    easy, hard, early = (rows["tests/tiny:good", name] for name in ("easy", "hard", "early"))
    summaries = [json.loads(path.read_text()) for path in sorted(workdir.glob("runs/*good*/summary.json"))]
    assert easy["values"] == [s["results"][0]["perplexity"] for s in summaries]
    assert len(set(easy["values"])) == 2
    assert easy["mean"] == pytest.approx(sum(easy["values"]) / 2)
    assert (easy["targets_scored"], early["targets_scored"]) == (summaries[0]["results"][0]["targets"], 0)
    assert hard["verdict"] == "worse"
    assert easy["verdict"] in ("reproduced", "better")
    assert easy["minutes"] == [round(s["train"]["wall_time_s"] / 60, 2) for s in summaries]


def test_a_failing_run_gives_its_reason_and_the_others_continue(done):
    _, content = done
    assert {row["verdict"] for row in content["rows"] if row["config"] == "tests/tiny:bad"} == {"not run"}
    reasons = [why for name, why in content["not_run"].items() if "bad" in name]
    assert len(reasons) == 2
    assert all("no such optimiser" in why and "exit status 2" in why for why in reasons)


def test_reports_hold_every_row_and_escape_what_they_quote(done):
    workdir, content = done
    markdown, page = ((workdir / name).read_text() for name in ("report.md", "report.html"))
    heads = [cells[:3] for cells in table_rows(markdown)]
    for row in content["rows"]:
        assert row["verdict"] in page
        shown = report.cells(row)
        assert [shown["config"], shown["what"], shown["reported"]] in heads
    assert "line &lt;1&gt;" in page
    assert "line <1>" not in page
    assert all(command in markdown for command in content["commands"].values())


def test_the_same_command_trains_nothing_again(ledger, monkeypatch, capsys):
    before = (ledger / "ledger.json").read_bytes()
    monkeypatch.setattr(reproduce, "matching", lambda targets: reproduce.all_claims()[:1])
    monkeypatch.setattr(reproduce, "run_command", lambda *arguments: pytest.fail("a run was trained again"))
    content = reproduce.run(None, ledger)
    assert capsys.readouterr().out.count("already done") == 2
    assert content["rows"][:3] == json.loads(before)["rows"][:3]


def test_a_run_from_before_a_key_existed_is_still_that_run(ledger, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "matching", lambda targets: reproduce.all_claims()[:1])
    monkeypatch.setattr(reproduce, "run_command", lambda *arguments: pytest.fail("a run was trained again"))
    for path in ledger.glob("runs/*good*/summary.json"):
        summary = json.loads(path.read_text())
        del summary["provenance"]["config"]["on_nan"], summary["provenance"]["config"]["data"]["train_tokens"]
        source = summary["provenance"]
        source["identity"] = identity(source["config"], source["data"].get("checksum", ""))
        path.write_text(json.dumps(summary))
        path.parent.rename(path.parent.with_suffix("." + source["identity"]))
    content = reproduce.run(None, ledger)
    assert capsys.readouterr().out.count("already done") == 2
    assert [row["verdict"] for row in content["rows"][:3]].count("not run") == 0
    reproduce.run(None, ledger, check=True)


@pytest.mark.slow
def test_records_alone_are_enough_to_continue(ledger, tmp_path, monkeypatch):
    """From a copied ledger, only the added seed is trained."""
    begun = []
    monkeypatch.setattr(reproduce, "matching", lambda targets: reproduce.all_claims()[:1])
    run_command = reproduce.run_command

    def noted(job, each, directory):
        begun.append(each.title)
        return run_command(job, each, directory)

    monkeypatch.setattr(reproduce, "run_command", noted)
    shutil.copytree(ledger / "records", tmp_path / "new" / "records")
    shutil.copy(ledger / "ledger.json", tmp_path / "new")
    content = reproduce.run(None, tmp_path / "new", seeds=3)
    assert begun == ["tests_tiny_good.synthetic.seed2"]
    rows = [row for row in content["rows"] if row["config"] == "tests/tiny:good"]
    assert [len(row["values"]) for row in rows] == [3, 3, 3]
    assert sum("no such optimiser" in why for why in content["not_run"].values()) == 2, "earlier reasons are kept"
    assert len(content["commands"]) == 5
    reproduce.run(None, tmp_path / "new", check=True)
    with pytest.raises(UserError, match="--check reads records and trains nothing: leave out --seeds"):
        reproduce.run(None, tmp_path / "new", check=True, seeds=3)


def test_a_row_has_its_interval_and_its_command(done):
    workdir, content = done
    row = next(row for row in content["rows"] if row["target"] == "easy")
    low, high = summarize_seeds(row["values"])[3:]
    for name in ("report.md", "report.html"):
        text = (workdir / name).read_text()
        assert f"[{low:.3f}, {high:.3f}]" in text
        assert "launch.py --experiment=reproduce --targets=tests/tiny:good --seeds=2" in text


def test_a_log_keeps_earlier_output(ledger, monkeypatch):
    """The reason is the last line of this command's process, not of an earlier one."""
    monkeypatch.setattr(reproduce, "matching", lambda targets: reproduce.all_claims()[1:])
    log = next(ledger.glob("logs/*bad*seed0*"))
    before = log.read_bytes() + b"step 5 of 12\n"
    log.write_bytes(before)
    monkeypatch.setattr(reproduce.Supervisor, "run", lambda self, command, output, left: 1)
    content = reproduce.run(None, ledger)
    assert log.read_bytes() == before
    assert "no output (exit status 1" in content["not_run"]["tests_tiny_bad.synthetic.seed0"]


def test_a_dry_run_adds_up_runs_that_train_side_by_side(tiny_claims, tmp_path, monkeypatch, capsys):
    """Two runs of one thread at once on two cores, then two of all threads one by one, 1 h each."""
    asked = []

    def estimate_all(configs, data_dir, jobs):
        asked.append((len(configs), jobs))
        return [SimpleNamespace(seconds=3600.0)] * len(configs)

    wide = tiny_claims[1]._replace(config=tiny_claims[1].config.copy_and_resolve_references())
    wide.config.train.threads = 0
    use(monkeypatch, [tiny_claims[0], wide])
    monkeypatch.setattr(reproduce, "estimate_all", estimate_all)
    monkeypatch.setattr(reproduce.cores, "available", lambda: 2)
    assert len(reproduce.run(None, tmp_path / "none", dry_run=True)) == 4
    assert asked == [(2, 2), (2, 1)]
    assert "runs to train: 4, in all at least 3.00 hours" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_a_long_job_is_estimated_before_it_starts(tiny_claims, tmp_path, monkeypatch):
    use(monkeypatch, tiny_claims[:1])
    commands = []
    monkeypatch.setattr(reproduce.Supervisor, "run", lambda self, command, *rest: commands.append(command) or 1)
    reproduce.run(None, tmp_path / "short", data_dir=tmp_path)
    assert len(commands) == 2
    monkeypatch.setattr(reproduce, "LONG", 0.15)
    reproduce.run(None, tmp_path / "long", data_dir=tmp_path)
    assert len(commands) == 5
    assert commands[2][:4] == ["launch.py", "--experiment=reproduce", "--dry_run", "--targets=tests/tiny:good"]
    assert f"--workdir={tmp_path / 'long'}" in commands[2]
    assert f"--data_dir={tmp_path}" in commands[2]


def test_a_workdir_that_cannot_be_made_is_one_line():
    with pytest.raises(UserError, match="directory /dev/null/x/runs cannot be made: Not a directory"):
        reproduce.run(None, "/dev/null/x", targets="text8/lstm")


def test_a_damaged_ledger_is_found_before_anything_is_trained(ledger, monkeypatch):
    monkeypatch.setattr(reproduce, "run_command", lambda *arguments: pytest.fail("a run was trained"))
    (ledger / "ledger.json").write_text('{"rows": [')
    with pytest.raises(UserError, match=r"ledger.json is not valid JSON"):
        reproduce.run(None, ledger)


def test_a_run_of_another_identity_is_trained_again(ledger, monkeypatch, capsys):
    """A run in the same directory whose config leads to other numbers."""
    begun = []
    monkeypatch.setattr(reproduce, "matching", lambda targets: reproduce.all_claims()[:1])
    monkeypatch.setattr(reproduce, "run_command", lambda job, each, where: (begun.append(each.title), (1, "stub"))[1])
    directory = next(ledger.glob("runs/*good*seed0*"))
    for path in (directory / "summary.json", next(ledger.glob("records/*good*seed0*"))):
        edit(path, lambda c: c["provenance"]["config"]["optim"].update(learning_rate=0.123))
    edit(directory / "config.json", lambda c: c["optim"].update(learning_rate=0.123))
    content = reproduce.run(None, ledger)
    assert ["seed0" in name for name in begun] == [True]
    assert len(content["rows"][0]["values"]) == 1
    assert any("stub" in why for why in content["not_run"].values())
    reproduce.run(None, ledger, check=True)


def test_runs_that_exceed_the_budget_do_not_start(tiny_claims, tmp_path, monkeypatch):
    use(monkeypatch, tiny_claims)
    content = reproduce.run(None, tmp_path, budget="1s")
    assert {row["verdict"] for row in content["rows"]} == {"not run"}
    assert all("the run takes about 0.1" in why for why in content["not_run"].values())


def test_a_run_stopped_by_the_budget_gives_that_reason(tiny_claims, tmp_path, monkeypatch):
    use(monkeypatch, tiny_claims[:1])
    monkeypatch.setattr(reproduce, "run_command", lambda *arguments: (None, ""))
    content = reproduce.run(None, tmp_path, seeds=1, budget="30m")
    cut, other = content["not_run"].values()
    assert "half done" in cut
    assert other == "not asked for"


# --- check


def test_a_written_ledger_passes_its_check(ledger):
    assert reproduce.run(None, ledger, check=True)["rows"]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def hard(content):
    return next(row for row in content["rows"] if (row["config"], row["target"]) == ("tests/tiny:good", "hard"))


def test_a_changed_verdict_is_found(ledger):
    edit(ledger / "ledger.json", lambda c: hard(c).update(verdict="reproduced"))
    with pytest.raises(UserError, match="verdict is reproduced and should be worse"):
        reproduce.run(None, ledger, check=True)


def test_a_changed_reported_number_is_found(ledger):
    edit(ledger / "ledger.json", lambda c: hard(c).update(value=100.0))
    with pytest.raises(UserError, match=r"value is 100.0 and should be 1.5"):
        reproduce.run(None, ledger, check=True)


def test_a_changed_record_is_found(ledger):
    edit(next(ledger.glob("records/*good*seed0*")), lambda c: c["results"][0].update(perplexity=1.0))
    with pytest.raises(UserError, match=r"tests/tiny:good/easy on synthetic: high is .* and should be"):
        reproduce.run(None, ledger, check=True)


def test_a_record_of_another_config_is_found(ledger):
    path = next(ledger.glob("records/*good*seed0*"))
    edit(path, lambda c: c["provenance"]["config"]["optim"].update(learning_rate=0.123))
    with pytest.raises(UserError, match=r"optim.learning_rate is 0.123 in the record and 1.0 in"):
        reproduce.run(None, ledger, check=True)


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_changed_report_is_found(ledger, name):
    text = (ledger / name).read_text()
    assert "worse" in text
    (ledger / name).write_text(text.replace("worse", "reproduced"))
    with pytest.raises(UserError, match=f"{name} differs from the one rendered"):
        reproduce.run(None, ledger, check=True)


def test_a_missing_or_torn_ledger_is_one_line(tmp_path, ledger):
    with pytest.raises(UserError, match=r"cannot read .*ledger.json"):
        reproduce.run(None, tmp_path / "empty", check=True)
    (ledger / "ledger.json").write_text('{"rows": [')
    with pytest.raises(UserError, match=r"ledger.json is not valid JSON: Expecting value"):
        reproduce.run(None, ledger, check=True)


def test_a_ledger_on_record_joins_what_is_there(ledger, tmp_path, capsys):
    """It used to replace everything: a ledger of one claim deleted all other records without a word."""
    directory = tmp_path / "results"
    shutil.copytree(ledger, directory)
    before = {path.name: path.read_bytes() for path in (directory / "records").iterdir()}
    first, *others = sorted(before)
    (ledger / "records" / first).unlink()
    storage.renew(ledger, reproduce.all_claims())
    record.put_ledger_on_record(ledger, directory)
    assert {path.name: path.read_bytes() for path in (directory / "records").iterdir()} == before
    assert storage.check(directory, reproduce.all_claims())["rows"]
    assert f"{len(others)} records from {ledger}, and 1 kept" in capsys.readouterr().out


def test_the_committed_ledger_follows_from_its_records():
    rows = storage.check(RESULTS, all_claims())["rows"]
    assert {row["config"] for row in rows} == {claim.config.name for claim in all_claims() if claim.config.targets}


# --- what is run


def test_patterns_name_configs_and_targets():
    def names(patterns):
        return [claim.config.name for claim in matching(patterns)]

    assert names("ptb/zaremba:small") == ["ptb/zaremba:small"]
    zaremba = [f"ptb/zaremba:{variant}" for variant in ("small", "small_held_5", "medium", "large")]
    assert names("ptb/*/test") == ["ptb/characters:180", "ptb/cs287:30", "ptb/cs287:50", "ptb/lstm2", *zaremba]
    assert names("cs224d/r*,text8/lstm*") == ["cs224d/rnnlm", "text8/lstm", "text8/lstm_fused"]
    assert names("*") == [claim.config.name for claim in all_claims()]
    with pytest.raises(UserError, match=r"--targets=text9/\* matches no config"):
        matching("text8/*,text9/*")


def test_another_corpus_replaces_those_built_like_it():
    corpora = {run.config.name: run.config.data.corpus for run in plan(matching("*"), 1, "text8_prefix")}
    assert corpora["text8/lstm"] == "text8_prefix"
    assert corpora["ptb/lstm2"] == "ptb"
    with pytest.raises(UserError, match="unknown"):
        plan(matching("*"), 1, "text9")
    with pytest.raises(UserError, match="built differently"):
        plan(matching("ptb/*"), 1, "text8_prefix")


def test_a_plan_starts_with_the_cheapest_run():
    runs = plan(matching("text8/lstm,ptb/lstm2"), 0)
    assert [run.config.seed for run in runs] == [0, 1, 2, 0]
    assert runs[-1].command == (
        "python launch.py --config=configs/ptb/lstm2.py --config.seed=0 --config.data.corpus=ptb "
        "--workdir=runs/ptb_lstm2.ptb.seed0"
    )
    assert len({run.directory for run in runs}) == 4
    assert len(plan(matching("ptb/lstm2"), 2)) == 2


def test_every_config_with_targets_states_its_minutes():
    assert all(claim.config.claim.minutes > 0 for claim in all_claims())
    cheap = [claim.config for claim in all_claims() if claim.config.claim.minutes < 5]
    single = [config.name for config in cheap if config.claim.seeds < 3]
    assert single == ["cs224d/softmax"], "which draws nothing: every seed gives the same numbers"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-5m", "30 m", "inf"])
def test_other_budgets_are_refused(text):
    with pytest.raises(UserError, match="--budget"):
        duration(text)


def test_negative_seeds_are_refused(tmp_path):
    with pytest.raises(UserError, match="--seeds=1000000 must be 1 to 1000"):
        reproduce.run(None, tmp_path, targets="text8/lstm", seeds=1_000_000)
    with pytest.raises(UserError, match="--seeds=-1"):
        reproduce.run(None, tmp_path, targets="text8/lstm", seeds=-1)
