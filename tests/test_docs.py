"""The code of docs/api.md and docs/tour.ipynb runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run_script(code: str, directory: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-"], input=code, cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_of_the_page_on_the_api():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    run_script("\n".join(blocks), ROOT)


@pytest.mark.slow
def test_the_tour():
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code"), "stored without outputs"
    printed = run_script("\n".join(code), ROOT / "docs")
    assert "lstm_fused" in printed
    forwards, backwards = re.search(r"perplexity of this text (\S+), read backwards (\S+)$", printed.strip()).groups()
    assert float(forwards) < 2 < 10 < float(backwards)


def test_every_python_block_of_the_readme_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    run_script("\n".join(blocks), ROOT)
