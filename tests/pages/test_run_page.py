"""The page of a finished run: what it shows, and that it never costs the run's results."""

import json

import pytest

from configs.base import aim, set_targets, target
from experiments import train
from experiments.pages import run_page
from tests.helpers import tiny
from tests.helpers.browser import check_fits, check_page, chromium
from tests.helpers.sample_page import EVIL


def settings(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat <b>on</b> the mat\n" * 40)
    config = tiny.config(
        data__corpus="textfile", data__path=str(tmp_path / "text.txt"), data__fractions=(0.8, 0.2, 0.0)
    )
    config.name, config.source = EVIL, "nowhere"
    set_targets(
        config,
        easy=target(split="valid", protocol="exact", metric="perplexity", value=50.0, where=f"table 1 {EVIL}"),
        hard=aim(split="valid", protocol="exact", metric="loss", value=0.01, where="table 2"),
        other=target(split="test", protocol="exact", metric="perplexity", value=2.0, where="table 3"),
    )
    return config


def test_it_shows_scores_beside_the_reported_numbers_with_verdicts(tmp_path, capsys):
    summary = train.run(settings(tmp_path), tmp_path / "run")
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {tmp_path}/run/curves.png and {tmp_path}/run/report.html"
    page = (tmp_path / "run" / "report.html").read_text()
    perplexity = summary["results"][0]["perplexity"]
    assert f">{perplexity:.6g}</td>" in page
    rows = run_page.target_rows(run_page.make_record(tmp_path / "run"), summary["provenance"]["config"]["targets"])
    assert [(row[1], row[3]) for row in rows] == [("50", "better"), ("0.01 (aim)", "aim missed"), ("2", "not run")]
    assert rows[0][2] == perplexity
    assert summary["provenance"]["identity"] in page
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert EVIL not in page, "what a run holds is text, not HTML"


@pytest.mark.slow
def test_a_fine_tuned_run_is_not_judged_by_the_numbers_of_its_config(tmp_path, capsys):
    train.run(settings(tmp_path), tmp_path / "first")
    assert "the source reports" in capsys.readouterr().out
    tuned = settings(tmp_path)
    tuned.init_from = str(tmp_path / "first")
    train.run(tuned, tmp_path / "tuned")
    assert "the source reports" not in capsys.readouterr().out
    assert "Reported numbers" not in (tmp_path / "tuned" / "report.html").read_text()
    assert "Reported numbers" in (tmp_path / "first" / "report.html").read_text()


def test_the_curves_are_those_of_the_log(tmp_path):
    train.run(settings(tmp_path), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    figure = run_page.draw_curves(rows, [])
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["train"].get_ydata().tolist() == [row["perplexity"] for row in rows]
    assert lines["valid"].get_xdata().tolist() == [row["step"] for row in rows if "valid_perplexity" in row]


def test_a_page_that_cannot_be_made_costs_no_result(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_page, "draw_curves", lambda *arguments: 1 / 0)
    summary = train.run(settings(tmp_path), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["results"] == summary["results"]
    assert "warning: no report of " in capsys.readouterr().err
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_it_fits_the_screen_in_the_browser(tmp_path):
    train.run(settings(tmp_path), tmp_path / "run")
    with chromium() as browser:
        check_page(browser, tmp_path / "run" / "report.html")
        check_fits(browser, tmp_path / "run" / "report.html", 1280)
