"""Reads Markdown tables, whatever the width of their columns."""


def table_rows(text: str) -> list[list[str]]:
    """The cells of every line of every table in a text; the lines below the heads are rows of dashes."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
