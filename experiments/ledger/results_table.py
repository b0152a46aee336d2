"""README's results table, generated from the committed records.

python -m experiments.ledger.results_table          rewrites the table
"""

from experiments.ledger.claims import all_claims
from experiments.ledger.records import load_records
from experiments.ledger.report import OTHER_COLUMNS, content, other_cells, targets_table
from experiments.pages import markdown


def render() -> str:
    """The tables as Markdown."""
    ledger = content(load_records(), all_claims(), {})
    parts = [
        "Reported numbers against ours:",
        targets_table(ledger["rows"]),
        "The same models under protocols their sources do not report:",
        markdown.table(OTHER_COLUMNS, [other_cells(score) for score in ledger["other_scores"]]),
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    markdown.write_section(markdown.README, "results", render())
