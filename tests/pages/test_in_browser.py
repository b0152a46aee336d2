"""Pages are escaped, self-contained and the same every time; in the browser they sort, fit and run nothing foreign."""

import re

import jinja2
import optuna
import pytest
from matplotlib.figure import Figure

from experiments.ledger import report
from experiments.ledger.claims import all_claims
from experiments.ledger.contents import derive
from experiments.ledger.records import RESULTS, load_records
from experiments.pages import environment, number_at_start, render, svg_of
from experiments.sweeps import pictures
from tests.helpers.browser import check_fits, check_page, chromium, column, opened

EVIL = """<script>document.title='bad'</script><img src=x onerror="document.title='bad'">&amp;'"</pre></table>"""
SAMPLE = """{% extends "base.html" %}
{% import "parts.html" as parts %}
{% block content %}
<h2>{{ text }}</h2><p>{{ text }}</p><pre>{{ text }}</pre><details><summary>{{ text }}</summary><p>inside</p></details>
{{ parts.table([text, "value"], rows + [[text, "n/a"]], text) }}
{{ parts.table(["wide " * 9] * 9, [["x" * 40] * 9]) }}
{{ parts.figure(plot, "svg", text, text) }}
{% endblock %}"""


@pytest.fixture
def sample(monkeypatch):
    """A page that holds every part, filled with HTML as text."""
    made = environment()
    made.loader = jinja2.ChoiceLoader([jinja2.DictLoader({"sample.html": SAMPLE}), made.loader])
    monkeypatch.setattr("experiments.pages.environment", lambda: made)
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2, 3], [2, 1, 3])
    rows = [["b", "10.5 ± 0.1"], ["a", "9.25 (1 seed)"], ["d", None], ["c", "1,000"]]
    return lambda: render("sample.html", title=EVIL, text=EVIL, plot=svg_of(figure), rows=rows)


def test_all_text_is_escaped(sample):
    page = sample()
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;document.title=&#39;bad&#39;&lt;/script&gt;") == 11
    assert page.count("<script>") == page.count("</script>") == 1


def test_a_page_names_no_other_place(sample):
    page = re.sub(r'src="data:[^"]*"', "", sample())
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_values_give_the_same_bytes(sample):
    assert sample() == sample()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4.05 ± 0.02 (3 seeds)", 4.05),
        ("1,000", 1000.0),
        ("-3e2", -300.0),
        ("12 min", 12.0),
        ("about 3", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("text8/lstm", None),
    ],
)
def test_what_sorts_as_a_number(text, value):
    assert number_at_start(text) == value


def test_in_the_browser(sample, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(sample(), encoding="utf-8")
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


def test_a_sample_of_script_is_inert_in_the_report(tmp_path):
    """Text of a model, or of a config, that is HTML."""
    record = next(iter(load_records()))
    record["samples"] = [EVIL]
    content = derive([record], all_claims(), {"y": EVIL})
    path = tmp_path / "report.html"
    path.write_text(report.render_html(content, [record]), encoding="utf-8")
    with chromium() as browser, opened(browser, path) as page:
        assert page.title() == "Reported numbers against ours"
        page.click("summary:has-text('Samples')")
        assert page.query_selector("details[open] pre").inner_text() == EVIL
