"""Exports a run: weights to model.safetensors and the rest of the model to config.json, in RUN/export or --to.

The export can replace the run: sample, score and `lm.open_run` accept its directory.
"""

from pathlib import Path

from lm.errors import UserError
from lm.model.weights import save_weights
from lm.run import WEIGHTS, Run, open_run
from lm.runs.files import make_directory, sha256_of, write_json
from lm.runs.origin import check_summary, run_of
from lm.runs.schema import read_json


def run(config, workdir, data_dir=None, checkpoint="last", to=""):
    """Returns the directory of the export. config.json holds config, vocabulary, step, scores and checksums."""
    opened = open_run(workdir, checkpoint)
    opened.check_config(config)
    directory = Path(to or Path(workdir, "export"))
    if (directory / "config.json").exists() and not (directory / WEIGHTS).exists():
        raise UserError(f"--to={directory} holds a run, which the export would overwrite: choose another directory")
    scores = results(opened)
    make_directory(directory)
    save_weights(str(directory / WEIGHTS), opened.parameters, opened.vocabulary)
    description = {
        "config": opened.config.to_dict(),
        "vocabulary": opened.vocabulary.record,
        "step": opened.step,
        "checkpoint": opened.checkpoint,
        "data": opened.data,
        "run": run_of(opened.config),
        "weights_sha256": sha256_of(directory / WEIGHTS),
        "results": scores,
    }
    write_json(directory / "config.json", description)
    print(f"wrote {directory}/model.safetensors and config.json: the {checkpoint} checkpoint, {opened.step} steps")
    return str(directory)


def results(run: Run) -> list[dict]:
    """The rows of summary.json for the run's checkpoint, whose last one is named final; empty for an unfinished run."""
    path = run.workdir / "summary.json"
    if not path.exists():
        return []
    summary = read_json(path, {"results": [{}], "provenance": {"config": {}}})
    check_summary(summary, run.config, str(path))
    return [row for row in summary["results"] if row["which"] == {"last": "final"}.get(run.checkpoint, run.checkpoint)]
