"""Tables of Markdown."""

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """One line per row. A cell is anything with a str; None is an empty one, and no text can end its cell or line."""
    return "\n".join(_line(cells) for cells in (columns, ["---"] * len(columns), *rows))


def _line(cells: Sequence) -> str:
    texts = ("" if cell is None else str(cell) for cell in cells)
    return "| " + " | ".join(" ".join(text.split("\n")).replace("|", "\\|") for text in texts) + " |"
