"""The code of README, docs/api.md and docs/tour.ipynb runs, and what they say of the shipped models is so."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import nbformat
import pytest
from nbclient import NotebookClient

import lm
from lm.run import Run

ROOT = Path(__file__).resolve().parents[1]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_of(name: str) -> list[str]:
    """The Python code blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


def run_script(code: str, directory: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-"], input=code, cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_of_the_page_on_the_api():
    code = "\n".join(blocks_of("docs/api.md"))
    run_script(code, ROOT)
    methods = {name for name, _ in inspect.getmembers(Run, inspect.isfunction) if not name.startswith("_")}
    others = {
        "check_config",
        "check_task",
        "label_probabilities",
        "predicted_labels",
        "translate",
    }  # of commands, and of runs that do not ship
    assert {name for name in methods if f"run.{name}(" not in code} == others
    assert all(f"run.{name}(text)" in page("docs/api.md") for name in ("label_probabilities", "predicted_labels"))


def test_the_table_of_shipped_models():
    rows = re.findall(
        r"^\| `(text8_\w+)` \| .* \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", page("docs/commands.md"), re.M
    )
    assert len(rows) == len(list((ROOT / "docs" / "models").iterdir())) == 5
    for name, *printed in rows:
        run = lm.open_run(ROOT / "docs" / "models" / name)
        results = json.loads((run.workdir / "config.json").read_text())["results"]
        [row] = [row for row in results if row["protocol"] == "exact"]
        size = sum(array.size for array in jax.tree.leaves(run.parameters))
        scores = [f"{row[key]:.3f}" for key in ("perplexity", "bits_per_symbol")]
        assert printed == [f"{size:,}", f"{run.step:,}", *scores]


@pytest.mark.slow
def test_the_commands_of_the_readme_on_shipped_models():
    lines = page("README.md").replace("\\\n", " ").splitlines()
    commands = [line for line in lines if re.match(r"(python|printf) .*launch.py .*docs/models", line)]
    assert len(commands) >= 4
    for command in commands:
        *before, launched = command.split(" | ")
        python, *arguments = shlex.split(launched)
        assert python == "python"
        text = ""
        if before:
            printf, text = shlex.split(before[0])
            assert printf == "printf"
        done = subprocess.run([sys.executable, *arguments], input=text, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.slow
def test_the_tour(tmp_path, monkeypatch):
    """Runs in a kernel of its own, which writes under tmp_path alone."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] for cell in code), "stored without outputs"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    printed = "".join(output.get("text", "") for output in outputs)
    assert "lstm_fused" in printed
    forwards, backwards = re.search(r"perplexity of this text (\S+), read backwards (\S+)$", printed.strip()).groups()
    assert float(forwards) < 2 < 10 < float(backwards)


def test_every_python_block_of_the_readme_runs():
    blocks = blocks_of("README.md")
    assert blocks
    run_script("\n".join(blocks), ROOT)
