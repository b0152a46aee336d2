"""Generates the results table of README and the tables of docs/results.md from the committed records.

python -m experiments.ledger.results_page
"""

import itertools

from experiments.ledger.claims import all_claims
from experiments.ledger.contents import derive
from experiments.ledger.records import RESULTS, load_records
from experiments.ledger.report import OTHER_COLUMNS, SHORT_COLUMNS, other_cells, select, summary_line
from experiments.ledger.storage import stored_reasons
from experiments.ledger.verdicts import is_final
from experiments.pages.markdown import README, ROOT, table, write_section

PAGE = ROOT / "docs" / "results.md"
PAGE_COLUMNS = ("config", "what", "reported", "ours", "95% interval", "seeds", "verdict", "protocol", "corpus")
_SPLITS = ("test", "valid", "train")  # README shows the number of the first of these splits that has one


def sections() -> dict:
    """{(file, name of a section in the file): generated Markdown}"""
    content = derive(load_records(), all_claims(), stored_reasons(RESULTS))
    rows = content["rows"]
    reported = [row for row in rows if row["kind"] == "reported"]  # without this project's aims
    return {
        (README, "results"): table(SHORT_COLUMNS, select(final_rows(reported), SHORT_COLUMNS)),
        (PAGE, "summary"): summary_line(rows),
        (PAGE, "reported numbers"): table(PAGE_COLUMNS, select(filter(is_final, rows), PAGE_COLUMNS)),
        (PAGE, "training curves"): table(PAGE_COLUMNS, select(itertools.filterfalse(is_final, rows), PAGE_COLUMNS)),
        (PAGE, "other protocols"): table(OTHER_COLUMNS, map(other_cells, content["other_scores"])),
    }


def final_rows(rows: list[dict]) -> list[dict]:
    """One row per config and corpus: its final number if it has one, otherwise its last reported point."""

    def rank(row: dict):
        place = 0 if is_final(row) else -int(row["at"].split()[1])
        return not is_final(row), place, _SPLITS.index(row["split"]), row["metric"] == "loss"

    groups = itertools.groupby(rows, lambda row: (row["config"], row["corpus"]))
    return [min(group, key=rank) for _, group in groups]


if __name__ == "__main__":
    for (path, section), text in sections().items():
        write_section(path, section, text)
