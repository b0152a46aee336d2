"""Puts the finished run in the workdir on record: experiments/results/<config>.<corpus>.seed<n>.json.

Records are committed; README's results table is generated from them (`make results`). A benchmark goes on record as
benchmark.<device>.json, for README's speed section.
"""

import json
from pathlib import Path

from experiments import speed_table
from experiments.ledger import make_record, record_path
from lm.errors import UserError


def run(config, workdir, data_dir=None):
    """Returns the path of the record."""
    del config, data_dir
    if Path(workdir, "benchmark.json").is_file():
        return speed_table.put_on_record(workdir)
    for name in ("summary.json", "metrics.jsonl"):
        if not Path(workdir, name).is_file():
            raise UserError(f"--workdir={workdir} holds no {name}: the run there is not finished")
    record = make_record(workdir)
    path = record_path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"wrote {path}")
    return path
