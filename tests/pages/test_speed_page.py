"""docs/speed.md: what a benchmark leaves on record, and how the page shows it."""

import json
import re

from experiments import record
from experiments.pages.markdown import with_section
from experiments.peers import plots, records, speed_page
from experiments.peers.workload import SWEEPS
from tests.helpers.markdown_tables import table_rows


def made_record() -> dict:
    """A benchmark of two workloads and two points of a sweep."""

    def row(workload, implementation, speed, ratio):
        shares = {"ratio": ratio, "fraction_of_floor": 0.51234, "peak_rss_mb": 512.0, "compile_s": 1.26}
        rates = {"tokens_per_s": speed, "spread": [speed, speed * 1.1], "rounds": [speed]}
        return {"workload": workload, "implementation": implementation} | rates | shares

    rows = [row("ptb_train", "lm", 12345.678, 1.0), row("ptb_train", "torch", 6000.0, 2.0576), row("x", "lm", 9.0, 1.0)]
    rows += [row("imdb_padding", name, 21_800.0 * n, 1.6 * n) for n, name in enumerate(plots.PADDING, 1)]
    rows += [row(f"cost_batch_{b}", name, 640.0 * b, 1.0) for b in (1, 4) for name in ("lm", "floor")]
    device = {"platform": "cpu", "kind": "cpu", "cpu": "Some CPU @ 2.0", "cores": 2, "threads": 2}
    versions = {"jax": "1.2", "torch": "3.4"}
    origin = {"device": device, "versions": versions, "git": None, "date": "2026-01-02"}
    return origin | {"absent": {"haiku": "is not installed"}, "rows": rows}


def test_a_recorded_workload_stays_when_others_are_measured(tmp_path):
    """Only what is measured again is replaced, with its reasons for absent implementations."""
    old, new = made_record(), made_record()
    old["absent"] = {"haiku on ptb_train": "old", "haiku on x": "kept"}
    new["rows"] = [row | {"tokens_per_s": 7.0} for row in new["rows"] if row["workload"] == "ptb_train"]
    new["absent"], new["versions"] = {"keras on ptb_train": "new"}, {"torch": "3.5"}
    for content in (old, new):
        (tmp_path / "benchmark.json").write_text(json.dumps(content))
        path = records.record_benchmark(str(tmp_path), tmp_path / "results")
    kept = speed_page.load(path)
    speeds = {(row["workload"], row["implementation"]): row["tokens_per_s"] for row in kept["rows"]}
    assert speeds["ptb_train", "lm"] == speeds["ptb_train", "torch"] == 7.0
    assert speeds["x", "lm"] == 9.0
    assert len(kept["rows"]) == len(old["rows"])
    assert kept["absent"] == {"haiku on x": "kept", "keras on ptb_train": "new"}
    assert kept["versions"] == {"jax": "1.2", "torch": "3.5"}


def test_a_benchmark_is_recorded_and_shown_on_the_page(tmp_path, monkeypatch):
    (tmp_path / "benchmark.json").write_text(json.dumps(made_record()))
    monkeypatch.setattr(record, "record_benchmark", lambda workdir: ("on record", workdir))
    assert record.run(None, tmp_path) == ("on record", tmp_path)
    monkeypatch.undo()
    results = tmp_path / "results"
    path = records.record_benchmark(str(tmp_path), results)
    assert path == results / "benchmark.some-cpu-2-0-2-threads.json"
    assert (results / "benchmark.some-cpu-2-0-2-threads.cost_batch.png").stat().st_size > 10_000
    kept = speed_page.load(path)
    assert kept["rows"][0]["tokens_per_s"] == 12350
    assert kept["device"] == made_record()["device"]
    monkeypatch.setattr(speed_page, "PAGE", tmp_path / "speed.md")
    text = speed_page.section(results)
    assert text == speed_page.device_section(path, kept)
    assert "**Some CPU @ 2.0, 2 threads**, float32, 2026-01-02; jax 1.2, torch 3.4." in text
    rows = table_rows(text)
    assert ["workload", "tokens/s", "of the floor", "x torch"] in rows
    assert ["ptb_train", "12,350 ± 5%", "0.51", "2.06"] in rows
    assert ["x", "9 ± 5%", "0.51", ""] in rows
    assert ["ptb_train", "512 / 1.3", "512 / 1.3"] in rows
    assert "Absent: haiku: is not installed." in text
    assert "![cost against batch B](results/benchmark.some-cpu-2-0-2-threads.cost_batch.png)" in text
    assert (results / "benchmark.some-cpu-2-0-2-threads.padding.png").stat().st_size > 5000
    assert "![speed by padding](results/benchmark.some-cpu-2-0-2-threads.padding.png)" in text
    assert ["imdb_padding", "lm_single", "21,800 ± 5%", "10.0", "1.60", "512 / 1.3"] in rows  # 218 tokens a step
    assert ["imdb_padding", "lm_padded", "43,600 ± 5%", "320.0", "3.20", "512 / 1.3"] in rows  # 64 times as many
    assert ["imdb_padding", "x lm_padded", "at least 1.7", "3.20", "yes"] in rows
    assert "cost_batch_1" not in text
    assert ["ptb_train", "of the floor", "at least 0.75", "0.51", "no"] in rows
    assert ["ptb_train", "x torch", "at least 2", "2.06", "yes"] in rows
    assert "x flax" not in text  # not measured


def test_aims_are_listed_with_the_numbers_reached():
    rows = [
        {"workload": "ptb_train", "implementation": name, "ratio": ratio, "fraction_of_floor": 0.75, "peak_rss_mb": mb}
        for name, ratio, mb in (("lm", 1.0, 300), ("flax", 1.99, 590))
    ]
    lanes = {
        "rows": [{"lanes": 8, "ratio": 3.0}, {"lanes": 16, "ratio": 1.9}],
        "whole_runs": {"lanes": 16, "ratio": 2.5},
    }
    assert table_rows(speed_page.aim_table({"rows": rows}, lanes))[2:] == [
        ["ptb_train", "x flax", "at least 2", "1.99", "no"],
        ["ptb_train", "of the floor", "at least 0.75", "0.75", "yes"],
        ["ptb_train", "peak memory, x flax", "at most 0.5", "0.51", "no"],
        ["16 lanes", "steps, x one after another", "at least 2", "1.90", "no"],
        ["16 lanes", "whole runs, x one after another", "at least 2", "2.50", "yes"],
    ]
    assert speed_page.aim_table({"rows": []}, None) == ""


def test_the_plots_show_milliseconds_per_step():
    times = plots.milliseconds(made_record(), "cost_batch")
    # 20 tokens a row of the batch
    assert times == {name: {1: 1000 * 20 / 640, 4: 1000 * 80 / (4 * 640)} for name in ("lm", "floor")}
    assert plots.AXES.keys() == SWEEPS.keys()


def test_the_page_is_current():
    page = speed_page.PAGE.read_text(encoding="utf-8")
    assert with_section(page, "speed", speed_page.section()) == page, "run `make results`"


def test_images_on_the_page_exist():
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", speed_page.PAGE.read_text(encoding="utf-8"))
    assert len(links) == 5
    assert all((speed_page.PAGE.parent / link).is_file() for link in links)
