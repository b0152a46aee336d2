"""Pages and reports in the browser: they sort, fit, load nothing and run no foreign script."""

import optuna
import pytest

from experiments.ledger import report
from experiments.ledger.claims import all_claims
from experiments.ledger.contents import derive
from experiments.ledger.records import RESULTS, load_records
from experiments.sweeps import pictures
from tests.helpers.browser import check_fits, check_page, chromium, column, opened
from tests.helpers.sample_page import EVIL, sample_page

pytestmark = pytest.mark.slow


def test_in_the_browser(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(sample_page(), encoding="utf-8")
    with chromium() as browser:
        check_page(browser, path)
        with opened(browser, path) as page:
            assert page.title() == EVIL, "foreign script has run"
            value = page.query_selector_all("th button")[1]
            value.click()
            assert column(page, 0, 0)[:4] == ["a", "b", "c", EVIL]  # 9.25, 10.5, 1000; then text; then nothing
            value.focus()
            page.keyboard.press("Enter")
            assert column(page, 0, 0) == ["c", "b", "a", EVIL, "d"]
            page.query_selector("th button").click()
            assert column(page, 0, 0)[-4:] == ["a", "b", "c", "d"]


def test_the_committed_report_in_the_browser():
    path = RESULTS / "report.html"
    with chromium() as browser:
        check_page(browser, path)
        check_fits(browser, path, 1280)
        with opened(browser, path) as page:
            assert page.query_selector_all("details")
            assert page.query_selector_all("details[open]") == []
            colours = {
                word: page.evaluate(f"getComputedStyle(document.querySelector('td.{word}')).color")
                for word in ("reproduced", "better", "worse", "not-run")
            }
            assert len(set(colours.values())) == 4
            assert page.query_selector("td.worse").inner_text() == "worse", "it is readable without colour"


def test_the_report_of_a_sweep_in_the_browser(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=EVIL)
    space = {
        "rate": optuna.distributions.FloatDistribution(0.01, 1, log=True),
        EVIL: optuna.distributions.CategoricalDistribution(("a", EVIL)),
    }
    for number in range(6):
        trial = study.ask(space)
        study.tell(trial, 10 + trial.params["rate"] + number)
    pictures.write_report(study, str(tmp_path))
    with chromium() as browser:
        check_page(browser, tmp_path / "report.html")
        with opened(browser, tmp_path / "report.html") as page:
            assert page.title() == f"Sweep {EVIL}"
            assert len(page.query_selector_all("img")) == 3
            values = [value.split()[0] for value in column(page, 0, 1 + len(space))]
            assert values == [f"{value:.4f}" for value in sorted(trial.value for trial in study.trials)]


def test_a_sample_of_script_is_inert_in_the_report(tmp_path):
    """Text of a model, or of a config, that is HTML."""
    record = next(iter(load_records()))
    record["samples"] = [EVIL]
    content = derive([record], all_claims(), {"ptb_lstm2.ptb.seed9": EVIL})
    path = tmp_path / "report.html"
    path.write_text(report.render_html(content, [record]), encoding="utf-8")
    with chromium() as browser, opened(browser, path) as page:
        assert page.title() == "Reported numbers against ours"
        page.click("summary:has-text('Samples')")
        assert page.query_selector("details[open] pre").inner_text() == EVIL
